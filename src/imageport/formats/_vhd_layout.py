"""The wire layout of VHD: where structures lie and how they are packed. No judgement here."""

# References: Virtual Hard Disk Image Format Specification 1.0, here [VHD 1.0]: "Hard Disk Footer
# Format", "Dynamic Disk Header Format", "Block Allocation Table and Data Blocks", "CHS
# Calculation".

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from imageport.model import GIB, MIB

SECTOR_BYTES: Final = 512
"""The only one that the format knows; all is big endian."""

# Hard disk footer.
COOKIE: Final = b"conectix"
UNFINISHED_COOKIE: Final = b"vhdpart\0"
"""Ours, in place of `COOKIE` while a file is being written: no reader takes it for a disk."""
FOOTER_BYTES: Final = 512
OLD_FOOTER_BYTES: Final = 511
"""What Virtual PC wrote before 2004."""
FORMAT_MAJOR: Final = 1
NO_OFFSET: Final = 0xFFFF_FFFF_FFFF_FFFF
RESERVED_FEATURE: Final = 2
"""A bit that the specification demands to be set."""
HYPER_V: Final = b"win "
"""Creator of files whose readers take the size from the current size and not from CHS."""
EPOCH_SECONDS: Final = 946_684_800
"""2000-01-01 UTC, from which the format counts, in seconds since 1970."""

# Dynamic disk header.
HEADER_COOKIE: Final = b"cxsparse"
HEADER_BYTES: Final = 1024
HEADER_MAJOR: Final = 1
LOCATOR_COUNT: Final = 8
WINDOWS_LOCATORS: Final = (b"W2ru", b"W2ku")
"""Relative and absolute path of the parent, UTF-16LE; the relative one survives a move."""

NO_ID: Final = uuid.UUID(int=0)

# Block allocation table.
ENTRY_BYTES: Final = 4
UNUSED: Final = 0xFFFF_FFFF
MIN_BLOCK_BYTES: Final = SECTOR_BYTES
MAX_BLOCK_BYTES: Final = 256 * MIB
"""Far above what any program makes (PVS: 16 MiB at most); bounds one sector bitmap to 64 KiB."""
MAX_DISK_BYTES: Final = 2040 * GIB
"""Largest disk that Microsoft's programs make: sector numbers of a table entry have 32 bits."""

_FOOTER = struct.Struct(">8s I I Q I 4s I 4s Q Q H B B I I 16s B")
_FOOTER_CHECKSUM: Final = 64
_HEADER = struct.Struct(">8s Q Q I I I I 16s I I 512s")
_HEADER_CHECKSUM: Final = 36
_LOCATOR = struct.Struct(">4s I I I Q")
_MOST_SECTORS: Final = 65535 * 16 * 255


class DiskType(IntEnum):
    """Of the footer; the values left out are reserved."""

    FIXED = 2
    DYNAMIC = 3
    DIFFERENCING = 4


class Geometry(NamedTuple):
    """Cylinders, heads and sectors per track: what BIOSes once wanted."""

    cylinders: int
    heads: int
    sectors_per_track: int

    @property
    def size_bytes(self) -> int:
        """Return the size of a disk of just this geometry."""
        return self.cylinders * self.heads * self.sectors_per_track * SECTOR_BYTES


def chs_geometry(size_bytes: int) -> Geometry:
    """Return the geometry by the specification's appendix; cylinders are rounded down."""
    total = min(size_bytes // SECTOR_BYTES, _MOST_SECTORS)
    if total >= 65535 * 16 * 63:
        sectors, heads = 255, 16
        return Geometry(total // sectors // heads, heads, sectors)
    sectors = 17
    tracks = total // sectors
    heads = max(4, (tracks + 1023) // 1024)
    if tracks >= heads * 1024 or heads > 16:
        sectors, heads = 31, 16
        tracks = total // sectors
    if tracks >= heads * 1024:
        sectors, heads = 63, 16
        tracks = total // sectors
    return Geometry(tracks // heads, heads, sectors)


@dataclass(frozen=True, slots=True)
class Footer:
    """The last sector of every VHD, and the first of one that is not fixed."""

    disk_type: int
    current_bytes: int
    geometry: Geometry
    unique_id: uuid.UUID
    data_offset: int = NO_OFFSET
    """Of the dynamic disk header."""
    timestamp: int = 0
    creator: bytes = HYPER_V
    creator_version: int = 0x000A_0000
    creator_host: bytes = b"Wi2k"
    original_bytes: int = 0
    features: int = RESERVED_FEATURE
    version: int = FORMAT_MAJOR << 16
    saved_state: int = 0

    @classmethod
    def unpack(cls, data: bytes) -> Footer | None:
        """Read a footer of 512 or 511 bytes; None when its cookie or checksum is wrong."""
        padded = data.ljust(FOOTER_BYTES, b"\0")
        if padded[:8] != COOKIE or not _checksum_fits(padded, _FOOTER_CHECKSUM):
            return None
        _, features, version, data_offset, time, creator, made, host, *rest = _FOOTER.unpack_from(
            padded
        )
        original, current, cylinders, heads, sectors, kind, _, identity, saved = rest
        return cls(
            disk_type=kind,
            current_bytes=current,
            geometry=Geometry(cylinders, heads, sectors),
            unique_id=uuid.UUID(bytes=identity),
            data_offset=data_offset,
            timestamp=time,
            creator=creator,
            creator_version=made,
            creator_host=host,
            original_bytes=original,
            features=features,
            version=version,
            saved_state=saved,
        )

    def pack(self) -> bytes:
        """Return the 512 bytes with their checksum."""
        packed = _FOOTER.pack(
            COOKIE,
            self.features,
            self.version,
            self.data_offset,
            self.timestamp,
            self.creator,
            self.creator_version,
            self.creator_host,
            self.original_bytes or self.current_bytes,
            self.current_bytes,
            *self.geometry,
            self.disk_type,
            0,
            self.unique_id.bytes,
            self.saved_state,
        )
        return _with_checksum(packed.ljust(FOOTER_BYTES, b"\0"), _FOOTER_CHECKSUM)


class Locator(NamedTuple):
    """Where a path of the parent lies in the file; ``code`` says whose kind of path."""

    code: bytes
    length: int
    offset: int


@dataclass(frozen=True, slots=True)
class Header:
    """The dynamic disk header, of dynamic and differencing disks."""

    table_offset: int
    entry_count: int
    block_bytes: int
    parent_id: uuid.UUID = NO_ID
    parent_timestamp: int = 0
    """Seconds since `EPOCH_SECONDS` at which the parent's file was last written."""
    parent_name: str = ""
    locators: tuple[Locator, ...] = ()
    data_offset: int = NO_OFFSET
    version: int = HEADER_MAJOR << 16

    @classmethod
    def unpack(cls, data: bytes) -> Header | None:
        """Read a header of 1024 bytes; None when its cookie or checksum is wrong."""
        if data[:8] != HEADER_COOKIE or not _checksum_fits(data, _HEADER_CHECKSUM):
            return None
        _, data_offset, table, version, count, block, _, parent, time, _, name = (
            _HEADER.unpack_from(data)
        )
        places = (_HEADER.size + at * _LOCATOR.size for at in range(LOCATOR_COUNT))
        found = (_LOCATOR.unpack_from(data, at) for at in places)
        return cls(
            table_offset=table,
            entry_count=count,
            block_bytes=block,
            parent_id=uuid.UUID(bytes=parent),
            parent_timestamp=time,
            parent_name=name.decode("utf-16-be", "replace").split("\0")[0],
            locators=tuple(Locator(code, length, at) for code, _, length, _, at in found),
            data_offset=data_offset,
            version=version,
        )

    def pack(self) -> bytes:
        """Return the 1024 bytes with their checksum."""
        packed = _HEADER.pack(
            HEADER_COOKIE,
            self.data_offset,
            self.table_offset,
            self.version,
            self.entry_count,
            self.block_bytes,
            0,
            self.parent_id.bytes,
            self.parent_timestamp,
            0,
            self.parent_name.encode("utf-16-be"),
        )
        for code, length, offset in self.locators:
            space = -(-length // SECTOR_BYTES) * SECTOR_BYTES
            packed += _LOCATOR.pack(code, space, length, 0, offset)
        return _with_checksum(packed.ljust(HEADER_BYTES, b"\0"), _HEADER_CHECKSUM)


def bitmap_bytes(block_bytes: int) -> int:
    """Return the size of the sector bitmap before a block: a bit a sector, in whole sectors."""
    return -(-block_bytes // SECTOR_BYTES // 8 // SECTOR_BYTES) * SECTOR_BYTES


def table_bytes(entry_count: int) -> int:
    """Return the size of a table: whole sectors."""
    return -(-entry_count * ENTRY_BYTES // SECTOR_BYTES) * SECTOR_BYTES


def checksum(data: bytes) -> int:
    """Return the one's complement of the sum of all bytes; the checksum's own field counts 0."""
    return ~sum(data) & 0xFFFF_FFFF


def _checksum_fits(data: bytes, at: int) -> bool:
    return int.from_bytes(data[at : at + 4], "big") == checksum(data[:at] + data[at + 4 :])


def _with_checksum(data: bytes, at: int) -> bytes:
    return data[:at] + checksum(data).to_bytes(4, "big") + data[at + 4 :]
