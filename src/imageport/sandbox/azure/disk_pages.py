"""Which pages of a disk were written: exact, in memory, and kept on disk as they change."""

from __future__ import annotations

import os
import struct
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path

PAGE_BYTES = 512
"""A page blob's unit (Put Page)."""
_RECORD = struct.Struct("<BQQ")
_WRITTEN, _CLEARED = 1, 0


class PageMap:
    """Byte ranges that never touch each other, ascending."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in ranges:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """Count ``start`` ≤ byte < ``end`` as written."""
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def remove(self, start: int, end: int) -> None:
        """Count ``start`` ≤ byte < ``end`` as never written."""
        first = bisect_right(self._ends, start)
        last = bisect_left(self._starts, end)
        if first >= last:
            return
        kept = []
        if self._starts[first] < start:
            kept.append((self._starts[first], start))
        if self._ends[last - 1] > end:
            kept.append((end, self._ends[last - 1]))
        self._starts[first:last] = [item[0] for item in kept]
        self._ends[first:last] = [item[1] for item in kept]

    def within(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the written ranges of ``start`` ≤ byte < ``end``, cut to it."""
        index = bisect_right(self._ends, start)
        while index < len(self._starts) and self._starts[index] < end:
            yield max(start, self._starts[index]), min(end, self._ends[index])
            index += 1

    def written_bytes(self) -> int:
        """Return how many bytes are written."""
        return sum(self._ends) - sum(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._starts, self._ends, strict=True)))


class KeptPageMap:
    """A page map whose changes are appended to a file: it outlives a killed service."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._map = PageMap()
        if path.exists():
            self._replay(path.read_bytes())
        self._fd = -1
        self.replace(list(self._map))

    def add(self, start: int, end: int) -> None:
        """Count ``start`` ≤ byte < ``end`` as written."""
        with self._lock:
            self._map.add(start, end)
            os.write(self._fd, _RECORD.pack(_WRITTEN, start, end))

    def remove(self, start: int, end: int) -> None:
        """Count ``start`` ≤ byte < ``end`` as never written."""
        with self._lock:
            self._map.remove(start, end)
            os.write(self._fd, _RECORD.pack(_CLEARED, start, end))

    def replace(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Start anew with these ranges."""
        with self._lock:
            self._map = PageMap(ranges)
            part = self._path.with_suffix(".part")
            part.write_bytes(b"".join(_RECORD.pack(_WRITTEN, *item) for item in self._map))
            part.rename(self._path)
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND)

    def within(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the written ranges of ``start`` ≤ byte < ``end``, cut to it."""
        with self._lock:
            return list(self._map.within(start, end))

    def all(self) -> list[tuple[int, int]]:
        """Return every written range."""
        with self._lock:
            return list(self._map)

    def written_bytes(self) -> int:
        """Return how many bytes are written."""
        with self._lock:
            return self._map.written_bytes()

    def close(self) -> None:
        """Close the file; may be called twice."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def _replay(self, packed: bytes) -> None:
        whole = len(packed) - len(packed) % _RECORD.size  # a kill may tear the last record
        for kind, start, end in _RECORD.iter_unpack(packed[:whole]):
            if kind == _WRITTEN:
                self._map.add(start, end)
            else:
                self._map.remove(start, end)
