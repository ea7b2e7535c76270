"""What every disk that lies in files has in common: bounds, change detection, closing."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from imageport.errors import InputError, SourceChanged
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import FileIdentity
from imageport.storage.byte_file import ByteFile


class StoredFile:
    """One file of a disk: what it was when it was opened, and what its file system has stored.

    ``opened`` is given where something of the file was read already, which must not change either.
    """

    def __init__(self, file: ByteFile, opened: FileIdentity | None = None) -> None:
        self.file = file
        self.opened = opened or file.identity()
        self._allocated: list[tuple[int, int]] | None = None
        self._lock = threading.Lock()

    def allocated(self) -> list[tuple[int, int]]:
        """Return what the file system has stored; asked once, the file must not change."""
        with self._lock:
            if self._allocated is None:
                self._allocated = self.file.allocated_ranges()
            return self._allocated

    def check_unchanged(self) -> None:
        """Raise `SourceChanged` when size, write time or file id differ from those at opening."""
        now = self.file.identity()
        if now.key() != self.opened.key():
            raise SourceChanged(
                f"Cannot go on reading '{self.file.location}': it was written meanwhile "
                f"(size {self.opened.size_bytes} → {now.size_bytes} bytes, "
                f"write time {self.opened.last_write_ns} → {now.last_write_ns} ns).",
                object=self.file.location,
            )


class DiskFile(VirtualDisk):
    """A disk whose main file is one `ByteFile`, which it takes over and closes.

    A disk of several files overrides `stored_files`; it owns all of them.
    """

    def __init__(self, file: ByteFile, opened: FileIdentity | None = None) -> None:
        self.location = file.location
        self._file = file
        self._stored = StoredFile(file, opened)

    def stored_files(self) -> Iterator[StoredFile]:
        """Yield every file of the disk, its main file first."""
        yield self._stored

    def details(self) -> dict[str, int | str]:
        """Return what a person wants to know of the file; names end in their unit."""
        return {
            "file_bytes": self._file.size_bytes,
            "allocated_bytes": sum(length for _, length in self._stored.allocated()),
        }

    def check_unchanged(self) -> None:
        """Raise `SourceChanged` when a file of the disk is no longer what was opened."""
        for stored in self.stored_files():
            stored.check_unchanged()

    def close(self) -> None:
        """Close every file."""
        for stored in self.stored_files():
            stored.file.close()

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
