"""The interface of a file that is read and written by byte ranges."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator

from imageport.closable import Closable
from imageport.model import FileIdentity


class ByteFile(Closable):
    """A file opened for reading.

    Opened without an oplock and, where asked, denying writers. All methods may be called from
    several threads. Whoever opened it closes it; ``close`` may be called twice. A dropped
    connection is re-established by the implementation, which then checks that the identity is
    still the one it opened; a difference raises `SourceChanged`.
    """

    location: str
    """Where it lies, for messages; never holds a secret."""

    @property
    @abstractmethod
    def size_bytes(self) -> int:
        """Return the size at the time of opening."""

    @abstractmethod
    def identity(self) -> FileIdentity:
        """Ask the file system again; compare with an earlier answer to detect change."""

    @abstractmethod
    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return exactly ``length_bytes``; `SourceChanged` when the file ends before that."""

    @abstractmethod
    def allocated_ranges(self) -> list[tuple[int, int]]:
        """Return (offset, length) of what the file system has stored, ascending, disjoint.

        A file system that cannot tell answers with the whole file.
        """

    def read_many(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes) for each range in order, reading ahead where that is faster.

        Implementations split large ranges into pieces of at most 1 MiB.
        """
        piece_bytes = 1024 * 1024
        for offset, length in ranges:
            for start in range(offset, offset + length, piece_bytes):
                count = min(piece_bytes, offset + length - start)
                yield start, self.read_at(start, count)

    @abstractmethod
    def close(self) -> None:
        """Release the handle."""


class WritableFile(ByteFile):
    """A file opened for writing as well; nobody else may open it meanwhile.

    Writing past the end extends it. Nothing is durable before `flush` returned.
    """

    @abstractmethod
    def write_at(self, offset_bytes: int, data: bytes | memoryview) -> None:
        """Write all of ``data``; `ShareFull` when there is no room. Thread-safe."""

    @abstractmethod
    def set_size(self, size_bytes: int) -> None:
        """Cut or extend (with a hole where the file system can)."""

    @abstractmethod
    def set_sparse(self) -> None:
        """Ask the file system to keep holes; without the mark no server tells where they are."""

    @abstractmethod
    def flush(self) -> None:
        """Make everything written durable."""
