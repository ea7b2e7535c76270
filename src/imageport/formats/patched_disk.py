"""A disk put together from an earlier copy of it and from what changed since."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum, auto
from typing import NamedTuple

from imageport.errors import BadDisk, InputError
from imageport.formats._extent_map import ExtentMap
from imageport.formats._extent_merge import merged
from imageport.formats.virtual_disk import VirtualDisk, zero_pieces
from imageport.model import Extent, ExtentState


class _Source(Enum):
    """Who holds a range."""

    BASE = auto()
    TOP = auto()
    NOBODY = auto()
    """Past the end of the base, outside of all areas."""


class _Part(NamedTuple):
    source: _Source
    offset: int
    length: int


class PatchedDisk(VirtualDisk):
    """``base`` with ``areas`` read from ``top``: a hypervisor told that only these changed.

    ``areas`` are (offset, length), ascending, without overlap, in whole sectors, inside ``top``,
    whose size the disk has. Past the end of a base that is smaller, what is in no area is a hole.
    Owns both disks and closes them, unless the constructor raises.

    Raises:
        BadDisk: the areas are not as said.
        InputError: sectors of two sizes, or a base that is larger than ``top``.
    """

    format_name = "patched"

    def __init__(
        self, base: VirtualDisk, top: VirtualDisk, areas: Sequence[tuple[int, int]]
    ) -> None:
        self.location = top.location
        self.sector_bytes = top.sector_bytes
        self._base = base
        self._top = top
        self._size_bytes = top.size_bytes
        self._check_disks()
        self._starts, self._ends = self._checked_areas(areas)

    @property
    def size_bytes(self) -> int:
        """Return the size of the newer disk."""
        return self._size_bytes

    def extents(self) -> Iterator[Extent]:
        """Yield what each disk says of its ranges."""
        return merged(self._cut_extents())

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return exactly ``length_bytes``, each from where it lies."""
        self._check_range(offset_bytes, length_bytes)
        found = [self._read(part) for part in self._parts(offset_bytes, length_bytes)]
        return found[0] if len(found) == 1 else b"".join(found)

    def read_many(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes) ascending; each disk reads ahead by itself across the other's."""
        return _TwoReaders(self._all_parts(ranges), self._base, self._top).pieces()

    def content_key(self) -> str:
        """Return the keys of both disks with that of the areas."""
        areas = hashlib.sha256(repr((self._starts, self._ends)).encode()).hexdigest()
        return f"patched:{areas}:{self._top.content_key()}>{self._base.content_key()}"

    def check_unchanged(self) -> None:
        """Ask both disks."""
        self._top.check_unchanged()
        self._base.check_unchanged()

    def close(self) -> None:
        """Close both disks."""
        try:
            self._top.close()
        finally:
            self._base.close()

    def _check_disks(self) -> None:
        base, top = self._base, self._top
        if base.sector_bytes != top.sector_bytes:
            raise InputError(
                f"Cannot read '{top.location}' over '{base.location}': found sectors of "
                f"{base.sector_bytes} bytes below, needed {top.sector_bytes}."
            )
        if base.size_bytes > top.size_bytes:
            raise InputError(
                f"Cannot read '{top.location}' over '{base.location}': found a base of "
                f"{base.size_bytes} bytes, needed at most {top.size_bytes}."
            )

    def _checked_areas(self, areas: Sequence[tuple[int, int]]) -> tuple[list[int], list[int]]:
        """Return the starts and ends of the areas, touching ones joined."""
        starts: list[int] = []
        ends: list[int] = []
        for offset, length in areas:
            behind = ends[-1] if ends else 0
            end = offset + length
            if offset < behind or length <= 0 or end > self._size_bytes:
                raise BadDisk(
                    f"Bad changed area of '{self.location}': found bytes {offset}..{end}, needed "
                    f"some between {behind} and {self._size_bytes}.",
                    object=self.location,
                )
            if offset % self.sector_bytes or end % self.sector_bytes:
                raise BadDisk(
                    f"Bad changed area of '{self.location}': found bytes {offset}..{end}, needed "
                    f"whole sectors of {self.sector_bytes}.",
                    object=self.location,
                )
            if ends and offset == behind:
                ends[-1] = end
            else:
                starts.append(offset)
                ends.append(end)
        return starts, ends

    def _parts(self, offset: int, length: int) -> Iterator[_Part]:
        """Cut a range by who holds it."""
        end, base_end = offset + length, self._base.size_bytes
        number = bisect_right(self._ends, offset)
        while offset < end:
            start = self._starts[number] if number < len(self._starts) else end
            if start <= offset:
                source, stop = _Source.TOP, self._ends[number]
                number += 1
            elif offset < base_end:
                source, stop = _Source.BASE, min(start, base_end)
            else:
                source, stop = _Source.NOBODY, start
            stop = min(stop, end)
            yield _Part(source, offset, stop - offset)
            offset = stop

    def _all_parts(self, ranges: Iterable[tuple[int, int]]) -> Iterator[_Part]:
        for offset, length in ranges:
            self._check_range(offset, length)
            yield from self._parts(offset, length)

    def _cut_extents(self) -> Iterator[Extent]:
        base, top = ExtentMap(self._base), ExtentMap(self._top)
        for part in self._parts(0, self._size_bytes):
            if part.source is _Source.NOBODY:
                yield Extent(part.offset, part.length, ExtentState.HOLE)
            else:
                held = base if part.source is _Source.BASE else top
                yield from held.within(part.offset, part.length)

    def _read(self, part: _Part) -> bytes:
        if part.source is _Source.NOBODY:
            return bytes(part.length)
        disk = self._base if part.source is _Source.BASE else self._top
        return disk.read_at(part.offset, part.length)

    def _check_range(self, offset_bytes: int, length_bytes: int) -> None:
        end = offset_bytes + length_bytes
        if offset_bytes < 0 or length_bytes < 0 or end > self._size_bytes:
            raise InputError(
                f"Cannot read '{self.location}': bytes {offset_bytes}..{end} were asked for, "
                f"the disk has {self._size_bytes}."
            )


class _TwoReaders:
    """Deals the parts of ranges to the readers of two disks, and gives their pieces in order.

    What a reader asks for ahead takes the other's parts out of the ranges too: these wait, as
    offsets alone, until their reader comes to them.
    """

    def __init__(self, parts: Iterator[_Part], base: VirtualDisk, top: VirtualDisk) -> None:
        self._parts = parts
        self._order: deque[_Part] = deque()
        self._waiting: dict[_Source, deque[_Part]] = {_Source.BASE: deque(), _Source.TOP: deque()}
        self._pieces = {
            _Source.BASE: base.read_many(self._ranges_of(_Source.BASE)),
            _Source.TOP: top.read_many(self._ranges_of(_Source.TOP)),
        }

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes) ascending."""
        while self._order or self._deal():
            part = self._order.popleft()
            if part.source is _Source.NOBODY:
                yield from zero_pieces(part.offset, part.length)
                continue
            done = 0
            while done < part.length:
                offset, data = next(self._pieces[part.source])
                yield offset, data
                done += len(data)

    def _ranges_of(self, source: _Source) -> Iterator[tuple[int, int]]:
        waiting = self._waiting[source]
        while waiting or self._deal():
            if waiting:
                part = waiting.popleft()
                yield part.offset, part.length

    def _deal(self) -> bool:
        """Take one more part out of the ranges; False when there is none."""
        part = next(self._parts, None)
        if part is None:
            return False
        self._order.append(part)
        if part.source in self._waiting:
            self._waiting[part.source].append(part)
        return True
