"""A stream's pieces put together to blocks, and the blocks of the disk that they change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from imageport.errors import BadDisk
from imageport.formats.disk_stream import DiskStream
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import BLOCK_BYTES
from imageport.transfer.reader import BlockReader


@dataclass(frozen=True, slots=True)
class ArrivedBlock:
    """A block of which at least a part arrived; ``gaps`` are (offset inside, length) that did not.

    ``data`` has BLOCK_BYTES, zeros in the gaps and past the disk's end, which is no gap.
    """

    index: int
    data: bytes
    gaps: tuple[tuple[int, int], ...] = ()


class ArrivedBlocks:
    """Cuts and joins the pieces of one stream; holds one block of them."""

    def __init__(self, stream: DiskStream) -> None:
        self.bytes_arrived = 0
        self._stream = stream
        self._size_bytes = stream.size_bytes

    def blocks(self) -> Iterator[ArrivedBlock]:
        """Yield every block of which something came, ascending.

        Raises:
            BadDisk: A piece overlaps the one before it, lies before it or outside of the disk.
        """
        part: _Part | None = None
        for start, piece in self._checked_pieces():
            offset, view = start, memoryview(piece)
            while view:
                index, inside = divmod(offset, BLOCK_BYTES)
                count = min(len(view), BLOCK_BYTES - inside)
                if part is not None and part.index != index:
                    yield part.arrived(self._end_of(part.index))
                    part = None
                if count == BLOCK_BYTES:
                    yield ArrivedBlock(index, bytes(view[:count]))
                else:
                    part = part or _Part(index)
                    part.add(inside, view[:count])
                offset, view = offset + count, view[count:]
        if part is not None:
            yield part.arrived(self._end_of(part.index))

    def _checked_pieces(self) -> Iterator[tuple[int, bytes]]:
        behind = 0
        for offset, piece in self._stream.pieces():
            end = offset + len(piece)
            if offset < behind or end > self._size_bytes:
                raise BadDisk(
                    f"Bad stream '{self._stream.location}': found bytes {offset}..{end}, needed "
                    f"some between {behind} and {self._size_bytes}.",
                    object=self._stream.location,
                )
            behind = end
            self.bytes_arrived += len(piece)
            yield offset, piece

    def _end_of(self, index: int) -> int:
        return min(BLOCK_BYTES, self._size_bytes - index * BLOCK_BYTES)


class _Part:
    """A block that is still arriving."""

    def __init__(self, index: int) -> None:
        self.index = index
        self._buffer = bytearray(BLOCK_BYTES)
        self._gaps: list[tuple[int, int]] = []
        self._filled_to = 0

    def add(self, inside: int, view: memoryview) -> None:
        self._open_gap(inside)
        self._filled_to = inside + len(view)
        self._buffer[inside : self._filled_to] = view

    def arrived(self, end: int) -> ArrivedBlock:
        self._open_gap(end)
        return ArrivedBlock(self.index, bytes(self._buffer), tuple(self._gaps))

    def _open_gap(self, until: int) -> None:
        if self._filled_to < until:
            self._gaps.append((self._filled_to, until - self._filled_to))


class BaseBlocks:
    """The disk below a stream of changes: its blocks in order, one ahead of who asks.

    Read with the base's own read-ahead, blocks that change with the others: what changes is little.
    """

    def __init__(self, base: VirtualDisk | None, is_skipped: Callable[[int], bool]) -> None:
        self._base = base
        self._reader = BlockReader(base, is_skipped) if base is not None else None
        self._blocks = self._reader.blocks() if self._reader is not None else iter(())
        self._ahead = next(self._blocks, None)
        self._bytes_filled_in = 0

    @property
    def bytes_read(self) -> int:
        """Return how many bytes of the base were read."""
        return self._bytes_filled_in + (self._reader.bytes_read if self._reader else 0)

    def take(self, index: int) -> bytes | None:
        """Return the data of a block, None where the base has none or it is skipped.

        Asked in ascending order, of every block.
        """
        while self._ahead is not None and self._ahead[0] < index:
            self._ahead = next(self._blocks, None)
        if self._ahead is None or self._ahead[0] > index:
            return None
        data = self._ahead[1]
        self._ahead = next(self._blocks, None)
        return data

    def filled_in(self, arrived: ArrivedBlock) -> bytes:
        """Return a block with the base's content in its gaps; takes the base's block."""
        below = self.take(arrived.index)
        if self._base is None or not arrived.gaps:
            return arrived.data
        block = bytearray(arrived.data)
        for inside, length in arrived.gaps:
            if below is None:
                content = self._read(arrived.index * BLOCK_BYTES + inside, length)
            else:
                content = below[inside : inside + length]
            block[inside : inside + len(content)] = content
        return bytes(block)

    def _read(self, offset: int, length: int) -> bytes:
        """Read what of a range the base has: it may end before."""
        if self._base is None or (count := min(length, self._base.size_bytes - offset)) <= 0:
            return b""
        self._bytes_filled_in += count
        return self._base.read_at(offset, count)
