"""Reads the sector bitmaps of a differencing VHDX: which sectors of a block the file holds."""

# References: [MS-VHDX] 2.4 blocks (bit order), 2.5.1.1 PAYLOAD_BLOCK_PARTIALLY_PRESENT.

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from functools import lru_cache

from imageport.formats import _vhdx_layout as layout
from imageport.storage.byte_file import ByteFile

_PIECE_BYTES = 64 * 1024
"""Of a bitmap read at once: the bits of 256 MiB of disk in sectors of 512 bytes."""
_KEPT_PIECES = 4
"""256 KiB a file: reading in order needs one piece, and a chain may have 256 files."""
MOST_KEPT_BYTES = _KEPT_PIECES * _PIECE_BYTES
_PRESENT = re.compile("1+")


class SectorBitmaps:
    """The bitmaps of one file, read piece by piece and kept in bounded memory; thread-safe."""

    def __init__(self, file: ByteFile, geometry: layout.Geometry, bat: array[int]) -> None:
        self._geometry = geometry
        self._bat = bat
        self._piece = lru_cache(_KEPT_PIECES)(
            lambda place: file.read_at(place, _PIECE_BYTES)  # never holds self: no cycle
        )

    def runs(self, block: int, first: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """Yield (first sector, end sector, whether the file holds it) of a part of a block.

        Sectors count from the block's start; ``first`` < ``end`` lie in the block.
        """
        width = end - first
        bits = self._bits(block, first, end)
        if not bits or bits == (1 << width) - 1:
            yield first, end, bool(bits)
            return
        # Text of the bits, lowest sector first: found by the regex engine, run by run.
        text = f"{bits:0{width}b}"[::-1]
        at = 0
        for run in _PRESENT.finditer(text):
            start, stop = run.span()
            if start > at:
                yield first + at, first + start, False
            yield first + start, first + stop, True
            at = stop
        if at < width:
            yield first + at, end, False

    def _bits(self, block: int, first: int, end: int) -> int:
        """Return the sectors' bits as a number, the first sector lowest."""
        geometry = self._geometry
        chunk, inside = divmod(block, geometry.chunk_ratio)
        bitmap = self._bat[geometry.bitmap_index(chunk)] & layout.BAT_OFFSET_MASK
        shift = inside * (geometry.block_bytes // geometry.sector_bytes)
        start, stop = (shift + first) // 8, -(-(shift + end) // 8)
        parts = []
        for at in range(start - start % _PIECE_BYTES, stop, _PIECE_BYTES):
            piece = self._piece(bitmap + at)
            parts.append(piece[max(start - at, 0) : stop - at])
        number = int.from_bytes(b"".join(parts), "little") >> (shift + first) % 8
        return number & ((1 << end - first) - 1)
