"""Reading blocks of a disk: only where there is data, in order, several reads ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import BLOCK_BYTES, ExtentState


class BlockReader:
    """Yields the blocks of a disk that hold data; what is not DATA in them is filled with zeros."""

    def __init__(self, disk: VirtualDisk, is_done: Callable[[int], bool]) -> None:
        self.bytes_read = 0
        self._disk = disk
        self._is_done = is_done

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Yield (index, BLOCK_BYTES) for every block with data that is not done yet."""
        current, buffer = -1, bytearray()
        for start, piece in self._disk.read_many(self._ranges()):
            self.bytes_read += len(piece)
            offset, view = start, memoryview(piece)
            while view:
                index, inside = divmod(offset, BLOCK_BYTES)
                count = min(len(view), BLOCK_BYTES - inside)
                if index != current and current >= 0:
                    yield current, bytes(buffer)
                    current = -1
                if count == BLOCK_BYTES:
                    # A piece that is one block stays what it is: shared, and its digest with it.
                    yield index, piece if len(piece) == count else bytes(view[:count])
                else:
                    if current < 0:
                        current, buffer = index, bytearray(BLOCK_BYTES)
                    buffer[inside : inside + count] = view[:count]
                offset, view = offset + count, view[count:]
        if current >= 0:
            yield current, bytes(buffer)

    def _ranges(self) -> Iterator[tuple[int, int]]:
        for extent in self._disk.extents():
            if extent.state is ExtentState.DATA:
                yield from self._open_parts(extent.offset_bytes, extent.end_bytes)

    def _open_parts(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield what of the range lies in blocks that are not done, in pieces as long as can be."""
        open_from = -1
        while start < end:
            block_end = min(end, (start // BLOCK_BYTES + 1) * BLOCK_BYTES)
            if self._is_done(start // BLOCK_BYTES):
                if open_from >= 0:
                    yield open_from, start - open_from
                open_from = -1
            elif open_from < 0:
                open_from = start
            start = block_end
        if open_from >= 0:
            yield open_from, end - open_from
