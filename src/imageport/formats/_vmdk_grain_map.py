"""Remembers which sectors of a file grains take, so that no two share one."""

# References: VMware Virtual Disk Format 5.0: grains.

from __future__ import annotations

from array import array

_CHUNK_UNITS = 4096
"""8 KiB for 256 MiB of a file in grains of 64 KiB, made when a grain lies in it."""
_EMPTY = bytes(2 * _CHUNK_UNITS)


class GrainMap:
    """Which grains start where. Memory follows what is taken, not what a file claims to be.

    A file is cut into units of a grain; in each unit at most one grain can start. Its sector in
    the unit is kept, plus one.
    """

    def __init__(self, grain_sectors: int) -> None:
        self._grain = grain_sectors
        self._chunks: dict[int, array[int]] = {}

    def take(self, sector: int, count: int) -> bool:
        """Take ``count`` grains side by side; False when a sector of them is taken."""
        first, inside = divmod(sector, self._grain)
        mark = inside + 1
        if self._mark(first - 1) > mark or 0 < self._mark(first + count) < mark:
            return False
        while count:
            chunk, start = divmod(first, _CHUNK_UNITS)
            part = min(count, _CHUNK_UNITS - start)
            marks = self._chunks.get(chunk)
            if marks is None:
                marks = self._chunks[chunk] = array("H", _EMPTY)
            if any(marks[start : start + part]):
                return False
            marks[start : start + part] = array("H", [mark]) * part
            first, count = first + part, count - part
        return True

    def _mark(self, unit: int) -> int:
        marks = self._chunks.get(unit // _CHUNK_UNITS)
        return marks[unit % _CHUNK_UNITS] if marks is not None else 0
