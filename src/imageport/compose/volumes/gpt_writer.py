# References: UEFI 2.10 §5.2.3 (protective MBR), §5.3.2 (header), §5.3.3 (entries).
"""A new GUID partition table as the bytes to write, in an order that a kill may interrupt.

Everything but the first sector lies where an MBR disk keeps nothing. So the old table is in force
until the very last write, of one sector, and the new one from then on.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from uuid import UUID

from imageport.compose.volumes.partition_table import SECTOR_BYTES, Partition, PartitionTable

ENTRY_COUNT, ENTRY_BYTES = 128, 128
"""What every tool makes; §5.3.1 asks for 16 KiB of entries at least."""
ENTRY_SECTORS = ENTRY_COUNT * ENTRY_BYTES // SECTOR_BYTES
FIRST_USABLE_SECTOR = 2 + ENTRY_SECTORS
RESERVED_AT_END = ENTRY_SECTORS + 1
_REVISION, _HEADER_BYTES = 0x00010000, 92
_NAME_BYTES = 72
_MAX_SECTORS = 0xFFFFFFFF
"""The protective MBR's only partition covers the disk, or as much as 32 bits can say."""


@dataclass(frozen=True, slots=True)
class DiskWrite:
    """Bytes and where on the disk they go."""

    offset_bytes: int
    data: bytes


def gpt_writes(table: PartitionTable, disk_bytes: int) -> tuple[DiskWrite, ...]:
    """Return what makes a disk have this table; the last write is the one that counts.

    The partitions fit: within the usable sectors, not over each other, numbers from 1 to 128.
    """
    last = disk_bytes // SECTOR_BYTES - 1
    entries = _entries(table.partitions)
    head = _Head(UUID(table.disk_guid), zlib.crc32(entries), last)
    backup_entries_at = last - ENTRY_SECTORS
    return (
        DiskWrite(backup_entries_at * SECTOR_BYTES, entries),
        DiskWrite(last * SECTOR_BYTES, _header(head, last, 1, backup_entries_at)),
        DiskWrite(2 * SECTOR_BYTES, entries),
        DiskWrite(SECTOR_BYTES, _header(head, 1, last, 2)),
        DiskWrite(0, _protective_mbr(last)),
    )


@dataclass(frozen=True, slots=True)
class _Head:
    """What both headers share."""

    disk_guid: UUID
    entries_checksum: int
    last_sector: int


def _entries(partitions: tuple[Partition, ...]) -> bytes:
    entries = bytearray(ENTRY_COUNT * ENTRY_BYTES)
    for one in partitions:
        first = one.first_byte // SECTOR_BYTES
        last = one.end_byte // SECTOR_BYTES - 1
        entry = UUID(one.type_id).bytes_le + UUID(one.guid).bytes_le
        entry += struct.pack("<QQQ", first, last, one.attributes)
        entry += one.name.encode("utf-16-le")[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")
        entries[(one.number - 1) * ENTRY_BYTES : one.number * ENTRY_BYTES] = entry
    return bytes(entries)


def _header(head: _Head, own: int, other: int, entries_at: int) -> bytes:
    last_usable = head.last_sector - RESERVED_AT_END
    places = struct.pack("<QQQQ", own, other, FIRST_USABLE_SECTOR, last_usable)
    tail = struct.pack("<QIII", entries_at, ENTRY_COUNT, ENTRY_BYTES, head.entries_checksum)
    body = places + head.disk_guid.bytes_le + tail

    def with_checksum(checksum: int) -> bytes:
        start = struct.pack("<8sIIII", b"EFI PART", _REVISION, _HEADER_BYTES, checksum, 0)
        return start + body

    return with_checksum(zlib.crc32(with_checksum(0))).ljust(SECTOR_BYTES, b"\0")


def _protective_mbr(last_sector: int) -> bytes:
    """Return sector 0: no boot code and no signature, as §5.2.3 has it."""
    count = min(last_sector, _MAX_SECTORS)
    entry = b"\x00\x00\x02\x00\xee\xff\xff\xff" + struct.pack("<II", 1, count)
    return bytes(446) + entry.ljust(64, b"\0") + b"\x55\xaa"
