"""The interface of a disk as the guest sees it, whatever file or cloud holds it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator

from imageport.closable import Closable
from imageport.model import BLOCK_BYTES, MIB, ZERO_BLOCK, Extent

PIECE_BYTES = MIB
"""Most that `VirtualDisk.read_many` yields at once."""
_ZERO_PIECE = bytes(PIECE_BYTES)


class VirtualDisk(Closable):
    """A readable disk: a VHDX file, a raw file, a chain, a cloud snapshot.

    Read-only by construction. All methods may be called from several threads. Whoever opened it
    closes it; `close` may be called twice and closes what lies below.
    """

    location: str
    """Where it lies, for messages; never holds a secret."""
    format_name: str
    """``raw``, ``vhdx``, ``ebs-snapshot`` …"""
    sector_bytes: int
    """Logical sector size the guest sees: 512 or 4096."""

    @property
    @abstractmethod
    def size_bytes(self) -> int:
        """Return the size the guest sees; a multiple of the sector size."""

    @abstractmethod
    def extents(self) -> Iterator[Extent]:
        """Yield extents that cover the whole disk once: ascending, no gap, neighbours merged."""

    @abstractmethod
    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return exactly ``length_bytes``; holes read as zeros; past the end is `InputError`."""

    def read_many(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes) in ascending order, reading ahead where that is faster.

        ``ranges`` ascend and do not overlap; pieces are at most 1 MiB.
        """
        for offset, length in ranges:
            for start in range(offset, offset + length, PIECE_BYTES):
                count = min(PIECE_BYTES, offset + length - start)
                yield start, self.read_at(start, count)

    @abstractmethod
    def content_key(self) -> str:
        """Return a text that changes whenever the content may have: identity, never a full read.

        For VHDX it includes the DataWriteGuid, for a cloud snapshot its id.
        """

    @abstractmethod
    def check_unchanged(self) -> None:
        """Raise `SourceChanged` if what lies below is no longer what was opened."""

    @abstractmethod
    def close(self) -> None:
        """Release what lies below."""


def zero_pieces(offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yield a range of zeros as `VirtualDisk.read_many` does."""
    end = offset_bytes + length_bytes
    for start in range(offset_bytes, end, PIECE_BYTES):
        count = min(PIECE_BYTES, end - start)
        # Whole blocks, as they are read back: comparing this very object costs nothing.
        yield start, ZERO_BLOCK if count == BLOCK_BYTES else _ZERO_PIECE[:count]
