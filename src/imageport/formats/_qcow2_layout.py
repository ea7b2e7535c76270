"""The wire layout of qcow2: header and table entries. No judgement here."""

# References: qemu docs/interop/qcow2.txt: Header, Cluster mapping.

from __future__ import annotations

import struct
import sys
from array import array
from dataclasses import dataclass, replace
from enum import IntFlag

MAGIC = b"QFI\xfb"
V2_HEADER_BYTES = 72
V3_HEADER_BYTES = 104
HEADER_BYTES = 112
"""With the compression type, which a header longer than 104 bytes has."""
ENTRY_BYTES = 8

OFFSET_MASK = 0x00FFFFFFFFFFFE00
"""Bits 9 to 55 of an L1 or L2 entry."""
L1_RESERVED_MASK = 0x7F000000000001FF
L2_RESERVED_MASK = 0x3F000000000001FE
COMPRESSED = 1 << 62
COPIED = 1 << 63
ALL_ZERO = 1
"""Bit 0 of an L2 entry, version 3 only."""

_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")


class Incompatible(IntFlag):
    """Features that a reader must know or refuse."""

    DIRTY = 1 << 0
    CORRUPT = 1 << 1
    EXTERNAL_DATA = 1 << 2
    COMPRESSION_TYPE = 1 << 3
    EXTENDED_L2 = 1 << 4


@dataclass(frozen=True, slots=True)
class Header:
    """The header; offsets and sizes are bytes, ``l1_entries`` a count."""

    magic: bytes
    version: int
    backing_name_offset: int
    backing_name_bytes: int
    cluster_bits: int
    size_bytes: int
    encryption: int
    l1_entries: int
    l1_offset: int
    refcount_offset: int
    refcount_clusters: int
    snapshots: int
    snapshots_offset: int
    incompatible: int = 0
    compatible: int = 0
    autoclear: int = 0
    refcount_order: int = 4
    header_bytes: int = V2_HEADER_BYTES
    compression: int = 0

    @classmethod
    def unpack(cls, data: bytes) -> Header:
        """Read `HEADER_BYTES`; a short file is padded with zeros."""
        padded = data.ljust(HEADER_BYTES, b"\0")
        first = _HEADER.unpack_from(padded)
        if first[1] < 3:
            return cls(*first)
        rest = _V3.unpack_from(padded, V2_HEADER_BYTES)
        compression = padded[V3_HEADER_BYTES] if rest[-1] > V3_HEADER_BYTES else 0
        return replace(cls(*first, *rest), compression=compression)

    @property
    def cluster_bytes(self) -> int:
        """Return the unit of allocation."""
        return 1 << self.cluster_bits

    @property
    def entries_per_table(self) -> int:
        """Return how many clusters one L2 table maps; a table is one cluster."""
        return self.cluster_bytes // ENTRY_BYTES

    @property
    def cluster_count(self) -> int:
        """Return how many clusters the disk has, the last one perhaps not whole."""
        return -(-self.size_bytes // self.cluster_bytes)

    @property
    def table_count(self) -> int:
        """Return how many L2 tables the disk needs."""
        return -(-self.cluster_count // self.entries_per_table)


def unpack_entries(data: bytes) -> array[int]:
    """Return big-endian 64-bit entries."""
    entries = array("Q", data)
    if sys.byteorder == "little":
        entries.byteswap()
    return entries


def compressed_place(entry: int, cluster_bits: int) -> tuple[int, int]:
    """Return (offset, most bytes) of a compressed cluster: it ends somewhere in the last sector."""
    shift = 62 - (cluster_bits - 8)
    offset = entry & ((1 << shift) - 1)
    sectors = (entry & (COMPRESSED - 1)) >> shift
    return offset, (sectors + 1) * 512 - offset % 512
