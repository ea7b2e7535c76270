"""What writers of dynamic disks share: blocks that get a place when they are first written."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

from imageport.errors import InputError
from imageport.storage.byte_file import WritableFile


class BlockTableWriter(ABC):
    """A disk in the making whose table says where each block lies.

    All methods may be called from several threads. The table is written in pages, and only what
    changed of it, at `flush`: data first, so that no entry leads to what is not there.
    """

    def __init__(self, file: WritableFile, *, finished: bool) -> None:
        self._file = file
        self._finished = finished
        self._dirty_pages: set[int] = set()
        self._lock = threading.Lock()
        """Of the table and its end of places."""
        self._flush_lock = threading.Lock()

    @property
    @abstractmethod
    def size_bytes(self) -> int:
        """Return the virtual disk size."""

    @property
    @abstractmethod
    def block_bytes(self) -> int:
        """Return the size of a block."""

    @property
    def finished(self) -> bool:
        """Return whether the file is a valid disk now."""
        return self._finished

    @abstractmethod
    def is_allocated(self, offset_bytes: int) -> bool:
        """Return whether the block around this offset has a place in the file."""

    @abstractmethod
    def finish(self) -> None:
        """Make the file a valid disk, durably; may be called again."""

    @abstractmethod
    def _unfinish(self) -> None:
        """Take back what makes the file a disk, before a write; once among threads."""

    @abstractmethod
    def _place(self, block: int) -> int:
        """Return where in the file a block's data lies, giving it a place if it has none."""

    @abstractmethod
    def _page_offset(self, page: int) -> int:
        """Return where in the file a page of the table lies."""

    @abstractmethod
    def _packed_page(self, page: int) -> bytes:
        """Return a page of the table as it lies in the file; `_lock` is held."""

    def write_at(self, offset_bytes: int, data: bytes | memoryview) -> None:
        """Write ``data`` at a place of the virtual disk; past its end is `InputError`."""
        view = memoryview(data)
        if offset_bytes < 0 or offset_bytes + len(view) > self.size_bytes:
            raise InputError(
                f"Cannot write '{self._file.location}': bytes {offset_bytes}.."
                f"{offset_bytes + len(view)} were given, the disk has {self.size_bytes}."
            )
        if self._finished:
            self._unfinish()
        while view:
            block, inside = divmod(offset_bytes, self.block_bytes)
            count = min(self.block_bytes - inside, len(view))
            self._file.write_at(self._place(block) + inside, view[:count])
            view = view[count:]
            offset_bytes += count

    def flush(self) -> None:
        """Make everything written so far durable, so that it is there after a crash."""
        with self._flush_lock:
            with self._lock:
                pages, self._dirty_pages = self._dirty_pages, set()
                packed = {page: self._packed_page(page) for page in pages}
            try:
                for page, data in sorted(packed.items()):
                    self._file.write_at(self._page_offset(page), data)
                self._file.flush()
            except BaseException:
                with self._lock:
                    self._dirty_pages |= pages
                raise
