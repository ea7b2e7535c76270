# References: GNU tar manual, "Basic Tar Format" (oldgnu_header, sparse_header); RFC 1952 (gzip).
"""The archive that Compute Engine imports, known to the byte without holding it.

A tar.gz with one sparse ``disk.raw``: gzip header and deflated tar header (the *head*), the
non-zero blocks each deflated by itself, and the archive's end with gzip's trailer (the *foot*).
The blocks lie in the bucket, head and foot are made here, and joining them is the archive. One gzip
member, one DEFLATE stream: whatever reads tar.gz reads it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import google_crc32c
from isal import isal_zlib

from imageport.clouds.gcp.checksum_combination import crc32c_combine
from imageport.clouds.gcp.deflated_block import DeflatedBlock, deflate
from imageport.model import BLOCK_BYTES, GIB

DISK_NAME: Final = "disk.raw"
"""The only name that Compute Engine takes."""
RECORD_BYTES: Final = 512
TAPE_BLOCK_BYTES: Final = 20 * RECORD_BYTES
"""GNU tar fills archives up to this; one that ends earlier is read too, but looks cut off."""
GZIP_HEADER: Final = bytes.fromhex("1f8b 08 00 00000000 00 03")
"""Deflate, no name, no time, Unix: the same image makes the same archive."""
FINAL_BLOCK: Final = b"\x03\x00"
"""An empty block with the final bit, by the fixed Huffman codes."""
HEADER_RANGES: Final = 4
EXTENSION_BYTES: Final = 21 * 24
"""Of the ranges in each further header."""
LARGEST_OCTAL: Final = 8**11 - 1
"""Eleven digits; larger numbers are written to base 256."""
MEMBER_MODE: Final = 0o644

_HEADER: Final = struct.Struct("<100s8s8s8s12s12s8sc100s8s121x96sB12s17x")
"""Name, mode, owner, group, size, time, checksum, type, link, magic, (user and group names, device
numbers, times, places of other volumes), four ranges, whether more follow, real size."""
_EXTENSION: Final = struct.Struct("<504sB7x")
_CHECKSUM_OFFSET: Final = 148
_SPARSE: Final = b"S"
_MAGIC: Final = b"ustar  \0"

Range = tuple[int, int]
"""Offset and length in bytes."""


@dataclass(frozen=True, slots=True)
class SparseArchive:
    """What lies around the blocks, and what the whole will be."""

    head: bytes
    foot: bytes
    size_bytes: int
    """Of the archive."""
    crc32c: int
    """Of the archive, to be compared with what the server tells of it."""


def whole_gib(size_bytes: int) -> int:
    """Return the size of the disk that Compute Engine makes: the next whole GiB, never none."""
    return max(1, -(-size_bytes // GIB)) * GIB


def sparse_archive(
    size_bytes: int, blocks: Sequence[int], facts: Iterable[DeflatedBlock]
) -> SparseArchive:
    """Return the archive of a disk whose other blocks are zeros.

    The blocks follow the head in the order of ``blocks``; one that occurs twice is joined twice.

    Args:
        size_bytes: Of the disk; a multiple of one GiB.
        blocks: Indexes of its non-zero blocks of BLOCK_BYTES, ascending. The last block of a
            smaller source counts as padded with zeros.
        facts: Of each of ``blocks``, in the same order.

    Raises:
        ValueError: size or blocks are none of a disk, or ``facts`` are not as many.
    """
    head, end = plain_ends(size_bytes, blocks)
    deflated_head = GZIP_HEADER + deflate(head)
    size, crc32c = len(deflated_head), google_crc32c.value(deflated_head)
    crc32, count = isal_zlib.crc32(head), 0
    for block in facts:
        crc32 = isal_zlib.crc32_combine(crc32, block.plain_crc32, BLOCK_BYTES)
        crc32c = crc32c_combine(crc32c, block.crc32c, block.deflated_bytes)
        size += block.deflated_bytes
        count += 1
    if count != len(blocks):
        raise ValueError(f"Bad archive: found facts of {count} blocks, needed {len(blocks)}.")
    plain_bytes = len(head) + count * BLOCK_BYTES + len(end)
    trailer = struct.pack("<II", zlib.crc32(end, crc32), plain_bytes & 0xFFFFFFFF)
    foot = deflate(end) + FINAL_BLOCK + trailer
    crc32c = crc32c_combine(crc32c, google_crc32c.value(foot), len(foot))
    return SparseArchive(deflated_head, foot, size + len(foot), crc32c)


def plain_ends(size_bytes: int, blocks: Sequence[int]) -> tuple[bytes, bytes]:
    """Return what stands before and behind the blocks in the tar, as it is before compression.

    Raises:
        ValueError: size or blocks are none of a disk.
    """
    head = b"".join(_tar_header(size_bytes, len(blocks), _ranges(size_bytes, blocks)))
    plain = len(head) + len(blocks) * BLOCK_BYTES
    return head, bytes(2 * RECORD_BYTES + -(plain + 2 * RECORD_BYTES) % TAPE_BLOCK_BYTES)


def _ranges(size_bytes: int, blocks: Sequence[int]) -> Iterator[Range]:
    """Yield what the disk holds, adjacent blocks as one, and an empty range where it ends.

    GNU tar writes the empty one when the file ends in a hole.
    """
    if size_bytes <= 0 or size_bytes % GIB:
        raise ValueError(f"Bad disk: found {size_bytes} bytes, needed a multiple of {GIB}.")
    start = end = 0
    for index in blocks:
        offset = index * BLOCK_BYTES
        if offset < end or offset >= size_bytes:
            raise ValueError(
                f"Bad block: found {index}, needed one from {end // BLOCK_BYTES} to "
                f"{size_bytes // BLOCK_BYTES - 1}."
            )
        if offset > end:
            if end > start:
                yield start, end - start
            start = offset
        end = offset + BLOCK_BYTES
    if end > start:
        yield start, end - start
    if end < size_bytes:
        yield size_bytes, 0


def _tar_header(size_bytes: int, blocks: int, ranges: Iterable[Range]) -> Iterator[bytes]:
    first = _range_fields(islice(ranges, HEADER_RANGES))
    rest = _range_fields(ranges)
    header = bytearray(
        _HEADER.pack(
            DISK_NAME.encode(),
            b"%07o\0" % MEMBER_MODE,
            b"%07o\0" % 0,
            b"%07o\0" % 0,
            number_field(blocks * BLOCK_BYTES),
            number_field(0),
            b" " * 8,
            _SPARSE,
            b"",
            _MAGIC,
            first,
            bool(rest),
            number_field(size_bytes),
        )
    )
    struct.pack_into("8s", header, _CHECKSUM_OFFSET, b"%06o\0 " % sum(header))
    yield bytes(header)
    for start in range(0, len(rest), EXTENSION_BYTES):
        end = start + EXTENSION_BYTES
        yield _EXTENSION.pack(rest[start:end], end < len(rest))


def _range_fields(ranges: Iterable[Range]) -> bytearray:
    """Return the fields of all ranges, 24 bytes each; joined at once they would take ten times."""
    fields = bytearray()
    for offset, length in ranges:
        fields += number_field(offset) + number_field(length)
    return fields


def number_field(value: int) -> bytes:
    """Return a number as twelve bytes: octal digits and a NUL, or to base 256 with bit 7 set."""
    if value <= LARGEST_OCTAL:
        return b"%011o\0" % value
    return b"\x80" + value.to_bytes(11, "big")
