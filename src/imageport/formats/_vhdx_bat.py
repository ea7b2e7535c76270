"""Reads and judges the block allocation table of a VHDX: every entry, every overlap."""

# References: [MS-VHDX] 2.5 BAT, 2.5.1.1 payload states, 2.5.1.2 sector bitmap states.

from __future__ import annotations

import sys
from array import array

from imageport.errors import UnsupportedDisk
from imageport.formats import _vhdx_layout as layout
from imageport.formats._vhdx_faults import bad, cut_short, read
from imageport.formats._vhdx_structure import Structure
from imageport.model import MIB
from imageport.storage.byte_file import ByteFile

MAX_ENTRIES = 8 * 1024 * 1024
"""64 MiB of table: 8 TiB in blocks of 1 MiB, 256 TiB in the 32 MiB blocks that PVS makes. A file
that claims more would take our memory before it proved anything."""

MAX_FILE_BYTES = 2 * layout.MAX_DISK_BYTES
"""No sound file is larger than twice the largest disk; bounds the map of taken places."""

_HARMLESS = frozenset(
    int(state)  # found faster than a member of an enumeration
    for state in (
        layout.PayloadState.NOT_PRESENT,
        layout.PayloadState.UNDEFINED,
        layout.PayloadState.ZERO,
        layout.PayloadState.UNMAPPED,
        layout.PayloadState.UNMAPPED_DRAFT,
    )
)
_JUDGED_BITS = layout.BAT_STATE_MASK | layout.BAT_RESERVED_MASK
"""Of an entry without data; a place left in it means nothing."""


def load_entries(file: ByteFile, structure: Structure) -> array[int]:
    """Return the raw BAT entries, unjudged; too many are `UnsupportedDisk`."""
    count = structure.geometry.entry_count
    if count > MAX_ENTRIES:
        raise UnsupportedDisk(
            f"Cannot read '{file.location}': its table has {count} entries, "
            f"this release reads at most {MAX_ENTRIES}.",
            hint="Convert the disk to one with larger blocks (32 MiB).",
            object=file.location,
        )
    needed = count * layout.BAT_ENTRY_BYTES
    entries = array("Q")
    piece_bytes = 4 * 1024 * 1024
    for start in range(0, needed, piece_bytes):
        length = min(piece_bytes, needed - start)
        entries.frombytes(read(file, "BAT", structure.bat.offset + start, length))
    if sys.byteorder == "big":
        entries.byteswap()
    return entries


def check_entries(file: ByteFile, structure: Structure, entries: array[int]) -> None:
    """Judge every entry: state, reserved bits, bounds, overlaps.

    Raises:
        BadDisk: Names the entry's offset, what was found and what was needed.
    """
    geometry = structure.geometry
    if file.size_bytes > MAX_FILE_BYTES:
        found = f"{file.size_bytes} bytes"
        bad(file, "file size", 0, found, f"at most {MAX_FILE_BYTES} bytes")
    used = _MebibyteMap(file.size_bytes + geometry.block_bytes)
    for start, end in structure.reserved_ranges:
        used.take(start, end)
    ratio = geometry.chunk_ratio
    period = ratio + 1
    for index, entry in enumerate(entries):
        # Most of a large table may say that there is nothing: millions of calls would take long.
        if not entry or (entry & _JUDGED_BITS in _HARMLESS and index % period != ratio):
            continue
        chunk, inside = divmod(index, period)
        block = -1 if inside == ratio else chunk * ratio + inside
        place = _place(file, structure, index, block, entry)
        if entry & layout.BAT_STATE_MASK == layout.PayloadState.PARTIALLY_PRESENT:
            _check_bitmap(file, structure, entries, index, chunk)
        if place is not None and not used.take(*place):
            at = structure.bat.offset + index * layout.BAT_ENTRY_BYTES
            found = f"{place[0]}, inside another block or region"
            bad(file, f"block of BAT entry {index}", at, found, "a place of its own")


class _MebibyteMap:
    """Which MiB of a file are taken: one byte each, so that memory follows the file's size only."""

    def __init__(self, size_bytes: int) -> None:
        self._taken = bytearray(-(-size_bytes // MIB))

    def take(self, start: int, end: int) -> bool:
        """Take a range; False when part of it is taken. Both ends are multiples of 1 MiB."""
        first, last = start // MIB, end // MIB
        if self._taken.find(1, first, last) >= 0:
            return False
        self._taken[first:last] = b"\1" * (last - first)
        return True


def _place(
    file: ByteFile, structure: Structure, index: int, block: int, entry: int
) -> tuple[int, int] | None:
    """Judge one entry; return the (start, end) it occupies. ``block`` -1: a sector bitmap."""
    geometry = structure.geometry
    at = structure.bat.offset + index * layout.BAT_ENTRY_BYTES
    name = f"BAT entry {index}"
    if entry & layout.BAT_RESERVED_MASK:
        bad(file, name, at, f"reserved bits in {entry:#x}", "zeros")
    state = entry & layout.BAT_STATE_MASK
    partial = block >= 0 and state == layout.PayloadState.PARTIALLY_PRESENT
    if partial and not geometry.has_parent:
        bad(file, name, at, "a partial block in a disk without parent", "a whole block or none")
    if state != layout.PayloadState.FULLY_PRESENT and not partial:
        if state not in _HARMLESS or (block < 0 and state):
            bad(file, name, at, f"state {state}", "a state of [MS-VHDX] 2.5.1")
        return None
    if block >= geometry.block_count:
        found = f"block {block} of a disk of {geometry.block_count}"
        bad(file, name, at, found, "none behind the disk's end")
    start = entry & layout.BAT_OFFSET_MASK
    length = MIB
    kept = MIB
    if block >= 0:
        length = geometry.block_bytes
        # Only what lies inside the disk is ever read; some writers cut the last block there.
        kept = min(length, geometry.disk_bytes - block * length)
    if start + kept > file.size_bytes:
        cut_short(file, f"the block of {name}", start + kept)
    return start, start + length


def _check_bitmap(
    file: ByteFile, structure: Structure, entries: array[int], index: int, chunk: int
) -> None:
    """Refuse a partial block whose chunk has no sector bitmap."""
    at = structure.geometry.bitmap_index(chunk)
    if entries[at] & layout.BAT_STATE_MASK != layout.PayloadState.FULLY_PRESENT:
        place = structure.bat.offset + at * layout.BAT_ENTRY_BYTES
        found = f"none, though block entry {index} is partial"
        bad(file, f"sector bitmap of BAT entry {at}", place, found, "a sector bitmap")
