# References: Microsoft "BCDBoot Command-Line Options" (what is copied where); "MBR2GPT.EXE";
# MountedDevices: 12 bytes of an MBR partition (signature, offset), ``DMIO:ID:`` and a GUID of GPT.
r"""An MBR disk that boots by BIOS, made one that boots by UEFI: files, boot store, drive letters.

The disk itself is laid out by `uefi_layout` and written by the engine; here is all that depends on
it. The boot store is the old one with its devices and programs named anew, so that every setting
in it stays. What Windows keeps beside (``bootmgr``, ``\Boot``) stays where it is and is not used.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import ClassVar
from uuid import UUID

from imageport.compose.boot_device import (
    WHERE_IT_STARTED,
    BootPartition,
    boot_partition,
    partition_device,
    read_device,
    with_moved_partitions,
)
from imageport.compose.boot_store import BOOT_MANAGER, Element, element_text, objects, set_element
from imageport.compose.contract import EngineOptions, Refusal, Tier
from imageport.compose.guest_paths import shown_file
from imageport.compose.hives.hive import Hive
from imageport.compose.hives.registry import BOOT_STORE_HIVE, UEFI, boot_store_path
from imageport.compose.hives.registry_value import Kind, Value
from imageport.compose.recorder import Recorder
from imageport.compose.refusals import refusal
from imageport.compose.step import Context, Facts, Step
from imageport.compose.volumes.efi_program import HEAD_BYTES, efi_program_problem
from imageport.compose.volumes.guest_files import GuestFiles
from imageport.compose.volumes.partition_table import PartitionTable
from imageport.compose.volumes.uefi_layout import UefiLayout

BOOT_SOURCES = (
    ("Windows/Boot/EFI", "EFI/Microsoft/Boot"),
    ("Windows/Boot/Fonts", "EFI/Microsoft/Boot/Fonts"),
    ("Windows/Boot/Resources", "EFI/Microsoft/Boot/Resources"),
)
"""Where Windows keeps its boot files, and where `bcdboot` puts them on the EFI partition."""
BOOT_MANAGER_SOURCE = "Windows/Boot/EFI/bootmgfw.efi"
LOADER = "Windows/System32/winload.efi"
_BOOT_STORE = boot_store_path(UEFI)
_BOOT_MANAGER_PATH = "\\EFI\\Microsoft\\Boot\\bootmgfw.efi"
_MEMORY_TEST_PATH = "\\EFI\\Microsoft\\Boot\\memtest.efi"
_OLD_MEMORY_TEST = "\\boot\\memtest.exe"
_LOADERS = ("\\winload.exe", "\\winresume.exe")
"""Beside each in the same folder lies the one for UEFI, with the ending ``.efi``."""
_MOUNTED_DEVICES = "MountedDevices"
_MBR_DEVICE = struct.Struct("<IQ")
_GPT_DEVICE = b"DMIO:ID:"
_DRIVE_LETTERS = "\\dosdevices\\"
_RECOVERY_CONFIG = "Windows/System32/Recovery/ReAgent.xml"
_RECOVERY_ENABLED = 'InstallState state="1"'
_MAX_CONFIG_BYTES = 64 * 1024


class ConvertToUefi(Step):
    """Turn an MBR disk that boots by BIOS into a GPT disk that boots by UEFI."""

    name: ClassVar[str] = "convert_to_uefi"
    tier: ClassVar[Tier] = Tier.REQUIRED
    options: ClassVar[tuple[str, ...]] = ("convert_to_uefi",)
    provides: ClassVar[tuple[str, ...]] = ("efi-partition",)

    def is_chosen(self, options: EngineOptions) -> bool:
        """Only when the option says so."""
        return options.convert_to_uefi

    def reason(self, facts: Facts) -> str:
        """Return "" for a disk that is GPT already."""
        return "asked for, and the disk is MBR" if facts.uefi is not None else ""

    def guest_problems(self, facts: Facts) -> list[Refusal]:
        """Return everything that stands against it, of the disk, the files and the boot store."""
        if facts.uefi is None:
            return []
        problems = [*facts.uefi.problems, *_file_problems(facts.files), *_store_problems(facts)]
        return [refusal("no_uefi_conversion", f"Cannot convert: {one}.") for one in problems]

    def run(self, context: Context) -> None:
        """Note the new disk, lay out the EFI partition, name everything anew in registry and BCD.

        The boot store's hive is the old one; the file that it is written to is the new one here.
        """
        layout = context.uefi.layout if context.uefi else None
        if layout is None:
            return
        recorder = context.recorder
        _note_disk(recorder, layout)
        for source, target in _boot_files(context.files):
            size = context.files.size_bytes(source)
            recorder.add_boot_file(target, context.files.read(source, size))
        store = context.registry.hives[BOOT_STORE_HIVE]
        recorder.add_boot_file(_BOOT_STORE, store.path.read_bytes())
        moves = {
            boot_partition(layout.before, old): boot_partition(layout.after, new)
            for old in layout.before.partitions
            for new in layout.after.partitions
            if new.number == old.number
        }
        _convert_boot_store(recorder, store, layout, moves)
        _convert_drive_letters(recorder, layout)
        _note_recovery(context)


def boot_files_bytes(windows: GuestFiles) -> int:
    """Return the size of all boot files that Windows keeps."""
    return sum(windows.size_bytes(source) for source, _ in _boot_files(windows))


def _boot_files(windows: GuestFiles) -> Iterator[tuple[str, str]]:
    for folder, target in BOOT_SOURCES:
        for path in windows.below(folder):
            yield path, target + path[len(folder) :]


def _file_problems(files: GuestFiles) -> Iterator[str]:
    for path in (BOOT_MANAGER_SOURCE, LOADER):
        if not files.exists(path):
            yield f"the image has no {shown_file(path)}"
    if files.exists(BOOT_MANAGER_SOURCE):
        problem = efi_program_problem(files.read(BOOT_MANAGER_SOURCE, HEAD_BYTES))
        if problem:
            yield f"{shown_file(BOOT_MANAGER_SOURCE)} is {problem}"


def _store_problems(facts: Facts) -> Iterator[str]:
    if BOOT_STORE_HIVE not in facts.registry.hives:
        yield "the active partition has no boot store (\\Boot\\BCD) to take the settings from"


def _note_disk(recorder: Recorder, layout: UefiLayout) -> None:
    recorder.note_disk("partition table", _shown(layout.before), _shown(layout.after))
    if layout.shrinks_by_bytes:
        size = layout.windows.length_bytes
        before = f"{size + layout.shrinks_by_bytes} bytes"
        recorder.note_disk("Windows volume", before, f"{size} bytes")
    reused = layout.reused
    before = f"partition {reused.number}, the old system partition" if reused else ""
    after = f"FAT32 in partition {layout.esp.number}, {layout.esp.length_bytes} bytes"
    recorder.note_disk("EFI system partition", before, after)


def _shown(table: PartitionTable) -> str:
    parts = [
        f"{one.number}: {one.name or one.type_id} {one.guid or ''} {one.length_bytes} bytes at "
        f"{one.first_byte}"
        for one in table.partitions
    ]
    return f"{table.scheme} {table.disk_guid}; " + "; ".join(" ".join(p.split()) for p in parts)


def _convert_boot_store(
    recorder: Recorder,
    store: Hive,
    layout: UefiLayout,
    moves: dict[BootPartition, BootPartition],
) -> None:
    esp = Value(Kind.BINARY, partition_device(boot_partition(layout.after, layout.esp)))
    started_from = _started_from(layout)
    for identifier in [identifier for identifier, _ in objects(store)]:
        path = element_text(store, identifier, Element.APPLICATION_PATH)
        new_path, is_on_esp = _new_path(identifier, path)
        if is_on_esp:
            set_element(recorder, identifier, Element.APPLICATION_DEVICE, esp)
        if new_path != path:
            set_element(recorder, identifier, Element.APPLICATION_PATH, Value.text(new_path))
        _move_devices(recorder, store, identifier, moves, started_from)


def _started_from(layout: UefiLayout) -> bytes:
    """Return the device that "where the boot manager started" was, b"" when it was not Windows'.

    Images with one partition may say so of Windows; with UEFI it would be the EFI partition.
    """
    active = layout.before.boot_partition
    if active is None or active.number != layout.windows.number:
        return b""
    return partition_device(boot_partition(layout.after, layout.windows))


def _move_devices(
    recorder: Recorder,
    store: Hive,
    identifier: str,
    moves: dict[BootPartition, BootPartition],
    started_from: bytes,
) -> None:
    elements = store.key(f"Objects\\{identifier}\\Elements")
    for key in elements.children() if elements else []:
        value = key.value("Element")
        if value is None or value.kind != Kind.BINARY:
            continue
        moved = with_moved_partitions(value.data, moves)
        if started_from and read_device(value.data) == WHERE_IT_STARTED:
            moved = started_from
        if moved != value.data:
            set_element(recorder, identifier, key.name, Value(value.kind, moved))


def _new_path(identifier: str, path: str) -> tuple[str, bool]:
    """Return a program's path for UEFI, and whether it lies on the EFI partition."""
    if identifier.lower() == BOOT_MANAGER:
        return _BOOT_MANAGER_PATH, True
    if path.lower() == _OLD_MEMORY_TEST:
        return _MEMORY_TEST_PATH, True
    if path.lower().endswith(_LOADERS):
        return path[: -len(".exe")] + ".efi", False
    return path, False


def _convert_drive_letters(recorder: Recorder, layout: UefiLayout) -> None:
    """Let letters and volume names find their partitions; the EFI partition has no letter."""
    key = recorder.registry.key("SYSTEM", _MOUNTED_DEVICES)
    new = {one.number: one for one in layout.after.partitions}
    numbers = {one.first_byte: one.number for one in layout.before.partitions}
    for name, value in sorted(key.values().items()) if key else []:
        if len(value.data) != _MBR_DEVICE.size:
            continue
        signature, offset = _MBR_DEVICE.unpack(value.data)
        if layout.before.disk_guid != f"mbr:{signature:08x}" or offset not in numbers:
            continue
        partition = new[numbers[offset]]
        if partition == layout.esp and name.lower().startswith(_DRIVE_LETTERS):
            recorder.delete_value("SYSTEM", _MOUNTED_DEVICES, name)
            continue
        device = Value(value.kind, _GPT_DEVICE + UUID(partition.guid).bytes_le)
        recorder.set_value("SYSTEM", _MOUNTED_DEVICES, name, device)


def _note_recovery(context: Context) -> None:
    """Say that the recovery environment must be registered again where it was."""
    if not context.files.exists(_RECOVERY_CONFIG):
        return
    text = context.files.read(_RECOVERY_CONFIG, _MAX_CONFIG_BYTES).decode("utf-8", "replace")
    if _RECOVERY_ENABLED in text:
        after = "registration lost with the MBR: run `reagentc /enable` in Windows if it is wanted"
        context.recorder.note_disk("Windows recovery environment", "registered", after)
