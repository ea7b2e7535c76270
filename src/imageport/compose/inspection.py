"""What the guest is, from its registry and files, without changing anything."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

from imageport.compose.contract import Inspection
from imageport.compose.hives.hive import Hive
from imageport.compose.hives.registry import Registry, hive_path
from imageport.compose.volumes.guest_files import GuestFiles
from imageport.compose.volumes.partition_table import PartitionTable
from imageport.errors import EngineFailed

WINDOWS_NT = "Microsoft\\Windows NT\\CurrentVersion"
UNINSTALL = "Microsoft\\Windows\\CurrentVersion\\Uninstall"
_FIRST_BUILD_OF_11 = 22000
"""Windows 11 still calls itself 10 in ProductName."""
_MAX_PRODUCTS = 500
_MACHINES = {0x8664: "x86_64", 0x014C: "i386", 0xAA64: "arm64"}
"""PE machine types. Reference: PE format, COFF file header."""
_NAMED_MACHINES = {"AMD64": "x86_64", "X86": "i386", "ARM64": "arm64"}
"""The same as Windows names them in PROCESSOR_ARCHITECTURE."""
_MAKERS = {
    "vmware": "vmware",
    "xen": "xenserver",
    "citrix": "xenserver",
    "nutanix": "nutanix",
}
_PLATFORM_SERVICES = (
    ("VMTools", "vmware"),
    ("pvscsi", "vmware"),
    ("xenbus", "xenserver"),
    ("Nutanix Guest Agent", "nutanix"),
)


def inspect(registry: Registry, files: GuestFiles, table: PartitionTable) -> Inspection:
    """Return the facts; what a guest does not tell stays empty."""
    current = registry.current_control_set
    products = installed_products(registry)
    return Inspection(
        product_name=_product_name(registry),
        build=_build(registry),
        architecture=_architecture(registry, files, current),
        edition=registry.text("SOFTWARE", WINDOWS_NT, "EditionID"),
        firmware="uefi" if table.scheme == "gpt" and table.esp else "bios",
        disk_guid=table.disk_guid,
        partitions=describe_partitions(table),
        control_sets=registry.control_sets,
        current_control_set=current,
        source_platform=_platform(registry, current),
        vda_version=_version(
            registry, products, "Citrix\\VirtualDesktopAgent", "Virtual Delivery Agent"
        ),
        pvs_target_version=pvs_target_version(registry),
        domain=_domain(registry, files, current),
        free_bytes=files.free_bytes(),
        software=tuple(f"{name} {version}".rstrip() for name, version in products),
    )


def describe_partitions(table: PartitionTable) -> tuple[str, ...]:
    """Return one line per partition."""
    return tuple(
        f"{p.number}: {p.name or p.type_id}, {p.length_bytes} bytes at {p.first_byte}"
        for p in table.partitions
    )


def installed_products(registry: Registry) -> list[tuple[str, str]]:
    """Return (name, version) of what Windows lists as installed, sorted."""
    found = []
    for root in (UNINSTALL, f"WOW6432Node\\{UNINSTALL}"):
        key = registry.key("SOFTWARE", root)
        for child in (key.children() if key else [])[:_MAX_PRODUCTS]:
            name = child.value("DisplayName")
            version = child.value("DisplayVersion")
            if name and name.as_text():
                found.append((name.as_text(), version.as_text() if version else ""))
    return sorted(set(found))


def pvs_target_version(registry: Registry) -> str:
    """Return the version of the Citrix Provisioning target device software, "" without it."""
    return _version(
        registry,
        installed_products(registry),
        "Citrix\\ProvisioningServices",
        "Provisioning Target Device",
        value="TargetDeviceVersion",
    )


def _version(
    registry: Registry,
    products: list[tuple[str, str]],
    key: str,
    product: str,
    *,
    value: str = "ProductVersion",
) -> str:
    own = registry.text("SOFTWARE", key, value)
    listed = [version for name, version in products if product.lower() in name.lower()]
    return own or next(iter(listed), "")


def _product_name(registry: Registry) -> str:
    name = registry.text("SOFTWARE", WINDOWS_NT, "ProductName")
    build = registry.text("SOFTWARE", WINDOWS_NT, "CurrentBuild")
    if name.startswith("Windows 10") and build.isdigit() and int(build) >= _FIRST_BUILD_OF_11:
        return "Windows 11" + name.removeprefix("Windows 10")
    return name


def _build(registry: Registry) -> str:
    major = registry.number("SOFTWARE", WINDOWS_NT, "CurrentMajorVersionNumber")
    build = registry.text("SOFTWARE", WINDOWS_NT, "CurrentBuild")
    revision = registry.number("SOFTWARE", WINDOWS_NT, "UBR")
    parts = [str(major) if major else "", "0" if major else "", build, str(revision or "")]
    return ".".join(part for part in parts if part)


def _architecture(registry: Registry, files: GuestFiles, current: str) -> str:
    """Return the machine type of the kernel's own PE header, else what the registry says."""
    path = "Windows/System32/ntoskrnl.exe"
    try:
        head = files.read(path, 4096)
    except EngineFailed:  # system files may be compressed in a way that NTFS' driver cannot read
        place = f"{current}\\Control\\Session Manager\\Environment"
        named = registry.text("SYSTEM", place, "PROCESSOR_ARCHITECTURE")
        return _NAMED_MACHINES.get(named.upper(), named)
    return _pe_machine(head)


def _pe_machine(head: bytes) -> str:
    if len(head) < 64 or head[:2] != b"MZ":
        return ""
    (at,) = struct.unpack_from("<I", head, 60)
    if at + 6 > len(head) or head[at : at + 4] != b"PE\0\0":
        return ""
    (machine,) = struct.unpack_from("<H", head, at + 4)
    return _MACHINES.get(machine, f"machine {machine:#06x}")


def _platform(registry: Registry, current: str) -> str:
    config = registry.text("SYSTEM", "HardwareConfig", "LastConfig")
    place = f"HardwareConfig\\{config}"
    maker = registry.text("SYSTEM", place, "SystemManufacturer").lower()
    product = registry.text("SYSTEM", place, "SystemProductName").lower()
    if "microsoft" in maker and "virtual machine" in product:
        return "hyperv"
    for word, platform in _MAKERS.items():
        if word in maker:
            return platform
    for service, platform in _PLATFORM_SERVICES:
        if registry.service(current, service):
            return platform
    return "none"


def _domain(registry: Registry, files: GuestFiles, current: str) -> str:
    """Return the domain the machine is joined to, "" when it is in none."""
    parameters = f"{current}\\Services\\Tcpip\\Parameters"
    domain = registry.text("SYSTEM", parameters, "NV Domain") or registry.text(
        "SYSTEM", parameters, "Domain"
    )
    return domain if domain and _has_machine_account(files) else ""


def _has_machine_account(files: GuestFiles) -> bool:
    """Say whether the machine's secret exists; its content is not looked at."""
    path = hive_path("SECURITY")
    if not files.exists(path):
        return False
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "SECURITY"
        files.download(path, copy)
        with Hive(copy) as hive:
            return hive.key("Policy\\Secrets\\$MACHINE.ACC") is not None
