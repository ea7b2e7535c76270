# References: UEFI 2.10 §5.2, §5.3; Microsoft "Hard drives and partitions" (EFI system partition of
# 100 MB at least, FAT32), PARTITION_INFORMATION_GPT (types and attributes).
"""How an MBR disk that boots by BIOS is laid out as GPT with an EFI system partition.

Partitions stay where they are. The EFI system partition takes, in this order: the old system
partition where that holds nothing but boot files; free space; the end of the Windows partition,
whose file system is made smaller. There is no Microsoft reserved partition: only dynamic disks
need one. Identities are made from those of the MBR disk, so that the same disk gives the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from uuid import UUID, uuid5

from imageport.compose.volumes.gpt_writer import FIRST_USABLE_SECTOR, RESERVED_AT_END
from imageport.compose.volumes.partition_table import (
    BASIC_DATA_TYPE,
    ESP_TYPE,
    RECOVERY_TYPE,
    SECTOR_BYTES,
    Partition,
    PartitionTable,
)

MIB = 1024 * 1024
MIN_ESP_BYTES = 100 * MIB
"""Microsoft's least, and the size of Windows 7's old system partition. FAT32 would do with 33."""
_ESP_RESERVE_BYTES = 16 * MIB
"""On top of 1.25 times the boot files: updates write a new boot manager beside the old one."""
MAX_BOOT_FILES_BYTES = 512 * MIB
"""They are held in memory on their way; Windows 11 keeps some 50 MB in all languages."""
_ALIGNMENT = MIB
_NO_LETTER, _REQUIRED, _HIDDEN = 1 << 63, 1, 1 << 62
_NAMESPACE = UUID("5f0c3d0e-6a3b-5d0a-9d53-2f6a5b1f7c44")
_TYPES = {
    "0x01": BASIC_DATA_TYPE,  # FAT and NTFS as Windows makes them
    "0x04": BASIC_DATA_TYPE,
    "0x06": BASIC_DATA_TYPE,
    "0x07": BASIC_DATA_TYPE,
    "0x0b": BASIC_DATA_TYPE,
    "0x0c": BASIC_DATA_TYPE,
    "0x0e": BASIC_DATA_TYPE,
    "0x27": RECOVERY_TYPE,
}
_NAMES = {
    BASIC_DATA_TYPE: "Basic data partition",
    RECOVERY_TYPE: "Recovery partition",
    ESP_TYPE: "EFI system partition",
}


@dataclass(frozen=True, slots=True)
class MbrDisk:
    """What is known of the disk; ``windows`` is the partition that Windows lies in."""

    table: PartitionTable
    disk_bytes: int
    sector_bytes: int
    windows: Partition
    boot_files_bytes: int
    """Size of what will lie on the EFI system partition."""
    may_reuse_active: bool = False
    """The active partition is another than Windows', and nothing but boot files lies on it."""


@dataclass(frozen=True, slots=True)
class UefiLayout:
    """The table before and after; ``windows`` and ``esp`` are partitions of the one after."""

    before: PartitionTable
    after: PartitionTable
    windows: Partition
    esp: Partition
    shrinks_by_bytes: int
    """How much smaller the Windows volume gets."""

    @property
    def reused(self) -> Partition | None:
        """Return the old partition that becomes the EFI system partition."""
        numbers = {partition.number: partition for partition in self.before.partitions}
        return numbers.get(self.esp.number)


@dataclass(frozen=True, slots=True)
class UefiPlan:
    """The layout, or every reason why there is none."""

    layout: UefiLayout | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Space:
    """Where the EFI system partition goes, in bytes, and where Windows ends then."""

    number: int
    first: int
    length: int
    windows_end: int


def plan_uefi_layout(disk: MbrDisk) -> UefiPlan:
    """Return the new layout, or everything that stands against it."""
    problems = tuple(_problems(disk))
    if problems:
        return UefiPlan(problems=problems)
    return UefiPlan(_layout(disk))


def _problems(disk: MbrDisk) -> Iterator[str]:
    if disk.sector_bytes != SECTOR_BYTES:
        yield f"the disk has sectors of {disk.sector_bytes} bytes, needed {SECTOR_BYTES}"
    if disk.boot_files_bytes > MAX_BOOT_FILES_BYTES:
        yield (
            f"the boot files below \\Windows\\Boot have {disk.boot_files_bytes} bytes, needed "
            f"{MAX_BOOT_FILES_BYTES} at most"
        )
    for one in disk.table.partitions:
        yield from _problems_of(one, disk)
    for one, other in pairwise(_by_place(disk.table)):
        if one.end_byte > other.first_byte:
            yield f"partitions {one.number} and {other.number} lie over each other"
    if disk.windows.length_bytes < 2 * esp_bytes(disk):
        yield f"the Windows partition has {disk.windows.length_bytes} bytes, too few to make room"


def _problems_of(one: Partition, disk: MbrDisk) -> Iterator[str]:
    name = f"partition {one.number}"
    if one.is_extended:
        yield f"{name} is an extended one with logical partitions in it"
    elif one.type_id not in _TYPES:
        yield f"{name} has type {one.type_id}, of which no GPT type is known"
    if one.first_byte < FIRST_USABLE_SECTOR * SECTOR_BYTES:
        sector = one.first_byte // SECTOR_BYTES
        yield f"{name} begins at sector {sector}, the new table needs {FIRST_USABLE_SECTOR}"
    if one.end_byte > disk.disk_bytes:
        yield f"{name} ends at byte {one.end_byte}, the disk has {disk.disk_bytes}"
    elif one.end_byte > _usable_end(disk) and one.number != disk.windows.number:
        yield (
            f"{name} reaches into the last {RESERVED_AT_END} sectors, where the second copy of the "
            "new table goes"
        )


def _layout(disk: MbrDisk) -> UefiLayout:
    space = _esp_space(disk)
    guid = _identity(disk.table, f"partition {space.first}")
    esp = Partition(
        space.number, ESP_TYPE, guid, _NAMES[ESP_TYPE], space.first, space.length,
        attributes=_NO_LETTER,
    )  # fmt: skip
    length = space.windows_end - disk.windows.first_byte
    windows = replace(_converted(disk, disk.windows), length_bytes=length)
    new = {one.number: _converted(disk, one) for one in disk.table.partitions}
    new |= {windows.number: windows, esp.number: esp}
    partitions = tuple(new[number] for number in sorted(new))
    after = PartitionTable("gpt", _identity(disk.table, "disk"), partitions)
    return UefiLayout(disk.table, after, windows, esp, disk.windows.length_bytes - length)


def _esp_space(disk: MbrDisk) -> _Space:
    usable_end, wanted = _usable_end(disk), esp_bytes(disk)
    end = disk.windows.end_byte
    if end > usable_end:
        end = usable_end // _ALIGNMENT * _ALIGNMENT
    active = disk.table.boot_partition
    if disk.may_reuse_active and active is not None and active.length_bytes >= wanted:
        return _Space(active.number, active.first_byte, active.length_bytes, end)
    number = min({*range(1, 129)} - {one.number for one in disk.table.partitions})
    gap = _free_space(disk)
    if gap is not None:
        return _Space(number, gap, wanted, end)
    first = (end - wanted) // _ALIGNMENT * _ALIGNMENT
    return _Space(number, first, wanted, first)


def esp_bytes(disk: MbrDisk) -> int:
    """Return how large the EFI system partition must be."""
    wanted = disk.boot_files_bytes * 5 // 4 + _ESP_RESERVE_BYTES
    return max(MIN_ESP_BYTES, -(-wanted // _ALIGNMENT) * _ALIGNMENT)


def _usable_end(disk: MbrDisk) -> int:
    return (disk.disk_bytes // SECTOR_BYTES - RESERVED_AT_END) * SECTOR_BYTES


def _by_place(table: PartitionTable) -> list[Partition]:
    return sorted(table.partitions, key=lambda one: one.first_byte)


def _free_space(disk: MbrDisk) -> int | None:
    """Return where the first gap that is large enough begins."""
    at = FIRST_USABLE_SECTOR * SECTOR_BYTES
    wanted = esp_bytes(disk)
    starts = [one.first_byte for one in _by_place(disk.table)]
    ends = [one.end_byte for one in _by_place(disk.table)]
    for start, end in zip([*starts, _usable_end(disk)], [*ends, 0], strict=True):
        first = -(-at // _ALIGNMENT) * _ALIGNMENT
        if first + wanted <= start:
            return first
        at = end
    return None


def _converted(disk: MbrDisk, one: Partition) -> Partition:
    type_id = _TYPES[one.type_id]
    guid = _identity(disk.table, f"partition {one.first_byte}")
    return Partition(
        one.number, type_id, guid, _NAMES[type_id], one.first_byte, one.length_bytes,
        attributes=_attributes(disk, one),
    )  # fmt: skip


def _attributes(disk: MbrDisk, one: Partition) -> int:
    if _TYPES[one.type_id] == RECOVERY_TYPE:
        return _NO_LETTER | _REQUIRED
    is_old_system_partition = one.is_active and one.number != disk.windows.number
    return _NO_LETTER | _HIDDEN if is_old_system_partition else 0


def _identity(table: PartitionTable, what: str) -> str:
    places = " ".join(f"{one.first_byte}+{one.length_bytes}" for one in _by_place(table))
    return str(uuid5(_NAMESPACE, f"{table.disk_guid} {places} {what}"))
