"""The sector bitmaps of a VHD: which sectors of a block the file holds, in bounded memory."""

# References: [VHD 1.0] "Block Allocation Table and Data Blocks": most significant bit first; 1: the
# sector lies here, 0: it was never written (dynamic disk) or lies in the parent (differencing).

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence

from imageport.formats import _vhd_layout as layout
from imageport.storage.byte_file import ByteFile

_CACHE_BYTES = 8 * 1024 * 1024
"""Bitmaps kept of a file, of which a chain has many: 26 GiB in partial blocks of 2 MiB, 160 GiB in
whole ones, which cost a word. What is read in order needs few of them."""
_ENTRY_COST_BYTES = 100
"""A dictionary's own cost for one block."""
_FULL = b""
"""Kept in place of a bitmap whose every bit is set."""
_RUNS = re.compile("0+|1+")


def bit_runs(bitmap: bytes, first: int, behind: int) -> Iterator[tuple[int, int, bool]]:
    """Yield (first sector, sector behind, is set) of the runs of equal bits in a range.

    The bits become a text first, which the regular expression engine splits: the cost is that of
    the runs, not that of single bits.
    """
    start, end = first // 8, -(-behind // 8)
    bits = format(int.from_bytes(bitmap[start:end], "big"), f"0{(end - start) * 8}b")
    shift = start * 8
    for run in _RUNS.finditer(bits, first - shift, behind - shift):
        yield run.start() + shift, run.end() + shift, bits[run.start()] == "1"


class SectorBitmaps:
    """The bitmaps of one file, read when they are needed; thread-safe."""

    def __init__(self, file: ByteFile, block_bytes: int) -> None:
        self._file = file
        self._bytes = layout.bitmap_bytes(block_bytes)
        self._sectors = block_bytes // layout.SECTOR_BYTES
        self._kept: dict[int, bytes] = {}
        self._kept_bytes = 0
        self._lock = threading.Lock()

    def most_bytes(self, block_count: int) -> int:
        """Return the memory that is kept of so many blocks, at most."""
        return min(_CACHE_BYTES, block_count * (_ENTRY_COST_BYTES + self._bytes))

    def runs(self, entry: int, first: int, behind: int) -> Iterator[tuple[int, int, bool]]:
        """Yield (first sector, sector behind, is here) of the block at a table entry."""
        bitmap = self._kept.get(entry)
        if bitmap is None:
            bitmap = next(iter(self._read([entry])))
        if bitmap == _FULL:
            yield first, behind, True
        else:
            yield from bit_runs(bitmap, first, behind)

    def knows(self, entry: int) -> bool:
        """Return whether a bitmap is at hand."""
        return entry in self._kept

    def fetch(self, entries: Sequence[int]) -> None:
        """Read the bitmaps of blocks, all in flight at once, and keep them."""
        for _ in self._read([entry for entry in entries if entry not in self._kept]):
            pass

    def _read(self, entries: Sequence[int]) -> Iterator[bytes]:
        pieces = self._file.read_many((one * layout.SECTOR_BYTES, self._bytes) for one in entries)
        for entry in entries:
            read = b""
            while len(read) < self._bytes:  # a server may answer in smaller pieces
                read += next(pieces)[1]
            yield self._keep(entry, read)

    def _keep(self, entry: int, bitmap: bytes) -> bytes:
        if next(bit_runs(bitmap, 0, self._sectors)) == (0, self._sectors, True):
            bitmap = _FULL
        with self._lock:
            if entry not in self._kept:
                self._kept[entry] = bitmap
                self._kept_bytes += _ENTRY_COST_BYTES + len(bitmap)
            while self._kept_bytes > _CACHE_BYTES:
                oldest = next(iter(self._kept))
                self._kept_bytes -= _ENTRY_COST_BYTES + len(self._kept.pop(oldest))
        return bitmap
