"""Disks whose file holds compressed units: qcow2 clusters, grains of a stream-optimized VMDK."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

from imageport.errors import BadDisk
from imageport.formats._extent_merge import allocated_extents, merged
from imageport.formats._unpack_ahead import Pieces, in_order, joined
from imageport.formats.disk_file import DiskFile
from imageport.formats.virtual_disk import PIECE_BYTES, zero_pieces
from imageport.model import MIB, Extent, ExtentState
from imageport.storage.byte_file import ByteFile

_KEPT_BYTES = 8 * MIB
"""Unpacked units that `PackedDisk.read_at` keeps: whoever reads sectors one after the other (NBD,
libguestfs) would otherwise unpack each unit many times."""
_GAP_BYTES = 64 * 1024
"""Bytes that are read for nothing, at most, to get two units by one read."""


class PackedPart(NamedTuple):
    """A range of the disk in one state; DATA lies at ``place`` in the file.

    With ``stored_bytes`` it is a compressed unit: that many bytes at most hold it.
    """

    offset: int
    length: int
    state: ExtentState
    place: int = 0
    stored_bytes: int = 0

    @property
    def end(self) -> int:
        """Return the offset just behind the part."""
        return self.offset + self.length


class PackedDisk(DiskFile):
    """A disk in one file that holds some or all of its content in compressed units.

    A format gives `parts` and `unpack`; reading sequentially unpacks in threads, ahead and in
    order. Memory is bounded by a few MiB, whatever the units inflate to.
    """

    def __init__(self, file: ByteFile) -> None:
        super().__init__(file)
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._keeping = threading.Lock()

    @abstractmethod
    def parts(self, offset_bytes: int, length_bytes: int) -> Iterator[PackedPart]:
        """Yield parts that cover the range, ascending, without overlap.

        Compressed units come whole, so that the first and the last may reach out of the range;
        other parts are cut to it. Cheap where nothing is allocated.
        """

    @abstractmethod
    def unpack(self, unit: PackedPart, stored: memoryview) -> bytes:
        """Return a unit's ``length`` bytes; called in several threads. `BadDisk` if it cannot."""

    def extents(self) -> Iterator[Extent]:
        """Yield the disk's extents; compressed units are DATA, whatever is in them."""
        return merged(self._stored_extents())

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return the bytes; holes read as zeros."""
        self._check_range(offset_bytes, length_bytes)
        if not length_bytes:
            return b""
        end = offset_bytes + length_bytes
        found = []
        for part in self.parts(offset_bytes, length_bytes):
            if part.state is not ExtentState.DATA:
                found.append(bytes(part.length))
            elif part.stored_bytes:
                start, stop = max(part.offset, offset_bytes), min(part.end, end)
                found.append(self._unpacked(part)[start - part.offset : stop - part.offset])
            else:
                found.append(self._file.read_at(part.place, part.length))
        return found[0] if len(found) == 1 else b"".join(found)

    def read_many(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes) ascending; the file reads ahead, threads unpack ahead."""
        return in_order(self._jobs(ranges))

    def _stored_extents(self) -> Iterator[Extent]:
        taken = 0
        for part in self.parts(0, self.size_bytes):
            if part.state is not ExtentState.DATA or part.stored_bytes:
                yield Extent(part.offset, part.length, part.state)
                continue
            taken += part.length
            self._check_taken(taken)
            shift = part.offset - part.place
            allocated = self._stored.allocated()
            for one in allocated_extents(allocated, part.place, part.length, ExtentState.ZERO):
                yield Extent(one.offset_bytes + shift, one.length_bytes, one.state)

    def _check_taken(self, taken_bytes: int) -> None:
        """Refuse units that share places: a small file would be an endless disk."""
        if taken_bytes > self._file.size_bytes:
            raise BadDisk(
                f"Bad {self.format_name} '{self.location}': found {taken_bytes} bytes of disk in a "
                f"file of {self._file.size_bytes} bytes, needed a place of its own for each.",
                object=self.location,
            )

    def _unpacked(self, unit: PackedPart) -> bytes:
        with self._keeping:
            if unit.place in self._kept:
                self._kept.move_to_end(unit.place)
                return self._kept[unit.place]
        content = self.unpack(unit, memoryview(self._file.read_at(unit.place, unit.stored_bytes)))
        with self._keeping:
            self._kept[unit.place] = content
            while len(self._kept) * unit.length > _KEPT_BYTES and len(self._kept) > 1:
                self._kept.popitem(last=False)
        return content

    def _jobs(self, ranges: Iterable[tuple[int, int]]) -> Iterator[Callable[[], Pieces] | Pieces]:
        """Yield what is to be done for each batch, once its bytes were read."""
        waiting: deque[_Batch] = deque()

        def places() -> Iterator[tuple[int, int]]:
            for batch in self._batches(ranges):
                waiting.append(batch)
                if batch.stored_bytes:
                    yield batch.place, batch.stored_bytes

        read: list[bytes] = []
        for _, data in self._file.read_many(places()):
            while not waiting[0].stored_bytes:
                yield waiting.popleft().zeros()
            read.append(data)
            if sum(map(len, read)) == waiting[0].stored_bytes:
                yield self._job(waiting.popleft(), read)
                read = []
        for batch in waiting:
            yield batch.zeros()

    def _job(self, batch: _Batch, read: list[bytes]) -> Callable[[], Pieces] | Pieces:
        data = read[0] if len(read) == 1 else b"".join(read)
        first = batch.parts[0]
        return (
            partial(self._unpack_batch, batch, data)
            if first.stored_bytes
            else [(first.offset, data)]
        )

    def _unpack_batch(self, batch: _Batch, data: bytes) -> Pieces:
        view = memoryview(data)

        def contents() -> Iterator[tuple[int, bytes]]:
            for unit in batch.parts:
                at = unit.place - batch.place
                content = self.unpack(unit, view[at : at + unit.stored_bytes])
                start, stop = max(unit.offset, batch.start), min(unit.end, batch.end)
                yield start, content[start - unit.offset : stop - unit.offset]

        return joined(contents())

    def _batches(self, ranges: Iterable[tuple[int, int]]) -> Iterator[_Batch]:
        """Cut ranges into batches of at most 1 MiB, unless one unit alone is larger."""
        for offset, length in self._checked(ranges):
            batch: _Batch | None = None
            for part in self.parts(offset, length):
                if batch is not None and batch.takes(part):
                    batch.add(part)
                    continue
                if batch is not None:
                    yield batch
                batch = None
                if part.stored_bytes:
                    batch = _Batch(offset, offset + length, part)
                else:
                    yield from _plain_batches(part)
            if batch is not None:
                yield batch


def _plain_batches(part: PackedPart) -> Iterator[_Batch]:
    """Yield a part as it is, cut to pieces if it has bytes in the file."""
    if part.state is not ExtentState.DATA:
        yield _Batch(part.offset, part.end, part)
        return
    for start in range(0, part.length, PIECE_BYTES):
        count = min(PIECE_BYTES, part.length - start)
        piece = part._replace(offset=part.offset + start, length=count, place=part.place + start)
        yield _Batch(piece.offset, piece.end, piece)


class _Batch:
    """Parts that one read of the file brings; ``start`` and ``end`` are those of the request."""

    def __init__(self, start: int, end: int, part: PackedPart) -> None:
        self.start, self.end = start, end
        self.parts = [part]
        self.place = part.place
        self.stored_bytes = part.stored_bytes
        self._bytes = part.length
        if part.state is ExtentState.DATA and not part.stored_bytes:
            self.stored_bytes = part.length

    def takes(self, part: PackedPart) -> bool:
        """Return whether a unit lies close enough to come by the same read."""
        if not part.stored_bytes or self._bytes + part.length > PIECE_BYTES:
            return False
        behind = self.place + self.stored_bytes
        near = self.place <= part.place <= behind + _GAP_BYTES
        return near and part.place + part.stored_bytes - self.place <= PIECE_BYTES

    def add(self, part: PackedPart) -> None:
        """Take one more unit."""
        self.parts.append(part)
        self.stored_bytes = max(self.stored_bytes, part.place + part.stored_bytes - self.place)
        self._bytes += part.length

    def zeros(self) -> Pieces:
        """Yield the zeros of a batch without data."""
        part = self.parts[0]
        return zero_pieces(part.offset, part.length)
