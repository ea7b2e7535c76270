r"""Driver packages that a guest has installed, from one line of text each.

A line makes what Windows keeps of a package: its entries in ``DriverDatabase`` (of SYSTEM for what
a boot needs, of DRIVERS for the rest), ``\Windows\INF\oemN.inf``, its folder in the driver store,
its catalogue, and the lockdown record of its driver.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

_TABLES = Path(__file__).parent / "registry" / "packages"
_DRIVER_DATE = 133_485_408_000_000_000
"""2024-01-01 in 100 ns since 1601."""
_X64 = 9
CATALOGUES = "Windows/System32/CatRoot/{F750E6C3-38EE-11D1-85E5-00C04FC295EE}"
STORE = "Windows/System32/DriverStore/FileRepository"
CLASSES = {
    "disk": "4d36e967-e325-11ce-bfc1-08002be10318",
    "display": "4d36e968-e325-11ce-bfc1-08002be10318",
    "mouse": "4d36e96f-e325-11ce-bfc1-08002be10318",
    "net": "4d36e972-e325-11ce-bfc1-08002be10318",
    "scsi": "4d36e97b-e325-11ce-bfc1-08002be10318",
    "system": "4d36e97d-e325-11ce-bfc1-08002be10318",
}


@dataclass(frozen=True, slots=True)
class InstalledPackage:
    """One line of a table."""

    hive: str
    oem_inf: str
    folder: str
    """In the driver store: ``vmci.inf_amd64_`` and 16 hexadecimal digits."""
    provider: str
    device_class: str
    service: str
    hardware_ids: tuple[str, ...]
    source_path: str
    version: str
    driver_file: str
    """Name of the driver that the package installs."""

    @property
    def inf_name(self) -> str:
        """Return the name that the INF had before it was installed."""
        return self.folder.partition("_amd64_")[0]


def installed_packages(name: str) -> list[InstalledPackage]:
    """Return the packages of one table; none where there is no such table."""
    table = _TABLES / f"{name}.txt"
    if not table.exists():
        return []
    lines = table.read_text(encoding="utf-8").splitlines()
    return [_read(line) for line in lines if line.strip() and not line.startswith("#")]


def _read(line: str) -> InstalledPackage:
    hive, inf, folder, provider, kind, service, ids, path, version, driver = (
        part.strip() for part in line.split("|")
    )
    return InstalledPackage(
        hive, inf, folder, provider, kind, service, tuple(ids.split()), path, version, driver
    )


def database_text(hive: str, packages: list[InstalledPackage]) -> str:
    """Return the ``.reg`` text of the driver database's part in one hive."""
    root = f"HKEY_LOCAL_MACHINE\\{hive}\\DriverDatabase"
    return "\n\n".join(
        block for package in packages if package.hive == hive for block in _blocks(root, package)
    )


def lockdown_text(packages: list[InstalledPackage]) -> str:
    """Return the ``.reg`` text of SOFTWARE's records that protect the packages' drivers."""
    root = "HKEY_LOCAL_MACHINE\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Setup"
    return "\n\n".join(
        f"[{root}\\PnpLockdownFiles\\%SystemRoot%/System32/drivers/{package.driver_file}]\n"
        f'"Class"=dword:00000005\n"Owners"=multi:"{package.oem_inf}"'
        for package in packages
    )


def package_files(packages: list[InstalledPackage]) -> Iterator[tuple[str, str]]:
    """Yield (path, text) of what packages leave on the disk beside drivers."""
    for package in packages:
        text = f'[Version] Provider="{package.provider}"'
        yield f"Windows/INF/{package.oem_inf}", text
        yield f"{STORE}/{package.folder}/{package.inf_name}", text
        yield f"{CATALOGUES}/{package.oem_inf.replace('.inf', '.cat')}", "catalogue"


def _blocks(root: str, package: InstalledPackage) -> Iterator[str]:
    inf, folder = package.oem_inf, package.folder
    configuration = f"{package.inf_name.removesuffix('.inf')}_inst.NT"
    for hardware_id in package.hardware_ids:
        yield f'[{root}\\DeviceIds\\{hardware_id}]\n"{inf}"=hex:01,ff,00,00'
    yield f'[{root}\\DeviceIds\\{{{CLASSES[package.device_class]}}}]\n"{inf}"=hex(0):'
    yield (
        f'[{root}\\DriverInfFiles\\{inf}]\n@=multi:"{folder}"\n"Active"="{folder}"\n'
        f'"Configurations"=multi:"{configuration}"'
    )
    place = f"{root}\\DriverPackages\\{folder}"
    path = package.source_path.replace("\\", "\\\\")
    yield (
        f'[{place}]\n@="{inf}"\n"Catalog"="{package.inf_name.replace(".inf", ".cat")}"\n'
        f'"InfName"="{package.inf_name}"\n"OemPath"="{path}"\n"Provider"="{package.provider}"\n'
        f'"SignerScore"=dword:0d000005\n"StatusFlags"=dword:00000012\n'
        f'"Version"=hex:{_version(package).hex(",")}'
    )
    yield (
        f'[{place}\\Configurations\\{configuration}]\n"ConfigFlags"=dword:00000000\n'
        f'"ConfigScope"=dword:00000007\n"Service"="{package.service}"'
    )
    for hardware_id in package.hardware_ids:
        yield (
            f'[{place}\\Descriptors\\{hardware_id}]\n"Configuration"="{configuration}"\n'
            '"Description"="%device%"\n"Manufacturer"="%maker%"'
        )
    yield f'[{place}\\Strings]\n"device"="{package.service} device"\n"maker"="{package.provider}"'


def _version(package: InstalledPackage) -> bytes:
    """The 48 bytes in front of which Windows keeps class, date and version of a driver."""
    numbers = [int(part) for part in package.version.split(".")]
    head = struct.pack("<IHH", 0x0000FF00 | _X64 << 16, 0, 0)
    identity = UUID(CLASSES[package.device_class]).bytes_le
    return head + identity + struct.pack("<Q4H8x", _DRIVER_DATE, *reversed(numbers))
