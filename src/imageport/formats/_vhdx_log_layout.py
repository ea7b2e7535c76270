"""The wire layout of a VHDX log: entries, descriptors, data sectors. No judgement of a sequence."""

# References: [MS-VHDX] v20240423: 2.3.1.1 entry header, 2.3.1.2 zero and 2.3.1.3 data descriptors,
# 2.3.1.4 data sector.

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from imageport.formats._vhdx_layout import guid

SECTOR_BYTES = 4096
"""Unit of the log: entries begin at its multiples, a data descriptor stands for one of them."""
ENTRY_SIGNATURE = b"loge"
ZERO_SIGNATURE = b"zero"
DATA_SIGNATURE = b"desc"
SECTOR_SIGNATURE = b"data"
DESCRIPTOR_BYTES = 32

_HEADER = struct.Struct("<4sIIIQII16sQQ")
HEADER_BYTES = _HEADER.size
_ZERO = struct.Struct("<4sIQQQ")
_DATA = struct.Struct("<4s4s8sQQ")
_SECTOR = struct.Struct("<4sI4084sI")


class Write(NamedTuple):
    """What a descriptor says: ``length`` bytes at ``offset`` become ``data``, or zeros if None."""

    offset: int
    length: int
    data: bytes | None


@dataclass(frozen=True, slots=True)
class EntryHeader:
    """2.3.1.1 The first 64 bytes of an entry; ``tail`` counts from the log's start."""

    length: int
    tail: int
    sequence: int
    descriptor_count: int
    log_guid: uuid.UUID
    flushed_file_bytes: int
    last_file_bytes: int

    @classmethod
    def unpack(cls, data: bytes) -> EntryHeader | None:
        """Read a header; None when its signature is wrong. The checksum is not looked at."""
        signature, _, length, tail, sequence, count, _, log_guid, flushed, last = (
            _HEADER.unpack_from(data)
        )
        if signature != ENTRY_SIGNATURE:
            return None
        return cls(length, tail, sequence, count, guid(log_guid), flushed, last)

    @property
    def descriptor_sectors(self) -> int:
        """Return how many sectors the header and its descriptors take."""
        return -(-(HEADER_BYTES + self.descriptor_count * DESCRIPTOR_BYTES) // SECTOR_BYTES)


def unpack_writes(entry: bytes | memoryview, header: EntryHeader) -> Iterator[Write | None]:
    """Yield what an entry's descriptors say, in order; None for each that is damaged or torn."""
    sector_at = header.descriptor_sectors * SECTOR_BYTES
    for index in range(header.descriptor_count):
        at = HEADER_BYTES + index * DESCRIPTOR_BYTES
        signature = entry[at : at + 4]
        if signature == ZERO_SIGNATURE:
            _, _, length, offset, sequence = _ZERO.unpack_from(entry, at)
            yield Write(offset, length, None) if sequence == header.sequence else None
        elif signature == DATA_SIGNATURE and sector_at + SECTOR_BYTES <= len(entry):
            _, trailing, leading, offset, sequence = _DATA.unpack_from(entry, at)
            mark, high, middle, low = _SECTOR.unpack_from(entry, sector_at)
            whole = mark == SECTOR_SIGNATURE and high << 32 | low == header.sequence == sequence
            data = leading + middle + trailing
            yield Write(offset, SECTOR_BYTES, data) if whole else None
            sector_at += SECTOR_BYTES
        else:
            yield None
