"""The wire layout of VHDX: where structures lie and how they are packed. No judgement here."""

# References: [MS-VHDX] v20240423: 2.1 layout, 2.2 header section, 2.3 log, 2.5 BAT, 2.6 metadata.

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass
from enum import IntEnum

from imageport.formats._crc32c import crc32c
from imageport.model import MIB

KIB = 1024

# 2.2 Header section: the first MiB.
SIGNATURE = b"vhdxfile"
UNFINISHED_SIGNATURE = b"vhdxpart"
"""Ours, in place of `SIGNATURE` while a file is being written: no reader takes it for a disk."""
HEADER_OFFSETS = (64 * KIB, 128 * KIB)
HEADER_BYTES = 4 * KIB
REGION_TABLE_OFFSETS = (192 * KIB, 256 * KIB)
REGION_TABLE_BYTES = 64 * KIB
HEADER_SECTION_BYTES = MIB
HEADER_SIGNATURE = b"head"
REGION_SIGNATURE = b"regi"
MAX_REGIONS = 2047
REGION_BAT = uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08")
REGION_METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
NO_GUID = uuid.UUID(int=0)

# 2.6 Metadata region.
METADATA_SIGNATURE = b"metadata"
METADATA_TABLE_BYTES = 64 * KIB
MAX_METADATA_ENTRIES = 2047
MAX_METADATA_ITEM_BYTES = MIB
ITEM_FILE_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
ITEM_DISK_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
ITEM_DISK_ID = uuid.UUID("beca12ab-b2e6-4523-93ef-c309e000c746")
ITEM_LOGICAL_SECTOR = uuid.UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f")
ITEM_PHYSICAL_SECTOR = uuid.UUID("cda348c7-445d-4471-9cc9-e9885251c556")
ITEM_PARENT_LOCATOR = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")
MIN_BLOCK_BYTES = MIB
MAX_BLOCK_BYTES = 256 * MIB
MAX_DISK_BYTES = 64 * 1024 * 1024 * MIB

# 2.5 Block allocation table.
BAT_ENTRY_BYTES = 8
BAT_STATE_MASK = 0x7
BAT_RESERVED_MASK = 0xFFFF8
BAT_OFFSET_MASK = ~0xFFFFF & 0xFFFFFFFFFFFFFFFF
SECTORS_PER_BITMAP_BLOCK = 2**23


class PayloadState(IntEnum):
    """2.5.1.1 Payload BAT entry states."""

    NOT_PRESENT = 0
    UNDEFINED = 1
    ZERO = 2
    UNMAPPED = 3
    UNMAPPED_DRAFT = 5
    """UNMAPPED in draft 0.95 of the specification; files made then still exist."""
    FULLY_PRESENT = 6
    PARTIALLY_PRESENT = 7


_HEADER = struct.Struct("<4sIQ16s16s16sHHIQ")
_REGION_TABLE = struct.Struct("<4sIII")
_REGION = struct.Struct("<16sQII")
_METADATA_TABLE = struct.Struct("<8sHH20s")
_METADATA_ENTRY = struct.Struct("<16sIIII")


@dataclass(frozen=True, slots=True)
class Header:
    """2.2.2 One of the two headers."""

    sequence: int
    file_write_guid: uuid.UUID
    data_write_guid: uuid.UUID
    log_guid: uuid.UUID
    log_version: int
    version: int
    log_bytes: int
    log_offset: int

    @classmethod
    def unpack(cls, data: bytes) -> Header | None:
        """Read a header; None when its signature or checksum is wrong."""
        if data[:4] != HEADER_SIGNATURE or not checksum_fits(data):
            return None
        _, _, sequence, file_guid, data_guid, log_guid, *rest = _HEADER.unpack_from(data)
        return cls(sequence, guid(file_guid), guid(data_guid), guid(log_guid), *rest)

    def pack(self) -> bytes:
        """Return the 4 KiB structure with its checksum."""
        packed = _HEADER.pack(
            HEADER_SIGNATURE,
            0,
            self.sequence,
            self.file_write_guid.bytes_le,
            self.data_write_guid.bytes_le,
            self.log_guid.bytes_le,
            self.log_version,
            self.version,
            self.log_bytes,
            self.log_offset,
        )
        return with_checksum(packed, HEADER_BYTES)


@dataclass(frozen=True, slots=True)
class Region:
    """2.2.3.2 One entry of the region table."""

    kind: uuid.UUID
    offset: int
    length: int
    required: bool

    @property
    def end(self) -> int:
        """Return the offset behind the region."""
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class MetadataEntry:
    """2.6.1.2 One entry of the metadata table; ``offset`` counts from the region's start."""

    item: uuid.UUID
    offset: int
    length: int
    flags: int

    @property
    def is_user(self) -> bool:
        """Return whether the item belongs to a user, not to the format."""
        return bool(self.flags & 1)

    @property
    def required(self) -> bool:
        """Return whether a reader that does not know the item must refuse the file."""
        return bool(self.flags & 4)


def guid(data: bytes) -> uuid.UUID:
    """Read a GUID in Microsoft's byte order."""
    return uuid.UUID(bytes_le=bytes(data))


def checksum_fits(data: bytes) -> bool:
    """Return whether bytes 4..8 are the CRC-32C of ``data`` with that field zeroed."""
    (stored,) = struct.unpack_from("<I", data, 4)
    return bool(stored == crc32c(data[:4] + bytes(4) + data[8:]))


def with_checksum(data: bytes, size_bytes: int) -> bytes:
    """Pad ``data`` with zeros and put its CRC-32C into bytes 4..8."""
    padded = data.ljust(size_bytes, b"\0")
    return padded[:4] + struct.pack("<I", crc32c(padded)) + padded[8:]


def unpack_region_count(data: bytes) -> int | None:
    """Return how many entries a region table claims; None when it is not valid."""
    signature, _, count, _ = _REGION_TABLE.unpack_from(data)
    return count if signature == REGION_SIGNATURE and checksum_fits(data) else None


def unpack_regions(data: bytes, count: int) -> list[Region]:
    """Read ``count`` entries of a region table."""
    found = []
    for at in range(count):
        kind, offset, length, flags = _REGION.unpack_from(data, 16 + at * _REGION.size)
        found.append(Region(guid(kind), offset, length, bool(flags & 1)))
    return found


def pack_regions(regions: list[Region]) -> bytes:
    """Return the 64 KiB region table."""
    body = _REGION_TABLE.pack(REGION_SIGNATURE, 0, len(regions), 0)
    for region in regions:
        flags = int(region.required)
        body += _REGION.pack(region.kind.bytes_le, region.offset, region.length, flags)
    return with_checksum(body, REGION_TABLE_BYTES)


def unpack_metadata_count(data: bytes) -> int | None:
    """Return how many entries a metadata table claims; None when its signature is wrong."""
    signature, _, count, _ = _METADATA_TABLE.unpack_from(data)
    return count if signature == METADATA_SIGNATURE else None


def unpack_metadata(data: bytes, count: int) -> list[MetadataEntry]:
    """Read ``count`` entries of a metadata table."""
    found = []
    for at in range(count):
        item, offset, length, flags, _ = _METADATA_ENTRY.unpack_from(data, 32 + at * 32)
        found.append(MetadataEntry(guid(item), offset, length, flags))
    return found


def pack_metadata(entries: list[MetadataEntry]) -> bytes:
    """Return the 64 KiB metadata table."""
    body = _METADATA_TABLE.pack(METADATA_SIGNATURE, 0, len(entries), b"")
    for entry in entries:
        facts = (entry.item.bytes_le, entry.offset, entry.length, entry.flags, 0)
        body += _METADATA_ENTRY.pack(*facts)
    return body.ljust(METADATA_TABLE_BYTES, b"\0")


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a disk is cut into payload blocks, and where their entries lie in the BAT."""

    disk_bytes: int
    block_bytes: int
    sector_bytes: int
    has_parent: bool = False

    @property
    def chunk_ratio(self) -> int:
        """Return how many payload entries lie between two sector bitmap entries (2.5)."""
        return SECTORS_PER_BITMAP_BLOCK * self.sector_bytes // self.block_bytes

    @property
    def block_count(self) -> int:
        """Return the number of payload blocks; the last may reach past the disk's end."""
        return -(-self.disk_bytes // self.block_bytes)

    @property
    def entry_count(self) -> int:
        """Return the number of BAT entries; with a parent, the last chunk has its bitmap too."""
        if self.has_parent:
            return -(-self.block_count // self.chunk_ratio) * (self.chunk_ratio + 1)
        return self.block_count + (self.block_count - 1) // self.chunk_ratio

    def entry_index(self, block: int) -> int:
        """Return where in the BAT the entry of a payload block lies."""
        return block + block // self.chunk_ratio

    def bitmap_index(self, chunk: int) -> int:
        """Return where in the BAT the entry of a chunk's sector bitmap lies."""
        return chunk * (self.chunk_ratio + 1) + self.chunk_ratio
