"""The interface of a disk that arrives as a stream: read once, in order, without seeking."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Protocol

from imageport.closable import Closable


class ByteStream(Protocol):
    """Where a stream's bytes come from: an HTTP response, a pipe, a file."""

    @property
    def location(self) -> str:
        """Return where they come from, for messages; never holds a secret."""

    def read(self, length_bytes: int) -> bytes:
        """Return up to ``length_bytes``, fewer only at the end; `ExportInterrupted` when cut."""


class DiskStream(Closable):
    """A disk on its way: what comes is DATA, what does not come reads as zeros.

    One thread reads it, once. Whoever opened it closes it; closing one that was not finished gives
    up what stands behind it on the other side (a lease, a task).
    """

    location: str
    """Where it comes from, for messages; never holds a secret."""
    format_name: str
    """``vmdk-stream``, ``vhd-stream``, ``raw-stream``."""
    sector_bytes: int = 512

    @property
    @abstractmethod
    def size_bytes(self) -> int:
        """Return the size the guest sees; known before the first piece."""

    @abstractmethod
    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes), ascending without overlap, at most 1 MiB each.

        Bounded memory whatever arrives. Ends only where the format says that the disk ends.

        Raises:
            BadDisk: The bytes contradict the format.
            ExportInterrupted: They end early.
        """

    @abstractmethod
    def finish(self) -> str:
        """Prove that all came as it was sent, and say in words what was compared.

        Called once, after the last piece; releases what stands behind the stream on the other side.

        Raises:
            VerificationFailed: Size or checksum differ from what the other side says.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the connection; may be called twice."""
