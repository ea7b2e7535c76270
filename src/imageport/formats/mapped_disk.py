"""Disks whose content lies in pieces of one file or of several: tables, chains, split disks."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from imageport.formats._extent_merge import allocated_extents, merged
from imageport.formats.disk_file import DiskFile, StoredFile
from imageport.formats.virtual_disk import PIECE_BYTES, zero_pieces
from imageport.model import MIB, Extent, ExtentState
from imageport.storage.byte_file import ByteFile

WINDOW_BYTES = 16 * MIB
"""Read ahead of a disk in several files: each file then has several reads in flight, and the
memory of one disk stays bounded."""
GAP_BYTES = 64 * 1024
"""Between two pieces of a file that are read as one: costs less than another round trip. No more
than three quarters of a read are thrown away, so a window takes at most four times its bytes."""
_FEW_PARTS = 4
"""A read of no more parts asks for each by itself."""


class Segment(NamedTuple):
    """A range of the disk in one state; DATA lies at ``place`` in ``stored``."""

    offset: int
    length: int
    state: ExtentState
    stored: StoredFile | None = None
    place: int = 0

    @property
    def end(self) -> int:
        """Return the offset just behind the segment."""
        return self.offset + self.length

    @property
    def place_end(self) -> int:
        """Return the place just behind the segment in its file."""
        return self.place + self.length

    def behind(self, count: int) -> Segment:
        """Return what is left after the first ``count`` bytes."""
        return self._replace(
            offset=self.offset + count, length=self.length - count, place=self.place + count
        )


class MappedDisk(DiskFile):
    """A disk that knows for every range in which file its bytes lie, or that they are zeros.

    A format gives `segments`; extents and reading follow from it. What a file system has not
    stored of a DATA segment is ZERO: allocated for the guest, nothing to read.
    """

    @abstractmethod
    def segments(self, offset_bytes: int, length_bytes: int) -> Iterator[Segment]:
        """Yield segments that cover the range once, ascending; the range lies in the disk.

        Neighbours may be alike; a DATA segment never spans two pieces of a file. Cheap where
        nothing is allocated: a disk of 64 TiB without data yields few.
        """

    def extents(self) -> Iterator[Extent]:
        """Yield the disk's extents, from the map and from what the file systems have stored."""
        return merged(self._stored_extents())

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return the bytes; holes read as zeros."""
        self._check_range(offset_bytes, length_bytes)
        if not length_bytes:
            return b""
        found = list(self.segments(offset_bytes, length_bytes))
        if len(found) > _FEW_PARTS:
            return b"".join(data for _, data in _from_several_files(_cut_to_pieces(found)))
        parts = [
            bytes(part.length)
            if part.stored is None
            else part.stored.file.read_at(part.place, part.length)
            for part in found
        ]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_many(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes) ascending; the files read ahead across pieces and ranges."""
        found = self._cut(ranges)
        first = next(files := self.data_files(), self._stored)
        if next(files, None) is None:
            return _from_one_file(first.file, found)
        return _from_several_files(found)

    def data_files(self) -> Iterator[StoredFile]:
        """Yield the files that segments lead to."""
        yield from self.stored_files()

    def _cut(self, ranges: Iterable[tuple[int, int]]) -> Iterator[Segment]:
        """Yield the segments of ranges; those with data have at most 1 MiB."""
        for offset, length in self._checked(ranges):
            if length:
                yield from _cut_to_pieces(self.segments(offset, length))

    def _stored_extents(self) -> Iterator[Extent]:
        for segment in self.segments(0, self.size_bytes):
            if segment.stored is None:
                yield Extent(segment.offset, segment.length, segment.state)
                continue
            shift = segment.offset - segment.place
            allocated = segment.stored.allocated()
            parts = allocated_extents(allocated, segment.place, segment.length, ExtentState.ZERO)
            for part in parts:
                yield Extent(part.offset_bytes + shift, part.length_bytes, part.state)


def _cut_to_pieces(segments: Iterable[Segment]) -> Iterator[Segment]:
    for segment in segments:
        if segment.stored is None or segment.length <= PIECE_BYTES:
            yield segment
            continue
        for start in range(0, segment.length, PIECE_BYTES):
            count = min(PIECE_BYTES, segment.length - start)
            yield segment.behind(start)._replace(length=count)


def _from_one_file(file: ByteFile, segments: Iterable[Segment]) -> Iterator[tuple[int, bytes]]:
    """Yield what segments hold, all of whose data lies in ``file``, without any window."""
    waiting: deque[Segment] = deque()

    def places() -> Iterator[tuple[int, int]]:
        for segment in segments:
            waiting.append(segment)
            if segment.stored is not None:
                yield segment.place, segment.length

    for _, data in file.read_many(places()):
        yield from _zeros_ahead(waiting)
        segment = waiting.popleft()
        yield segment.offset, data
        if len(data) < segment.length:  # a server may answer in smaller pieces
            waiting.appendleft(segment.behind(len(data)))
    yield from _zeros_ahead(waiting)


def _zeros_ahead(waiting: deque[Segment]) -> Iterator[tuple[int, bytes]]:
    while waiting and waiting[0].stored is None:
        zeros = waiting.popleft()
        yield from zero_pieces(zeros.offset, zeros.length)


def _from_several_files(segments: Iterable[Segment]) -> Iterator[tuple[int, bytes]]:
    for window in _windows(segments):
        yield from _joined(window, _Reads(window))


def _windows(segments: Iterable[Segment]) -> Iterator[list[Segment]]:
    window: list[Segment] = []
    pending = 0
    for segment in segments:
        window.append(segment)
        # Zeros take no memory; short ones count, so that a window has a bounded number of them.
        pending += segment.length if segment.stored is not None else min(segment.length, GAP_BYTES)
        if pending >= WINDOW_BYTES:
            yield window
            window, pending = [], 0
    if window:
        yield window


class _Reads:
    """The bytes of a window, read file by file; what lies close together comes in one read.

    A chain that was written here and there is made of thousands of short pieces: asked one by one
    they would cost a round trip each.
    """

    def __init__(self, window: list[Segment]) -> None:
        by_file: dict[int, tuple[StoredFile, list[Segment]]] = {}
        for segment in window:
            if segment.stored is not None:
                key = id(segment.stored)
                by_file.setdefault(key, (segment.stored, []))[1].append(segment)
        self._parts = {key: self._read(stored, wanted) for key, (stored, wanted) in by_file.items()}

    def next_of(self, segment: Segment) -> bytes | memoryview:
        """Return what a segment holds; asked once each, in the order of the window."""
        return next(self._parts[id(segment.stored)])

    @staticmethod
    def _read(stored: StoredFile, segments: list[Segment]) -> Iterator[bytes | memoryview]:
        reads = list(_close_together(segments))
        places = [(group[0].place, group[-1].place_end - group[0].place) for group in reads]
        # The file is read to the end of the window before the next one is asked.
        pieces = iter(list(stored.file.read_many(places)))
        return _cut_up(reads, places, pieces)


def _close_together(segments: list[Segment]) -> Iterator[list[Segment]]:
    """Yield runs of segments that one read brings; ascending places, little of it unwanted."""
    group = [segments[0]]
    wanted = segments[0].length
    for segment in segments[1:]:
        gap = segment.place - group[-1].place_end
        length = segment.place_end - group[0].place
        if 0 <= gap <= GAP_BYTES and length <= min(PIECE_BYTES, 4 * (wanted + segment.length)):
            group.append(segment)
            wanted += segment.length
            continue
        yield group
        group, wanted = [segment], segment.length
    yield group


def _cut_up(
    reads: list[list[Segment]],
    places: list[tuple[int, int]],
    pieces: Iterator[tuple[int, bytes]],
) -> Iterator[bytes | memoryview]:
    for group, (place, length) in zip(reads, places, strict=True):
        _, data = next(pieces)
        while len(data) < length:  # a server may answer in smaller pieces
            data += next(pieces)[1]
        if len(group) == 1:
            yield data
            continue
        view = memoryview(data)
        for segment in group:
            yield view[segment.place - place : segment.place_end - place]


def _joined(window: list[Segment], reads: _Reads) -> Iterator[tuple[int, bytes]]:
    """Yield the window's bytes; short neighbours come as one piece."""
    parts: list[bytes | memoryview] = []
    start = size = 0
    for segment in window:
        joins = segment.offset == start + size and size + segment.length <= PIECE_BYTES
        if parts and not joins:
            yield start, _one(parts)
            parts = []
        if segment.stored is None and segment.length > GAP_BYTES:
            if parts:
                yield start, _one(parts)
                parts = []
            yield from zero_pieces(segment.offset, segment.length)
            continue
        if not parts:
            start, size = segment.offset, 0
        parts.append(reads.next_of(segment) if segment.stored else bytes(segment.length))
        size += segment.length
    if parts:
        yield start, _one(parts)


def _one(parts: list[bytes | memoryview]) -> bytes:
    first = parts[0]
    return first if len(parts) == 1 and isinstance(first, bytes) else b"".join(parts)
