"""The guest's hives: which registry texts make which hive, and the bytes that text cannot hold."""

from __future__ import annotations

import struct
from pathlib import Path
from uuid import UUID

from imageport.sandbox.sample import recipe
from imageport.sandbox.sample.driver_database import (
    InstalledPackage,
    database_text,
    installed_packages,
    lockdown_text,
)
from imageport.sandbox.sample.guest_kind import SYSTEM_FACTS, Firmware, GuestKind, Platform
from imageport.sandbox.sample.hives import REGISTRY_TEXTS, expand, make_hive, registry_text
from imageport.sandbox.sample.recipe import Partition

CONTROL_SETS = ("ControlSet001", "ControlSet002")
_MSWSOCK = "%SystemRoot%\\system32\\mswsock.dll"
_VSOCKLIB = "%windir%\\system32\\vsocklib.dll"
_WINSOCK_PROVIDERS = (
    (_MSWSOCK, "@%SystemRoot%\\System32\\mswsock.dll,-60100"),
    (_MSWSOCK, "@%SystemRoot%\\System32\\mswsock.dll,-60101"),
    (_MSWSOCK, "Hyper-V RAW"),
)
_VMWARE_PROVIDERS = (
    *_WINSOCK_PROVIDERS[:2],
    (_VSOCKLIB, "vSockets DGRAM"),
    (_VSOCKLIB, "vSockets STREAM"),
    *_WINSOCK_PROVIDERS[2:],
)
"""(library, protocol): VMware's stand in the middle, so that taking them away renumbers."""
_FIRST_CATALOG_ID = 1001
_BASE_PROTOCOL = 1
"""Length of the chain of a protocol that is layered on nothing."""
_GPT, _MBR = 0, 1
_BOOT_MANAGER_PATH = (
    "[HKEY_LOCAL_MACHINE\\BCD\\Objects\\{9dea862c-5cdd-4e70-acc1-f32b344d4795}\\Elements"
    '\\12000002]\n"Element"="\\\\EFI\\\\Microsoft\\\\Boot\\\\bootmgfw.efi"'
)


def make_windows_hives(
    folder: Path, kind: GuestKind | None = None, windows: Partition | None = None
) -> None:
    """Write SYSTEM, SOFTWARE, DRIVERS, SAM and SECURITY into ``folder``.

    Args:
        folder: where to; it exists.
        kind: what kind of guest, the sample vDisk by default.
        windows: the partition that an MBR disk has Windows in.
    """
    kind = kind or GuestKind()
    packages = [*installed_packages(kind.platform), *installed_packages(kind.provisioning)]
    for name, texts in (
        ("SYSTEM", _system(kind, packages, windows or recipe.WINDOWS_BESIDE_IT)),
        ("SOFTWARE", _software(kind, packages)),
        ("DRIVERS", [registry_text("drivers.reg"), expand(database_text("DRIVERS", packages))]),
        ("SAM", [registry_text("sam.reg")]),
        ("SECURITY", [registry_text("security.reg")]),
    ):
        make_hive(folder / name, f"HKEY_LOCAL_MACHINE\\{name}", texts)


def make_boot_store(
    path: Path, kind: GuestKind | None = None, windows: Partition | None = None
) -> None:
    """Write the BCD hive; its device elements name the partitions of the kind's disk.

    ``windows`` as in `make_windows_hives`; it is the active one when it is the disk's first.
    """
    kind = kind or GuestKind()
    values = {"title": SYSTEM_FACTS[kind.system].title}
    if kind.firmware is Firmware.UEFI:
        values |= {
            "boot_device": _hex(_gpt_device(recipe.ESP_GUID)),
            "windows_device": _hex(_gpt_device(recipe.WINDOWS_GUID)),
            "boot_manager_path": _BOOT_MANAGER_PATH,
            "loader": "winload.efi",
            "resumer": "winresume.efi",
            "memory_test": "\\\\EFI\\\\Microsoft\\\\Boot\\\\memtest.efi",
        }
    else:
        part = windows or recipe.WINDOWS_BESIDE_IT
        active = part if part.number == 1 else recipe.SYSTEM_RESERVED
        values |= {
            "boot_device": _hex(_mbr_device(active)),
            "windows_device": _hex(_mbr_device(part)),
            "boot_manager_path": "; BIOS starts \\bootmgr, which no element names.",
            "loader": "winload.exe",
            "resumer": "winresume.exe",
            "memory_test": "\\\\boot\\\\memtest.exe",
        }
    make_hive(path, "HKEY_LOCAL_MACHINE\\BCD", [registry_text("bcd.reg", values)])


def _system(kind: GuestKind, packages: list[InstalledPackage], windows: Partition) -> list[str]:
    mounted = _mounted_device(kind, windows)
    texts = [registry_text("system.reg", {"windows_mount": _hex(mounted)})]
    texts += _texts(f"platforms/{kind.platform}_system.reg")
    texts.append(expand(database_text("SYSTEM", packages)))
    libraries = _VMWARE_PROVIDERS if kind.platform is Platform.VMWARE else _WINSOCK_PROVIDERS
    for name in CONTROL_SETS:
        values = {
            "set": name,
            "computer": SYSTEM_FACTS[kind.system].computer_name,
            "winsock_count": f"{len(libraries):08x}",
            "winsock_entries": _winsock_entries(name, libraries),
        }
        texts.append(registry_text("control_set.reg", values))
        for part in (
            f"systems/{kind.system}_control_set.reg",
            f"platforms/{kind.platform}_control_set.reg",
            f"{kind.provisioning}_control_set.reg",
        ):
            texts += _texts(part, values)
    return texts


def _software(kind: GuestKind, packages: list[InstalledPackage]) -> list[str]:
    return [
        registry_text("software.reg"),
        *_texts(f"systems/{kind.system}_software.reg"),
        *_texts(f"platforms/{kind.platform}_software.reg"),
        *_texts(f"{kind.provisioning}_software.reg"),
        expand(lockdown_text(packages)),
    ]


def _texts(name: str, values: dict[str, str] | None = None) -> list[str]:
    """Return a text that not every kind has."""
    return [registry_text(name, values)] if (REGISTRY_TEXTS / name).exists() else []


def _gpt_device(partition: UUID) -> bytes:
    """A device element for a GPT partition, 88 bytes, as read from real stores.

    No options object, then type 6 (partition) of 72 bytes: the partition's GUID, partition style,
    the disk's GUID.
    """
    return _device(partition.bytes_le, _GPT, recipe.DISK_GUID.bytes_le)


def _mbr_device(partition: Partition) -> bytes:
    """The same for an MBR partition: its first byte in place of its GUID, the disk's signature."""
    return _device(
        struct.pack("<QQ", partition.first, 0), _MBR, struct.pack("<I12x", recipe.MBR_SIGNATURE)
    )


def _device(partition: bytes, style: int, disk: bytes) -> bytes:
    head = bytes(16) + struct.pack("<IIII", 6, 0, 72, 0)
    return (head + partition + struct.pack("<II", 0, style) + disk).ljust(88, b"\0")


def _mounted_device(kind: GuestKind, windows: Partition) -> bytes:
    if kind.firmware is Firmware.BIOS:
        return struct.pack("<IQ", recipe.MBR_SIGNATURE, windows.first)
    return b"DMIO:ID:" + recipe.WINDOWS_GUID.bytes_le


def _winsock_entries(control_set: str, providers: tuple[tuple[str, str], ...]) -> str:
    """Catalogue entries of both word sizes."""
    key = (
        f"[HKEY_LOCAL_MACHINE\\SYSTEM\\{control_set}\\Services\\WinSock2\\Parameters"
        "\\Protocol_Catalog9\\Catalog_Entries"
    )
    blocks = []
    for suffix in ("", "64"):
        for number, (library, protocol) in enumerate(providers, start=1):
            record = _protocol_record(library, protocol, _FIRST_CATALOG_ID + number)
            name = protocol.replace("\\", "\\\\")
            blocks.append(
                f'{key}{suffix}\\{number:012d}]\n"PackedCatalogItem"=hex:{_hex(record)}\n'
                f'"ProtocolName"="{name}"'
            )
    return "\n\n".join(blocks)


def _protocol_record(library: str, protocol: str, catalog_id: int) -> bytes:
    """A library's path in 260 bytes, then WSAPROTOCOL_INFOW of ws2spi.h in 628."""
    flags, provider = bytes(20), catalog_id.to_bytes(16, "little")
    chain = struct.pack("<I28x", _BASE_PROTOCOL)
    name = protocol.encode("utf-16-le").ljust(512, b"\0")
    info = flags + provider + struct.pack("<I", catalog_id) + chain + bytes(44) + name
    return library.encode("ascii").ljust(260, b"\0") + info


def _hex(data: bytes) -> str:
    return ",".join(f"{byte:02x}" for byte in data)
