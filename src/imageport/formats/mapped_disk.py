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
        parts = [
            bytes(part.length)
            if part.stored is None
            else part.stored.file.read_at(part.place, part.length)
            for part in self.segments(offset_bytes, length_bytes)
        ]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_many(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes) ascending; the files read ahead across pieces and ranges."""
        found = self._cut(ranges)
        if next(files := self.stored_files(), None) is None or next(files, None) is None:
            return _from_one_file(self._file, found)
        return _from_several_files(found)

    def _cut(self, ranges: Iterable[tuple[int, int]]) -> Iterator[Segment]:
        """Yield the segments of ranges; those with data have at most 1 MiB."""
        for offset, length in self._checked(ranges):
            for segment in self.segments(offset, length):
                if segment.stored is None:
                    yield segment
                    continue
                for start in range(0, segment.length, PIECE_BYTES):
                    count = min(PIECE_BYTES, segment.length - start)
                    yield segment.behind(start)._replace(length=count)

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
        read: dict[int, Iterator[tuple[int, bytes]]] = {}
        for stored in {id(one.stored): one.stored for one in window if one.stored}.values():
            places = [(one.place, one.length) for one in window if one.stored is stored]
            # Each file is read to the end of the window before the next one is asked.
            read[id(stored)] = iter(list(stored.file.read_many(places)))
        for segment in window:
            if segment.stored is None:
                yield from zero_pieces(segment.offset, segment.length)
                continue
            done = 0
            while done < segment.length:
                _, data = next(read[id(segment.stored)])
                yield segment.offset + done, data
                done += len(data)


def _windows(segments: Iterable[Segment]) -> Iterator[list[Segment]]:
    window: list[Segment] = []
    pending = 0
    for segment in segments:
        window.append(segment)
        pending += segment.length if segment.stored is not None else 0
        if pending >= WINDOW_BYTES:
            yield window
            window, pending = [], 0
    if window:
        yield window
