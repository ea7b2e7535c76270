"""What every disk that lies in one file has in common: bounds, change detection, closing."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from imageport.errors import InputError, SourceChanged
from imageport.formats.virtual_disk import VirtualDisk
from imageport.storage.byte_file import ByteFile


class DiskFile(VirtualDisk):
    """A disk in one `ByteFile`, which it takes over and closes."""

    def __init__(self, file: ByteFile) -> None:
        self.location = file.location
        self._file = file
        self._opened = file.identity()
        self._stored: list[tuple[int, int]] | None = None
        self._stored_lock = threading.Lock()

    def details(self) -> dict[str, int | str]:
        """Return what a person wants to know of the file; names end in their unit."""
        return {
            "file_bytes": self._file.size_bytes,
            "allocated_bytes": sum(length for _, length in self._allocated()),
        }

    def check_unchanged(self) -> None:
        """Raise `SourceChanged` when size, write time or file id differ from those at opening."""
        now = self._file.identity()
        if now.key() != self._opened.key():
            raise SourceChanged(
                f"Cannot go on reading '{self.location}': it was written meanwhile "
                f"(size {self._opened.size_bytes} → {now.size_bytes} bytes, "
                f"write time {self._opened.last_write_ns} → {now.last_write_ns} ns).",
                object=self.location,
            )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _allocated(self) -> list[tuple[int, int]]:
        """Return what the file system has stored; asked once, the file must not change."""
        with self._stored_lock:
            if self._stored is None:
                self._stored = self._file.allocated_ranges()
            return self._stored

    def _check_range(self, offset_bytes: int, length_bytes: int) -> None:
        end = offset_bytes + length_bytes
        if offset_bytes < 0 or length_bytes < 0 or end > self.size_bytes:
            raise InputError(
                f"Cannot read '{self.location}': bytes {offset_bytes}..{end} were asked for, "
                f"the disk has {self.size_bytes}."
            )

    def _checked(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        for offset, length in ranges:
            self._check_range(offset, length)
            yield offset, length
