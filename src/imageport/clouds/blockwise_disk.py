"""A disk of which a cloud stores whole blocks: extents and ranges made of them."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator

from imageport.errors import InputError
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import BLOCK_BYTES, ZERO_BLOCK, Extent, ExtentState


class BlockwiseDisk(VirtualDisk):
    """Stored blocks are DATA, everything else is HOLE: such a cloud knows no third state."""

    @abstractmethod
    def stored_blocks(self) -> Iterator[int]:
        """Yield the indexes of the blocks that are stored, ascending."""

    @abstractmethod
    def read_blocks(self, indexes: Iterable[int]) -> Iterator[tuple[int, bytes | None]]:
        """Yield (index, block) in the order given, reading ahead; None where none is stored."""

    def extents(self) -> Iterator[Extent]:
        """Yield extents from the stored blocks."""
        start = end = 0
        for index in self.stored_blocks():
            offset = index * BLOCK_BYTES
            if offset != end:
                if end > start:
                    yield Extent(start, end - start, ExtentState.DATA)
                yield Extent(end, offset - end, ExtentState.HOLE)
                start = offset
            end = offset + BLOCK_BYTES
        if end > start:
            yield Extent(start, end - start, ExtentState.DATA)
        if end < self.size_bytes:
            yield Extent(end, self.size_bytes - end, ExtentState.HOLE)

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Read the blocks that the range touches."""
        pieces = [data for _, data in self.read_many([(offset_bytes, length_bytes)])]
        return b"".join(pieces)

    def read_many(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        """Yield pieces of at most one block, in order."""
        wanted: deque[tuple[int, int]] = deque()

        def indexes() -> Iterator[int]:
            for offset, length in ranges:
                self._check_range(offset, length)
                place = offset
                while place < offset + length:
                    index = place // BLOCK_BYTES
                    stop = min(offset + length, (index + 1) * BLOCK_BYTES)
                    wanted.append((place, stop))
                    yield index
                    place = stop

        for index, block in self.read_blocks(indexes()):
            place, stop = wanted.popleft()
            base = index * BLOCK_BYTES
            data = ZERO_BLOCK if block is None else block
            whole = stop - place == BLOCK_BYTES
            yield place, data if whole else data[place - base : stop - base]

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size_bytes:
            raise InputError(
                f"Cannot read '{self.location}': range {offset}+{length} lies outside "
                f"{self.size_bytes} bytes."
            )
