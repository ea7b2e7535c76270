"""The sample's hives: which registry texts make which hive, and the bytes that text cannot hold."""

from __future__ import annotations

import struct
from pathlib import Path
from uuid import UUID

from imageport.sandbox.sample import recipe
from imageport.sandbox.sample.hives import make_hive, registry_text

CONTROL_SETS = ("ControlSet001", "ControlSet002")
_WINSOCK_PROVIDERS = (
    "%SystemRoot%\\system32\\mswsock.dll",
    "%SystemRoot%\\system32\\mswsock.dll",
    "%windir%\\system32\\vsocklib.dll",
)


def make_windows_hives(folder: Path, *, with_pvs: bool) -> None:
    """Write SYSTEM, SOFTWARE, DRIVERS, SAM and SECURITY into ``folder``."""
    system = [registry_text("system.reg", {"windows_mount": _hex(_mounted_device())})]
    for name in CONTROL_SETS:
        values = {"set": name, "winsock_entries": _winsock_entries(name)}
        system.append(registry_text("control_set.reg", values))
        if with_pvs:
            system.append(registry_text("pvs_control_set.reg", {"set": name}))
    software = [registry_text("software.reg")]
    if with_pvs:
        software.append(registry_text("pvs_software.reg"))
    for name, texts in (
        ("SYSTEM", system),
        ("SOFTWARE", software),
        ("DRIVERS", [registry_text("drivers.reg")]),
        ("SAM", [registry_text("sam.reg")]),
        ("SECURITY", [registry_text("security.reg")]),
    ):
        make_hive(folder / name, f"HKEY_LOCAL_MACHINE\\{name}", texts)


def make_boot_store(path: Path) -> None:
    """Write the BCD hive; its device elements name the sample's partitions."""
    values = {
        "esp_device": _hex(_boot_device(recipe.ESP_GUID)),
        "windows_device": _hex(_boot_device(recipe.WINDOWS_GUID)),
    }
    make_hive(path, "HKEY_LOCAL_MACHINE\\BCD", [registry_text("bcd.reg", values)])


def _boot_device(partition: UUID) -> bytes:
    """A device element for a GPT partition, 88 bytes, as read from real stores.

    No options object, then type 6 (partition) of 72 bytes: the partition's GUID, partition style 0
    (GPT), the disk's GUID.
    """
    head = bytes(16) + struct.pack("<IIII", 6, 0, 72, 0)
    identity = partition.bytes_le + struct.pack("<II", 0, 0) + recipe.DISK_GUID.bytes_le
    return (head + identity).ljust(88, b"\0")


def _mounted_device() -> bytes:
    return b"DMIO:ID:" + recipe.WINDOWS_GUID.bytes_le


def _winsock_entries(control_set: str) -> str:
    """Catalogue entries of both word sizes: a library's path, then an opaque protocol record."""
    key = (
        f"[HKEY_LOCAL_MACHINE\\SYSTEM\\{control_set}\\Services\\WinSock2\\Parameters"
        "\\Protocol_Catalog9\\Catalog_Entries"
    )
    blocks = []
    for suffix in ("", "64"):
        for number, library in enumerate(_WINSOCK_PROVIDERS, start=1):
            record = library.encode("ascii").ljust(260, b"\0") + struct.pack("<I", number) * 157
            blocks.append(f'{key}{suffix}\\{number:012d}]\n"PackedCatalogItem"=hex:{_hex(record)}')
    return "\n\n".join(blocks)


def _hex(data: bytes) -> str:
    return ",".join(f"{byte:02x}" for byte in data)
