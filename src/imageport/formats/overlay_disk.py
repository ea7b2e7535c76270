"""A disk that is written beside its base: what changes lies in a local file, the base stays.

The compositing engine writes to a vDisk on a share in this way: no copy of the image is made, and
what was written is read back, uploaded or published as one disk.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from imageport.errors import InputError, ShareFull
from imageport.formats._cluster_map import CLUSTER_BYTES, ClusterMap, ClusterState
from imageport.formats._extent_map import ExtentMap
from imageport.formats._extent_merge import merged
from imageport.formats.virtual_disk import VirtualDisk, zero_pieces
from imageport.model import Extent, ExtentState
from imageport.storage.byte_file import WritableFile

_ZEROS = bytes(CLUSTER_BYTES)


@dataclass(frozen=True, slots=True)
class _Part:
    """A range of the disk that one place holds."""

    state: ClusterState
    offset: int
    length: int


class OverlayDisk(VirtualDisk):
    """``base`` with changes in ``file``, which is taken over and closed; the base is not.

    Clusters of 64 KiB are copied on their first partial write, into a sparse file as long as the
    disk. What was written as zeros is ZERO, also where the base has a hole: the guest relies on it.
    Reads and writes may come from several threads; as on any disk, what a read sees of a write
    under way is not said.

    ``key`` names what is written, for `content_key`: whoever gives the same key twice says that the
    content is the same, and answers for blocks that differ. Without one no other overlay is equal.
    """

    def __init__(self, base: VirtualDisk, file: WritableFile, *, key: str = "") -> None:
        self.location = base.location
        self.format_name = "overlay"
        self.sector_bytes = base.sector_bytes
        self._base = base
        self._file = file
        self._key = key or uuid.uuid4().hex
        self._below = ExtentMap(base)
        self._clusters = ClusterMap(base.size_bytes)
        self._writing = threading.Lock()
        self._written(lambda: file.set_size(base.size_bytes))

    @property
    def size_bytes(self) -> int:
        """Return the size of the base."""
        return self._base.size_bytes

    def extents(self) -> Iterator[Extent]:
        """Yield the base's extents with the written ones over them."""
        return merged(self.within(0, self.size_bytes))

    def within(self, offset_bytes: int, length_bytes: int) -> Iterator[Extent]:
        """Yield the extents of a range as they are now, cut to it; neighbours may be alike."""
        for part in self._parts([(offset_bytes, length_bytes)]):
            if part.state is ClusterState.BASE:
                yield from self._below.within(part.offset, part.length)
            else:
                written = part.state is ClusterState.WRITTEN
                state = ExtentState.DATA if written else ExtentState.ZERO
                yield Extent(part.offset, part.length, state)

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return exactly ``length_bytes``, each from where it lies."""
        self._check(offset_bytes, length_bytes)
        pieces = []
        for part in self._parts([(offset_bytes, length_bytes)]):
            if part.state is ClusterState.BASE:
                pieces.append(self._base.read_at(part.offset, part.length))
            elif part.state is ClusterState.WRITTEN:
                pieces.append(self._file.read_at(part.offset, part.length))
            else:
                pieces.append(bytes(part.length))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_many(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes), reading ahead as the base does between what was written."""
        for state, parts in groupby(self._parts(self._checked(ranges)), lambda part: part.state):
            pairs = ((part.offset, part.length) for part in parts)
            if state is ClusterState.BASE:
                yield from self._base.read_many(pairs)
            elif state is ClusterState.WRITTEN:
                yield from self._file.read_many(pairs)
            else:
                for offset, length in pairs:
                    yield from zero_pieces(offset, length)

    def write_at(self, offset_bytes: int, data: bytes | memoryview) -> None:
        """Write all of ``data``; `ShareFull` when this machine has no room for it."""
        view = memoryview(data).cast("B")
        self._check(offset_bytes, len(view))
        with self._writing:
            for index, start, end in _clusters_of(offset_bytes, len(view)):
                first = start - offset_bytes
                self._write_cluster(index, start, view[first : first + end - start])

    def write_zeroes(self, offset_bytes: int, length_bytes: int) -> None:
        """Make a range read as zeros; whole clusters cost no room."""
        self._check(offset_bytes, length_bytes)
        with self._writing:
            for index, start, end in _clusters_of(offset_bytes, length_bytes):
                if end - start == self._length(index):
                    self._clusters.set(index, ClusterState.ZEROED)
                else:
                    self._write_cluster(index, start, memoryview(_ZEROS)[: end - start])

    def trim(self, offset_bytes: int, length_bytes: int) -> None:
        """Forget a range: its whole clusters read as zeros, which no other content could show.

        The guest may expect anything there afterwards; zeros make equal runs give equal disks.
        """
        self._check(offset_bytes, length_bytes)
        with self._writing:
            for index, start, end in _clusters_of(offset_bytes, length_bytes):
                if end - start == self._length(index):
                    self._clusters.set(index, ClusterState.ZEROED)

    def pin(self, offset_bytes: int, length_bytes: int) -> None:
        """Turn the clusters of a range into DATA that reads as before, whatever they were."""
        self._check(offset_bytes, length_bytes)
        with self._writing:
            for index, _, _ in _clusters_of(offset_bytes, length_bytes):
                if self._clusters.get(index) is not ClusterState.WRITTEN:
                    self._store(index, self._content(index), keep_zeros=True)

    def written_ranges(self) -> Iterator[tuple[int, int]]:
        """Yield (offset, length) of everything that does not come from the base; ascending."""
        for part in self._parts([(0, self.size_bytes)]):
            if part.state is not ClusterState.BASE:
                yield part.offset, part.length

    def flush(self) -> None:
        """Make everything written durable; `ShareFull` when it turns out that there is no room."""
        self._written(self._file.flush)

    def content_key(self) -> str:
        """Return the base's key with that of the changes."""
        return f"overlay:{self._key}:{self._base.content_key()}"

    def check_unchanged(self) -> None:
        """Raise `SourceChanged` if the base is no longer what was opened."""
        self._base.check_unchanged()

    def close(self) -> None:
        """Release the file with the changes; the base stays open."""
        self._file.close()

    def _write_cluster(self, index: int, start: int, data: memoryview) -> None:
        if len(data) == self._length(index):
            self._store(index, data)
        elif self._clusters.get(index) is ClusterState.WRITTEN:
            self._written(lambda: self._file.write_at(start, data))
        else:
            content = self._content(index)
            first = start - index * CLUSTER_BYTES
            content[first : first + len(data)] = data
            self._store(index, content)

    def _content(self, index: int) -> bytearray:
        """Return a cluster that is not in the file."""
        if self._clusters.get(index) is ClusterState.ZEROED:
            return bytearray(self._length(index))
        return bytearray(self._base.read_at(index * CLUSTER_BYTES, self._length(index)))

    def _store(self, index: int, data: bytearray | memoryview, *, keep_zeros: bool = False) -> None:
        """Put a whole cluster into the file; the state last, so that a reader never sees half."""
        if not keep_zeros and data == memoryview(_ZEROS)[: len(data)]:
            self._clusters.set(index, ClusterState.ZEROED)
            return
        view = memoryview(data)
        self._written(lambda: self._file.write_at(index * CLUSTER_BYTES, view))
        self._clusters.set(index, ClusterState.WRITTEN)

    def _written(self, action: Callable[[], None]) -> None:
        try:
            action()
        except ShareFull as error:
            raise ShareFull(
                f"Cannot keep the changes of '{self.location}' in '{self._file.location}': "
                f"no room is left on this machine.",
                hint="Free space in that folder, or take another one: TMPDIR of the worker, "
                "--work of `imageport prepare`. The image itself was not touched.",
                object=self._file.location,
            ) from error

    def _parts(self, ranges: Iterable[tuple[int, int]]) -> Iterator[_Part]:
        for offset, length in ranges:
            end = offset + length
            for first, behind, state in self._clusters.runs(offset, end):
                start = max(offset, first)
                yield _Part(state, start, min(end, behind) - start)

    def _length(self, index: int) -> int:
        return min(CLUSTER_BYTES, self.size_bytes - index * CLUSTER_BYTES)

    def _checked(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        for offset, length in ranges:
            self._check(offset, length)
            yield offset, length

    def _check(self, offset_bytes: int, length_bytes: int) -> None:
        end = offset_bytes + length_bytes
        if offset_bytes < 0 or length_bytes < 0 or end > self.size_bytes:
            raise InputError(
                f"Cannot reach bytes {offset_bytes}..{end} of '{self.location}': "
                f"the disk has {self.size_bytes}."
            )


def _clusters_of(offset: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Yield (cluster, first byte, byte behind the last) of a range."""
    start, end = offset, offset + length
    while start < end:
        index = start // CLUSTER_BYTES
        stop = min(end, (index + 1) * CLUSTER_BYTES)
        yield index, start, stop
        start = stop
