# References: Microsoft BcdBootMgrElementTypes, BcdOSLoaderElementTypes; the layout of device
# elements as read from real stores (88 bytes: object, type 6, 72 bytes, partition, style, disk).
"""The boot configuration data (BCD): does the default entry lead to this disk's Windows?"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from uuid import UUID

from imageport.compose.hives.hive import Hive

BOOT_MANAGER = "{9dea862c-5cdd-4e70-acc1-f32b344d4795}"
_DEVICE, _PATH = "11000001", "12000002"
_DEFAULT_ENTRY = "23000003"
_OS_DEVICE, _SYSTEM_ROOT = "21000001", "22000002"
_PARTITION_DEVICE = 6
_BOOT_DEVICE = 5
_GPT_STYLE = 0


@dataclass(frozen=True, slots=True)
class BootEntry:
    """The default entry; devices are (disk GUID, partition GUID), or words for special ones."""

    identifier: str
    loader_device: tuple[str, str] | str
    loader_path: str
    system_device: tuple[str, str] | str
    system_root: str


def default_entry(store: Hive) -> BootEntry | str:
    """Return the entry that the boot manager takes, or what is missing."""
    identifier = _element_text(store, BOOT_MANAGER, _DEFAULT_ENTRY)
    if not identifier:
        return "the boot manager names no default entry"
    if store.key(f"Objects\\{identifier}") is None:
        return f"the default entry {identifier} does not exist"
    return BootEntry(
        identifier,
        _device(_element(store, identifier, _DEVICE)),
        _element_text(store, identifier, _PATH),
        _device(_element(store, identifier, _OS_DEVICE)),
        _element_text(store, identifier, _SYSTEM_ROOT),
    )


def _element(store: Hive, entry: str, element: str) -> bytes:
    value = store.value(f"Objects\\{entry}\\Elements\\{element}", "Element")
    return value.data if value else b""


def _element_text(store: Hive, entry: str, element: str) -> str:
    value = store.value(f"Objects\\{entry}\\Elements\\{element}", "Element")
    return value.as_text() if value else ""


def _device(data: bytes) -> tuple[str, str] | str:
    if len(data) < 24:
        return "missing"
    kind, _, _, _ = struct.unpack_from("<IIII", data, 16)
    if kind == _BOOT_DEVICE:
        return "boot"
    if kind != _PARTITION_DEVICE or len(data) < 72:
        return f"type {kind}"
    _, style = struct.unpack_from("<II", data, 48)
    if style != _GPT_STYLE:
        return f"partition style {style}"
    return str(UUID(bytes_le=data[56:72])), str(UUID(bytes_le=data[32:48]))
