# References: Microsoft BcdBootMgrElementTypes, BcdOSLoaderElementTypes, BcdLibraryElementTypes.
r"""The boot configuration data (BCD): its elements by name, read back typed, changed by hive edit.

An object's element is the value ``Element`` of the key ``Objects\{object}\Elements\NUMBER``. Before
the first change of a composing the store's own bytes are kept beside it on the boot volume.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from imageport.compose.boot_device import BootPartition, read_device
from imageport.compose.hives.hive import Hive
from imageport.compose.hives.registry import BOOT_STORE_HIVE, boot_store_path
from imageport.compose.hives.registry_value import Kind, Value
from imageport.compose.recorder import Recorder

BOOT_MANAGER = "{9dea862c-5cdd-4e70-acc1-f32b344d4795}"
EMS_SETTINGS = "{0ce4991b-e6b3-4b16-b23c-5e0d9250e5d9}"
OS_LOADER_TYPE = 0x10200003
"""``Type`` of an object's description."""
BACKUP_ENDING = ".imageport-backup"
IGNORE_ALL_FAILURES = 1
"""Of `Element.BOOT_STATUS_POLICY`."""
_VALUE = "Element"
_IDENTIFIER = re.compile(r"\{[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\}", re.IGNORECASE)


class Element(StrEnum):
    """Elements by number; the second digit tells the type of the data.

    ``DEFAULT_ENTRY`` has the number that ``RESUME_ENTRY`` of a loader has: what a number of the
    application's own class means depends on the application.
    """

    APPLICATION_DEVICE = "11000001"
    APPLICATION_PATH = "12000002"
    DESCRIPTION = "12000004"
    INHERITED = "14000006"
    RECOVERY_ENABLED = "16000009"
    BOOT_EMS = "16000020"
    """EMS of a boot application; of {emssettings}: of all that inherit it."""
    EMS_PORT = "15000022"
    OS_DEVICE = "21000001"
    SYSTEM_ROOT = "22000002"
    DEFAULT_ENTRY = "23000003"
    DISPLAY_ORDER = "24000001"
    TIMEOUT_SECONDS = "25000004"
    BOOT_STATUS_POLICY = "250000e0"
    EMS = "260000b0"
    """EMS of the system that a loader starts."""
    RAM_DISK_IMAGE_DEVICE = "31000003"
    """Of a device object: where boot.sdi, which a RAM disk is made by, lies."""


@dataclass(frozen=True, slots=True)
class BootEntry:
    """The default entry; a device is a partition, or a word for a special one."""

    identifier: str
    loader_device: BootPartition | str
    loader_path: str
    system_device: BootPartition | str
    system_root: str


def default_entry(store: Hive) -> BootEntry | str:
    """Return the entry that the boot manager takes, or what is missing."""
    identifier = element_text(store, BOOT_MANAGER, Element.DEFAULT_ENTRY)
    if not identifier:
        return "the boot manager names no default entry"
    if store.key(f"Objects\\{identifier}") is None:
        return f"the default entry {identifier} does not exist"
    return BootEntry(
        identifier,
        element_device(store, identifier, Element.APPLICATION_DEVICE),
        element_text(store, identifier, Element.APPLICATION_PATH),
        element_device(store, identifier, Element.OS_DEVICE),
        element_text(store, identifier, Element.SYSTEM_ROOT),
    )


def objects(store: Hive) -> Iterator[tuple[str, int]]:
    """Yield every object's identifier, ``{guid}``, and its type (0 when it has none)."""
    key = store.key("Objects")
    for found in key.children() if key else []:
        description = found.child("Description")
        yield found.name, (description.number("Type") or 0) if description else 0


def ems_switches(store: Hive) -> list[tuple[str, Element]]:
    """Return every (object, element) by which emergency management services are on."""
    return [
        (identifier, switch)
        for identifier, _ in objects(store)
        if _IDENTIFIER.fullmatch(identifier)  # bcdedit names no other, and nothing starts one
        for switch in (Element.EMS, Element.BOOT_EMS)
        if element_flag(store, identifier, switch)
    ]


def element_path(identifier: str, element: str) -> str:
    """Return the key of an element."""
    return f"Objects\\{identifier}\\Elements\\{element}"


def element(store: Hive, identifier: str, number: str) -> Value | None:
    """Return an element as it is, None when the object does not have it."""
    return store.value(element_path(identifier, number), _VALUE)


def element_text(store: Hive, identifier: str, number: str) -> str:
    """Return a text or an object's identifier, "" when missing."""
    value = element(store, identifier, number)
    return value.as_text() if value else ""


def element_texts(store: Hive, identifier: str, number: str) -> list[str]:
    """Return a list of objects, empty when missing."""
    value = element(store, identifier, number)
    return value.as_texts() if value else []


def element_flag(store: Hive, identifier: str, number: str) -> bool | None:
    """Return a boolean, None when missing or of another type."""
    value = element(store, identifier, number)
    if value is None or value.kind != Kind.BINARY or len(value.data) != 1:
        return None
    return value.data != b"\0"


def element_number(store: Hive, identifier: str, number: str) -> int | None:
    """Return an integer, None when missing or of another type."""
    value = element(store, identifier, number)
    if value is None or value.kind != Kind.BINARY or len(value.data) != 8:
        return None
    return int(struct.unpack("<Q", value.data)[0])


def element_device(store: Hive, identifier: str, number: str) -> BootPartition | str:
    """Return what a device element names; see `read_device`."""
    value = element(store, identifier, number)
    return read_device(value.data if value else b"")


def flag(on: bool) -> Value:
    """Return a boolean's data."""
    return Value(Kind.BINARY, b"\1" if on else b"\0")


def number(value: int) -> Value:
    """Return an integer's data."""
    return Value(Kind.BINARY, struct.pack("<Q", value))


def set_element(recorder: Recorder, identifier: str, number: str, value: Value) -> None:
    """Set an element; the first change keeps the store as it was beside it."""
    key = element_path(identifier, number)
    if recorder.registry.value(BOOT_STORE_HIVE, key, _VALUE) == value:
        return
    keep_backup(recorder)
    recorder.set_value(BOOT_STORE_HIVE, key, _VALUE, value)


def delete_element(recorder: Recorder, identifier: str, number: str) -> None:
    """Delete an element; the first change keeps the store as it was beside it."""
    key = element_path(identifier, number)
    if recorder.registry.key(BOOT_STORE_HIVE, key) is None:
        return
    keep_backup(recorder)
    recorder.delete_key(BOOT_STORE_HIVE, key)


def keep_backup(recorder: Recorder) -> None:
    """Keep the store beside it as it was; a backup that is there is older, and stays.

    One that its logs were applied to is kept so: nothing replays a backup that lacks its logs.
    """
    backup = boot_store_path(recorder.firmware) + BACKUP_ENDING
    if recorder.boot_files is None or recorder.boot_files.exists(backup):
        return
    # The hive's copy is written when all steps are done: until then it is what was found.
    copy = recorder.registry.hives[BOOT_STORE_HIVE].path
    recorder.add_boot_file(backup, copy.read_bytes())
