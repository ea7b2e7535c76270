"""A raw file as a disk: byte n of the file is byte n of the disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from imageport.errors import BadDisk
from imageport.formats._extent_merge import allocated_extents, merged
from imageport.formats.mapped_disk import MappedDisk, Segment
from imageport.model import Extent, ExtentState
from imageport.storage.byte_file import ByteFile


class RawDisk(MappedDisk):
    """A raw image; what the file system has not stored is HOLE.

    Takes over ``file`` and closes it. Raises `BadDisk` when the size is no multiple of
    ``sector_bytes`` (512 or 4096): then the file is cut short, or no disk.
    """

    format_name = "raw"

    def __init__(self, file: ByteFile, *, sector_bytes: int = 512) -> None:
        super().__init__(file)
        self.sector_bytes = sector_bytes
        if not file.size_bytes or file.size_bytes % sector_bytes:
            raise BadDisk(
                f"Bad raw disk '{file.location}': found {file.size_bytes} bytes, "
                f"needed a multiple of {sector_bytes}.",
                object=file.location,
            )

    @property
    def size_bytes(self) -> int:
        """Return the file's size."""
        return self._file.size_bytes

    def segments(self, offset_bytes: int, length_bytes: int) -> Iterator[Segment]:
        """Yield the range as it lies in the file."""
        yield Segment(offset_bytes, length_bytes, ExtentState.DATA, self._stored, offset_bytes)

    def extents(self) -> Iterator[Extent]:
        """Yield DATA for what the file system has stored, HOLE for the rest."""
        whole = (0, self.size_bytes, ExtentState.HOLE)
        return merged(allocated_extents(self._stored.allocated(), *whole))

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return the bytes; holes read as zeros."""
        self._check_range(offset_bytes, length_bytes)
        return self._file.read_at(offset_bytes, length_bytes) if length_bytes else b""

    def read_many(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes) with the file's own read-ahead."""
        return self._file.read_many(self._checked(ranges))

    def content_key(self) -> str:
        """Return the identity of the file."""
        return f"raw:{self._stored.opened.key()}"
