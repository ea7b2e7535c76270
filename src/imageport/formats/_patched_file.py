"""A file with some of its pages replaced in memory; the file itself stays as it is."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from imageport.model import FileIdentity
from imageport.storage.byte_file import ByteFile


class Patches:
    """Ranges of a file and what they hold instead: bytes, or zeros without a byte of memory.

    Later ones win where they overlap. Data is replaced whole or not at all: callers put pages of
    one size at multiples of it, and zeros over whole pages.
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._items: list[tuple[int, bytes | None]] = []  # (end, data)

    @property
    def end_bytes(self) -> int:
        """Return the offset behind the last patch."""
        return self._items[-1][0] if self._items else 0

    def put(self, offset: int, length: int, data: bytes | None) -> None:
        """Replace a range by ``data`` (of that length) or by zeros."""
        if not length:
            return
        end = offset + length
        first = bisect_right(self._starts, offset)
        if first and self._items[first - 1][0] > offset:
            first -= 1
        behind = bisect_left(self._starts, end)
        starts, items = [offset], [(end, data)]
        if first < behind:
            # Only zeros reach across a border; what is left of them on both sides stays.
            if self._starts[first] < offset:
                starts.insert(0, self._starts[first])
                items.insert(0, (offset, None))
            last_end = self._items[behind - 1][0]
            if last_end > end:
                starts.append(end)
                items.append((last_end, None))
        self._starts[first:behind] = starts
        self._items[first:behind] = items

    def within(self, offset: int, length: int) -> Iterator[tuple[int, bytes | None, int]]:
        """Yield (offset, bytes or None, length) of the patches in a range, cut to it."""
        end = offset + length
        index = max(0, bisect_right(self._starts, offset) - 1)
        while index < len(self._starts) and self._starts[index] < end:
            start, (stop, data) = self._starts[index], self._items[index]
            index += 1
            first, last = max(start, offset), min(stop, end)
            if first < last:
                piece = None if data is None else data[first - start : last - start]
                yield first, piece, last - first

    def stored(self) -> Iterator[tuple[int, int]]:
        """Yield (offset, length) of the patches that hold bytes."""
        for start, (end, data) in zip(self._starts, self._items, strict=True):
            if data is not None:
                yield start, end - start


class PatchedFile(ByteFile):
    """A file under patches; closes the file below. What lies past that file's end is zeros."""

    def __init__(self, file: ByteFile, patches: Patches, size_bytes: int) -> None:
        self.location = file.location
        self._file = file
        self._patches = patches
        self._size_bytes = size_bytes

    @property
    def size_bytes(self) -> int:
        """Return the size with all patches applied."""
        return self._size_bytes

    def identity(self) -> FileIdentity:
        """Return the identity of the file below: it alone can change."""
        return self._file.identity()

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return the bytes, patched."""
        inside = max(0, min(length_bytes, self._file.size_bytes - offset_bytes))
        data = self._file.read_at(offset_bytes, inside) if inside else b""
        return self._patched(offset_bytes, data + bytes(length_bytes - inside))

    def read_many(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        """Yield pieces, read ahead by the file below as long as it is as long as this one."""
        if self._size_bytes > self._file.size_bytes:
            yield from super().read_many(ranges)
            return
        for offset, data in self._file.read_many(ranges):
            yield offset, self._patched(offset, data)

    def allocated_ranges(self) -> list[tuple[int, int]]:
        """Return what the file below or a patch stores."""
        found: list[tuple[int, int]] = []
        for start, length in sorted([*self._file.allocated_ranges(), *self._patches.stored()]):
            if found and start <= sum(found[-1]):
                begin, known = found[-1]
                found[-1] = (begin, max(known, start + length - begin))
            else:
                found.append((start, length))
        return found

    def close(self) -> None:
        """Close the file below."""
        self._file.close()

    def _patched(self, offset: int, data: bytes) -> bytes:
        patched: bytearray | None = None
        for start, piece, length in self._patches.within(offset, len(data)):
            patched = bytearray(data) if patched is None else patched
            patched[start - offset : start - offset + length] = piece or bytes(length)
        return data if patched is None else bytes(patched)
