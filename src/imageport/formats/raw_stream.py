"""Reads a raw disk as it arrives; what is zeros is left out."""

from __future__ import annotations

from collections.abc import Iterator

from imageport.errors import BadDisk, ExportInterrupted
from imageport.formats.disk_stream import ByteStream, DiskStream
from imageport.formats.virtual_disk import PIECE_BYTES

_UNIT_BYTES = 64 * 1024
"""Zeros are left out in whole units of this: one comparison each, which stops at the first byte
that is none, so that a disk full of data costs nothing."""
_ZEROS = bytes(_UNIT_BYTES)


class RawStream(DiskStream):
    """A raw disk of a size that is known beforehand; the stream itself does not tell it.

    Does not close ``source``: that is whose connection it is. What comes after the disk's end is
    not read. Raises `BadDisk` when the size is no multiple of 512.
    """

    format_name = "raw-stream"

    def __init__(self, source: ByteStream, size_bytes: int) -> None:
        self.location = source.location
        self._source = source
        self._size_bytes = size_bytes
        self._position = 0
        if size_bytes <= 0 or size_bytes % self.sector_bytes:
            raise BadDisk(
                f"Bad raw disk '{self.location}': found {size_bytes} bytes, needed a multiple of "
                f"{self.sector_bytes}.",
                object=self.location,
            )

    @property
    def size_bytes(self) -> int:
        """Return the size that was given."""
        return self._size_bytes

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes), ascending, at most 1 MiB each, without zeros of 64 KiB and more.

        Raises:
            ExportInterrupted: The stream ends before the disk.
        """
        while self._position < self._size_bytes:
            start = self._position
            wanted = min(PIECE_BYTES, self._size_bytes - start)
            data = self._source.read(wanted)
            self._position += len(data)
            if len(data) < wanted:
                raise ExportInterrupted(
                    f"Cannot go on reading '{self.location}': it ended after {self._position} of "
                    f"{self._size_bytes} bytes.",
                    object=self.location,
                )
            for at, end in _filled(data):
                yield start + at, data[at:end]

    def finish(self) -> str:
        """Say what was compared; `BadDisk` when the end was not reached."""
        if self._position < self._size_bytes:
            raise BadDisk(
                f"Bad raw disk '{self.location}': found {self._position} bytes, needed "
                f"{self._size_bytes}.",
                object=self.location,
            )
        return f"{self._size_bytes} bytes came, the disk's size"

    def close(self) -> None:
        """Do nothing: the connection belongs to whoever opened it."""


def _filled(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the runs of units that are not all zeros."""
    start = -1
    for at in range(0, len(data), _UNIT_BYTES):
        zeros = _ZEROS if at + _UNIT_BYTES <= len(data) else _ZEROS[: len(data) - at]
        if data.startswith(zeros, at):
            if start >= 0:
                yield start, at
            start = -1
        elif start < 0:
            start = at
    if start >= 0:
        yield start, len(data)
