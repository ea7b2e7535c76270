"""A disk cut to its true size: clouds round up to whole MiB or GiB, the image keeps its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from imageport.errors import BadDisk, InputError
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import Extent


class SizedDisk(VirtualDisk):
    """The first ``size_bytes`` of another disk; closes it.

    The backup GPT lies in the last sectors of the image, so a longer disk is another disk.
    """

    def __init__(self, below: VirtualDisk, size_bytes: int) -> None:
        if not 0 < size_bytes <= below.size_bytes:
            below.close()
            raise BadDisk(
                f"Bad disk '{below.location}': found {below.size_bytes} bytes, "
                f"needed at least {size_bytes}."
            )
        self._below = below
        self._size_bytes = size_bytes
        self.location = below.location
        self.format_name = below.format_name
        self.sector_bytes = below.sector_bytes

    @property
    def size_bytes(self) -> int:
        """Return the size the image has."""
        return self._size_bytes

    def extents(self) -> Iterator[Extent]:
        """Yield the extents below, the last one cut."""
        for extent in self._below.extents():
            length = min(extent.end_bytes, self._size_bytes) - extent.offset_bytes
            if length <= 0:
                return
            yield Extent(extent.offset_bytes, length, extent.state)

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Read inside the size."""
        self._check(offset_bytes, length_bytes)
        return self._below.read_at(offset_bytes, length_bytes)

    def read_many(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        """Read ahead as the disk below does."""

        def checked() -> Iterator[tuple[int, int]]:
            for offset, length in ranges:
                self._check(offset, length)
                yield offset, length

        return self._below.read_many(checked())

    def content_key(self) -> str:
        """Return the key below: the size is part of the image, not of its identity."""
        return self._below.content_key()

    def check_unchanged(self) -> None:
        """Ask the disk below."""
        self._below.check_unchanged()

    def close(self) -> None:
        """Close the disk below."""
        self._below.close()

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self._size_bytes:
            raise InputError(
                f"Cannot read '{self.location}': range {offset}+{length} lies outside "
                f"{self._size_bytes} bytes."
            )
