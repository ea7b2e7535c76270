"""Reads and judges the block allocation table of a VHD: every entry, every overlap."""

# References: [VHD 1.0] "Block Allocation Table and Data Blocks".

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from imageport.errors import UnsupportedDisk
from imageport.formats import _vhd_layout as layout
from imageport.formats._vhd_structure import Structure, bad, block_count, cut_short
from imageport.storage.byte_file import ByteFile

MAX_ENTRIES = 4 * 1024 * 1024
"""16 MiB of table: the largest disk, 2040 GiB, in the smallest blocks that PVS makes, 512 KiB. A
file that claims more would take our memory before it proved anything."""
_PIECE_BYTES = 4 * 1024 * 1024
_SPAN = 4096
"""Entries that are compared at once to skip what is not allocated."""


def entry_count(location: str, size_bytes: int, block_bytes: int) -> int:
    """Return how many entries of a table count; a table may have more (disks that can grow)."""
    count = block_count(size_bytes, block_bytes)
    if count > MAX_ENTRIES:
        raise UnsupportedDisk(
            f"Cannot read '{location}': its table has {count} entries, this release reads at "
            f"most {MAX_ENTRIES}.",
            hint="Convert the disk to one with larger blocks (2 MiB).",
            object=location,
        )
    return count


def unpack_entries(pieces: Iterable[bytes]) -> array[int]:
    """Return entries from the table's bytes."""
    entries = array("I")
    for piece in pieces:
        entries.frombytes(piece)
    if sys.byteorder == "little":
        entries.byteswap()
    return entries


def pack_entries(entries: array[int]) -> bytes:
    """Return entries as they lie in the file."""
    packed = array("I", entries)
    if sys.byteorder == "little":
        packed.byteswap()
    return packed.tobytes()


def load_entries(file: ByteFile, structure: Structure, header: layout.Header) -> array[int]:
    """Return the entries that count, unjudged; too many are `UnsupportedDisk`."""
    count = entry_count(file.location, structure.size_bytes, header.block_bytes)
    end = header.table_offset + count * layout.ENTRY_BYTES
    starts = range(header.table_offset, end, _PIECE_BYTES)
    return unpack_entries(file.read_at(at, min(_PIECE_BYTES, end - at)) for at in starts)


def check_entries(
    file: ByteFile, structure: Structure, header: layout.Header, entries: array[int]
) -> None:
    """Judge every entry: bounds, and overlaps with structures and with each other.

    Raises:
        BadDisk: Names the entry's offset, what was found and what was needed.
    """
    # Place and index in one number: sorts without a tuple for each of millions of blocks.
    places = sorted(
        entry << 32 | index for index, entry in enumerate(entries) if entry != layout.UNUSED
    )
    _check_each_other(file.location, header, places)
    for start, end, what in structure.reserved:
        _check_reserved(file.location, structure, header, places, (start, end, what))
    if places:  # none overlap, so the one that lies last reaches furthest
        _, end, index = _block(structure, header, places[-1])
        if end > structure.data_end:
            cut_short(file, f"the block of table entry {index}", end)


def allocated_runs(entries: array[int], first: int, behind: int) -> Iterator[tuple[int, int, int]]:
    """Yield (block, count, entry); what is not allocated comes many blocks at once."""
    absent = array("I", [layout.UNUSED]) * _SPAN
    block = first
    while block < behind:
        if entries[block] != layout.UNUSED:
            yield block, 1, entries[block]
            block += 1
            continue
        start = block
        while block < behind and entries[block] == layout.UNUSED:
            if block + _SPAN <= behind and entries[block : block + _SPAN] == absent:
                block += _SPAN
            else:
                block += 1
        yield start, block - start, layout.UNUSED


def _block(structure: Structure, header: layout.Header, place: int) -> tuple[int, int, int]:
    """Return (start, end, index) of a block with its bitmap."""
    start, index = (place >> 32) * layout.SECTOR_BYTES, place & 0xFFFF_FFFF
    # Only what lies inside the disk is ever read; some writers cut the last block there.
    kept = min(header.block_bytes, structure.size_bytes - index * header.block_bytes)
    return start, start + layout.bitmap_bytes(header.block_bytes) + kept, index


def _check_each_other(location: str, header: layout.Header, places: list[int]) -> None:
    stride = layout.bitmap_bytes(header.block_bytes) + header.block_bytes
    sectors = stride // layout.SECTOR_BYTES
    previous = -sectors << 32
    for place in places:
        if (place >> 32) - (previous >> 32) < sectors:
            found = f"sector {place >> 32}, inside the block of entry {previous & 0xFFFF_FFFF}"
            _bad_entry(location, header, place, found)
        previous = place


def _check_reserved(
    location: str,
    structure: Structure,
    header: layout.Header,
    places: list[int],
    reserved: tuple[int, int, str],
) -> None:
    start, end, what = reserved
    behind = bisect_left(places, -(-end // layout.SECTOR_BYTES) << 32)
    if not behind:
        return
    place = places[behind - 1]  # none overlap: only the last that starts before the end can
    if _block(structure, header, place)[1] > start:
        _bad_entry(location, header, place, f"sector {place >> 32}, inside {what}")


def _bad_entry(location: str, header: layout.Header, place: int, found: str) -> None:
    index = place & 0xFFFF_FFFF
    at = header.table_offset + index * layout.ENTRY_BYTES
    bad(location, f"table entry {index}", at, found, "a place of its own")
