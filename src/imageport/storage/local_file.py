"""An open file of this machine, read and written by ranges."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator

from imageport.errors import ShareError, ShareFull, SourceChanged
from imageport.model import FileIdentity
from imageport.storage.byte_file import ByteFile, WritableFile

_CANNOT_COPY = {
    *(errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL),
    *(errno.EPERM, errno.EACCES, errno.ETXTBSY, errno.ENOENT),
}
"""copy_file_range(2): two file systems, one without the call, an old kernel, a special file; then
what containers that forbid the call, swap files and mounted shares (CIFS) answer. Whatever is
truly wrong shows again when the bytes are read and written."""


class LocalFile(ByteFile):
    """A file descriptor; pread needs no lock between threads."""

    def __init__(self, handle: int, location: str) -> None:
        self.location = location
        self._handle = handle
        self._closing = threading.Lock()
        self._opened_size_bytes = os.fstat(handle).st_size

    @property
    def size_bytes(self) -> int:
        """Return the size at the time of opening."""
        return self._opened_size_bytes

    def identity(self) -> FileIdentity:
        """Ask the file system again."""
        facts = os.fstat(self._handle)
        return FileIdentity(
            path=self.location,
            size_bytes=facts.st_size,
            last_write_ns=facts.st_mtime_ns,
            change_ns=facts.st_ctime_ns,
            file_id=facts.st_ino,
        )

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return exactly ``length_bytes``; `SourceChanged` when the file ends before that."""
        with self._mapped("read"):
            data = os.pread(self._handle, length_bytes, offset_bytes)
            while len(data) < length_bytes:
                more = os.pread(self._handle, length_bytes - len(data), offset_bytes + len(data))
                if not more:
                    raise SourceChanged(
                        f"Cannot read '{self.location}': found its end at "
                        f"{offset_bytes + len(data)} bytes, needed {offset_bytes + length_bytes}."
                    )
                data += more
        return data

    def allocated_ranges(self) -> list[tuple[int, int]]:
        """Return (offset, length) of what the file system has stored."""
        found: list[tuple[int, int]] = []
        position, end = 0, os.fstat(self._handle).st_size
        with self._mapped("map"):
            while position < end:
                try:
                    start = os.lseek(self._handle, position, os.SEEK_DATA)
                except OSError as error:
                    if error.errno == errno.ENXIO:  # nothing but a hole follows
                        break
                    raise
                position = min(os.lseek(self._handle, start, os.SEEK_HOLE), end)
                if start < position:
                    found.append((start, position - start))
        return found

    def close(self) -> None:
        """Release the handle and with it the lock."""
        with self._closing:
            if self._handle >= 0:
                os.close(self._handle)
                self._handle = -1

    @contextlib.contextmanager
    def _mapped(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (SourceChanged, ShareError):
            raise
        except OSError as error:
            kind = ShareFull if error.errno in {errno.ENOSPC, errno.EDQUOT} else ShareError
            cause = os.strerror(error.errno or 0)
            raise kind(f"Cannot {verb} '{self.location}': {cause}.") from error


class LocalWritableFile(LocalFile, WritableFile):
    """The same, opened for writing; ``size_bytes`` follows what was written."""

    @property
    def size_bytes(self) -> int:
        """Return the size now."""
        return os.fstat(self._handle).st_size

    def write_at(self, offset_bytes: int, data: bytes | memoryview) -> None:
        """Write all of ``data``; `ShareFull` when there is no room."""
        view = memoryview(data).cast("B")
        with self._mapped("write"):
            while view:
                written = os.pwrite(self._handle, view, offset_bytes)
                view, offset_bytes = view[written:], offset_bytes + written

    def copy_from(
        self, source: LocalFile, source_offset: int, offset_bytes: int, length_bytes: int
    ) -> bool:
        """Copy a range of another file without its bytes passing through this program.

        False when the two file systems cannot; what lies in the range then is undefined. Some
        copy nothing without an error: that counts as well, and is also how the other file's end
        shows, which reading it tells for sure.
        """
        handle, done = source._handle, 0  # noqa: SLF001 - of its own kind
        with self._mapped("write"):
            while done < length_bytes:
                places = source_offset + done, offset_bytes + done
                try:
                    count = os.copy_file_range(handle, self._handle, length_bytes - done, *places)
                except OSError as error:
                    if error.errno in _CANNOT_COPY:
                        return False
                    raise
                if not count:
                    return False
                done += count
        return True

    def set_size(self, size_bytes: int) -> None:
        """Cut or extend; what is added is a hole."""
        with self._mapped("resize"):
            os.ftruncate(self._handle, size_bytes)

    def set_sparse(self) -> None:
        """Do nothing: local file systems keep and tell holes without a mark."""

    def flush(self) -> None:
        """Make everything written durable."""
        with self._mapped("flush"):
            os.fsync(self._handle)
