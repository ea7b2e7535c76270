"""The interface of a folder: a vDisk store, a share's folder, a local directory, memory."""

from __future__ import annotations

import contextlib
import secrets
from abc import abstractmethod
from dataclasses import dataclass

from imageport.closable import Closable
from imageport.errors import ImageportError, InputError
from imageport.storage.byte_file import ByteFile, WritableFile


@dataclass(frozen=True, slots=True)
class FileStat:
    """One entry of a folder listing; ``last_write_ns`` is UTC nanoseconds since 1970."""

    name: str
    size_bytes: int
    last_write_ns: int
    is_folder: bool = False


class Folder(Closable):
    """Files under one root, by relative names with ``/`` between parts.

    A name that would leave the root (``..``, absolute, drive letters, NUL) raises `InputError`.
    Comparison of names follows the file system below; callers that mean Windows names fold case
    themselves. All methods may be called from several threads. Errors are those of
    `imageport.errors` (`FileMissing`, `NameTaken`, `ShareFull`, `FileLocked` …), never `OSError`
    alone.
    """

    location: str
    """Where it lies, for messages; never holds a secret."""
    renames_atomically: bool = True
    """Whether of two renames to one free name at the same time surely only one succeeds."""

    @abstractmethod
    def list(self, name: str = "") -> list[FileStat]:
        """Return the entries directly below ``name``, sorted; `FileMissing` if it is not there."""

    @abstractmethod
    def stat(self, name: str) -> FileStat | None:
        """Return the entry, or None."""

    @abstractmethod
    def open_read(self, name: str, *, deny_write: bool = False) -> ByteFile:
        """Open for reading; with ``deny_write`` nobody can write meanwhile.

        `FileLocked` when somebody else has it open in a way that excludes this.
        """

    @abstractmethod
    def create(self, name: str) -> WritableFile:
        """Create a new empty file; `NameTaken` if the name exists (atomic: no race)."""

    @abstractmethod
    def open_write(self, name: str) -> WritableFile:
        """Open an existing file for reading and writing; `FileMissing` if it is not there."""

    @abstractmethod
    def rename(self, name: str, new_name: str, *, replace: bool = False) -> None:
        """Rename inside the folder, atomically; `NameTaken` unless ``replace``."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file; one that is not there is no error."""

    @abstractmethod
    def make_folder(self, name: str) -> None:
        """Create a folder and its parents; existing ones are no error."""

    @abstractmethod
    def set_last_write(self, name: str, last_write_ns: int) -> None:
        """Set the modification time (SMB and NTFS keep 100 ns steps)."""

    @abstractmethod
    def free_bytes(self) -> int:
        """Return the space that this account can still use."""

    @abstractmethod
    def close(self) -> None:
        """Drop the connection; may be called twice."""

    def read_bytes(self, name: str, limit_bytes: int = 16 * 1024 * 1024) -> bytes:
        """Return a small file whole; one larger than ``limit_bytes`` raises `InputError`."""
        with self.open_read(name) as file:
            if file.size_bytes > limit_bytes:
                raise InputError(
                    f"Cannot read '{self.location}/{name}': found {file.size_bytes} bytes, "
                    f"needed at most {limit_bytes}."
                )
            return file.read_at(0, file.size_bytes)

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a small file whole, replacing it atomically: a reader sees old or new.

        Several may do so at once: each writes under a name of its own, the last rename wins. A
        writer that was killed leaves a ``*.part`` behind.
        """
        part = f"{name}.{secrets.token_hex(4)}.part"
        try:
            with self.create(part) as file:
                file.write_at(0, data)
                file.flush()
            self.rename(part, name, replace=True)
        except BaseException:
            with contextlib.suppress(ImageportError):  # the first error is the one to report
                self.delete(part)
            raise
