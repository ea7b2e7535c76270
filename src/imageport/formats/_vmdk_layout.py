"""The wire layout of VMDK sparse extents: header, markers, tables. No judgement here."""

# References: VMware Virtual Disk Format 5.0: hosted sparse extents, stream-optimized extents.

from __future__ import annotations

import struct
import sys
from array import array
from dataclasses import dataclass
from enum import IntEnum

SECTOR_BYTES = 512
SPARSE_MAGIC = b"KDMV"
COW_MAGIC = b"COWD"
"""ESX 2 and vmfsSparse extents: another header, deltas of snapshots as a rule."""
DESCRIPTOR_MAGIC = b"# Disk DescriptorFile"
"""Some tools write it without the space in front or with one more inside."""

FLAG_NEWLINE_TEST = 1 << 0
FLAG_REDUNDANT_TABLES = 1 << 1
FLAG_ZEROED_GRAINS = 1 << 2
FLAG_COMPRESSED = 1 << 16
FLAG_MARKERS = 1 << 17
DEFLATE = 1
NEWLINES = b"\n \r\n"
"""Spoilt by a transfer in text mode; the header keeps them so that this shows."""
DIRECTORY_AT_END = 0xFFFFFFFFFFFFFFFF
"""``gdOffset`` of a header whose footer says where the grain directory lies."""

ENTRIES_PER_TABLE = 512
ENTRY_BYTES = 4
TABLE_BYTES = ENTRIES_PER_TABLE * ENTRY_BYTES
TABLE_SECTORS = TABLE_BYTES // SECTOR_BYTES
ZEROED_GRAIN = 1
"""A grain table entry that says zeros, with `FLAG_ZEROED_GRAINS`."""

_HEADER = struct.Struct("<4sIIQQQQIQQQB4sH")
_MARKER = struct.Struct("<QI")
_KIND = struct.Struct("<I")
MARKER_BYTES = _MARKER.size


class MarkerKind(IntEnum):
    """What a marker without data announces."""

    END_OF_STREAM = 0
    GRAIN_TABLE = 1
    GRAIN_DIRECTORY = 2
    FOOTER = 3
    UNDOCUMENTED = 4
    """vSphere writes one now and then; nothing follows it. Known from VirtualBox's reader."""


@dataclass(frozen=True, slots=True)
class SparseHeader:
    """SparseExtentHeader; offsets and sizes are sectors."""

    magic: bytes
    version: int
    flags: int
    capacity: int
    grain_size: int
    descriptor_offset: int
    descriptor_size: int
    entries_per_table: int
    redundant_directory: int
    directory: int
    overhead: int
    unclean_shutdown: int
    newlines: bytes
    compression: int

    @classmethod
    def unpack(cls, sector: bytes | memoryview) -> SparseHeader:
        """Read the header's sector, or a footer's."""
        return cls(*_HEADER.unpack_from(sector))

    def pack(self) -> bytes:
        """Return the header's sector."""
        facts = (
            *(self.magic, self.version, self.flags, self.capacity, self.grain_size),
            *(self.descriptor_offset, self.descriptor_size, self.entries_per_table),
            *(self.redundant_directory, self.directory, self.overhead),
            *(self.unclean_shutdown, self.newlines, self.compression),
        )
        return _HEADER.pack(*facts).ljust(SECTOR_BYTES, b"\0")

    @property
    def size_bytes(self) -> int:
        """Return the size of the disk, or of this extent of it."""
        return self.capacity * SECTOR_BYTES

    @property
    def grain_bytes(self) -> int:
        """Return the unit of allocation."""
        return self.grain_size * SECTOR_BYTES

    @property
    def table_count(self) -> int:
        """Return how many entries the grain directory has."""
        return -(-self.capacity // (self.grain_size * ENTRIES_PER_TABLE))

    @property
    def is_compressed(self) -> bool:
        """Return whether each grain is compressed by itself."""
        return bool(self.flags & FLAG_COMPRESSED)

    @property
    def has_markers(self) -> bool:
        """Return whether a marker precedes each grain and table."""
        return bool(self.flags & FLAG_MARKERS)


def unpack_marker(sector: bytes | memoryview) -> tuple[int, int, int]:
    """Return (value, data bytes, kind); the kind counts only where there are no data bytes."""
    value, data_bytes = _MARKER.unpack_from(sector)
    return value, data_bytes, _KIND.unpack_from(sector, MARKER_BYTES)[0]


def pack_marker(value: int, data_bytes: int = 0, kind: int = 0) -> bytes:
    """Return a grain's 12 bytes, or with ``data_bytes`` 0 the whole sector of a marker."""
    if data_bytes:
        return _MARKER.pack(value, data_bytes)
    return (_MARKER.pack(value, 0) + _KIND.pack(kind)).ljust(SECTOR_BYTES, b"\0")


def unpack_entries(data: bytes | memoryview) -> array[int]:
    """Return the entries of a grain directory or grain table: 32-bit sectors."""
    entries = array("I")
    entries.frombytes(data)
    if sys.byteorder == "big":
        entries.byteswap()
    return entries


def pack_entries(entries: array[int]) -> bytes:
    """Return the bytes of a grain directory or grain table."""
    if sys.byteorder == "big":
        entries = array("I", entries)
        entries.byteswap()
    return entries.tobytes()


def sectors(length_bytes: int) -> int:
    """Return how many sectors a length takes."""
    return -(-length_bytes // SECTOR_BYTES)
