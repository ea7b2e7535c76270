"""A folder of this machine."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat as stat_modes
import time
from collections.abc import Iterator
from pathlib import Path

from imageport.errors import (
    FileLocked,
    FileMissing,
    ImageportError,
    InputError,
    NameTaken,
    ShareError,
    ShareFull,
    ShareRefused,
)
from imageport.storage.byte_file import ByteFile, WritableFile
from imageport.storage.folder import FileStat, Folder
from imageport.storage.local_file import LocalFile, LocalWritableFile
from imageport.storage.relative_name import split_name

_RENAME_NOREPLACE = 1  # linux/fs.h
_AT_FDCWD = -100  # linux/fcntl.h
_WRITER_PATIENCE_SECONDS = 0.5
"""Readers hold the lock for an instant to see whether somebody writes; a writer waits that out."""


class LocalFolder(Folder):
    """Files below ``root`` of this machine.

    Locks are advisory (flock): they hold between users of this class, which is all POSIX offers.
    A symbolic link may lead to another place below the root, never out of it.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()
        self.location = str(self.root)

    def list(self, name: str = "") -> list[FileStat]:
        """Return the entries directly below ``name``, sorted; `FileMissing` if it is not there."""
        path = self._path(name, root_allowed=True)
        with self._mapped("list", name), os.scandir(path) as entries:
            found = [_as_stat(entry.name, entry.stat()) for entry in entries if _resolves(entry)]
        return sorted(found, key=lambda entry: entry.name)

    def stat(self, name: str) -> FileStat | None:
        """Return the entry, or None."""
        path = self._path(name)
        with self._mapped("stat", name):
            try:
                return _as_stat(path.name, path.stat())
            except (FileNotFoundError, NotADirectoryError):
                return None

    def open_read(self, name: str, *, deny_write: bool = False) -> ByteFile:
        """Open for reading; with ``deny_write`` no `LocalFolder` can write meanwhile."""
        path = self._path(name)
        with self._mapped("open", name):
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._refuse_folder(handle, name)
            self._lock(handle, fcntl.LOCK_SH, name, patience_seconds=0)
            if not deny_write:
                fcntl.flock(handle, fcntl.LOCK_UN)
            return LocalFile(handle, f"{self.location}/{name}")
        except BaseException:
            os.close(handle)
            raise

    def create(self, name: str) -> WritableFile:
        """Create a new empty file; `NameTaken` if the name exists (atomic: no race)."""
        return self._open_writable(name, os.O_CREAT | os.O_EXCL)

    def open_write(self, name: str) -> WritableFile:
        """Open an existing file for reading and writing; `FileMissing` if it is not there."""
        return self._open_writable(name, 0)

    def rename(self, name: str, new_name: str, *, replace: bool = False) -> None:
        """Rename inside the folder, atomically; `NameTaken` unless ``replace``."""
        path, new_path = self._path(name), self._path(new_name)
        self._refuse_locked(path, name)
        with self._mapped("rename", name, new_name):
            if replace:
                path.replace(new_path)
            else:
                _rename_without_replacing(path, new_path)
            _sync_folder(new_path.parent)

    def delete(self, name: str) -> None:
        """Delete a file; one that is not there is no error."""
        path = self._path(name)
        if path.is_dir():
            raise FileMissing(f"Cannot delete '{self.location}/{name}': it is a folder.")
        self._refuse_locked(path, name)
        with self._mapped("delete", name):
            path.unlink(missing_ok=True)

    def make_folder(self, name: str) -> None:
        """Create a folder and its parents; existing ones are no error."""
        with self._mapped("create", name):
            self._path(name, root_allowed=True).mkdir(parents=True, exist_ok=True)

    def set_last_write(self, name: str, last_write_ns: int) -> None:
        """Set the modification time."""
        with self._mapped("set the time of", name):
            os.utime(self._path(name), ns=(last_write_ns, last_write_ns))

    def free_bytes(self) -> int:
        """Return the space that this account can still use."""
        with self._mapped("measure", ""):
            volume = os.statvfs(self.root)
        return volume.f_bavail * volume.f_frsize

    def close(self) -> None:
        """Do nothing: a local folder holds no connection."""

    def _path(self, name: str, *, root_allowed: bool = False) -> Path:
        parts = split_name(name, self.location, root_allowed=root_allowed)
        path = self.root.joinpath(*parts)
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise InputError(f"Bad name {name!r}: found a link that leaves '{self.location}'.")
        return path

    def _open_writable(self, name: str, flags: int) -> WritableFile:
        path = self._path(name)
        with self._mapped("open" if not flags else "create", name):
            handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o666)
        try:
            self._lock(handle, fcntl.LOCK_EX, name, _WRITER_PATIENCE_SECONDS)
            return LocalWritableFile(handle, f"{self.location}/{name}")
        except BaseException:
            os.close(handle)
            raise

    def _lock(self, handle: int, kind: int, name: str, patience_seconds: float) -> None:
        deadline = time.monotonic() + patience_seconds
        while True:
            try:
                fcntl.flock(handle, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise FileLocked(
                        f"Cannot open '{self.location}/{name}': somebody else has it open."
                    ) from None
                time.sleep(0.01)
            else:
                return

    def _refuse_folder(self, handle: int, name: str) -> None:
        if stat_modes.S_ISDIR(os.fstat(handle).st_mode):
            raise FileMissing(f"Cannot open '{self.location}/{name}': it is a folder.")

    def _refuse_locked(self, path: Path, name: str) -> None:
        """Raise `FileLocked` when somebody writes the file or denies others to."""
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return  # what is wrong with it shows in the operation that follows
        try:
            self._lock(handle, fcntl.LOCK_EX, name, _WRITER_PATIENCE_SECONDS)
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _mapped(self, verb: str, name: str, new_name: str = "") -> Iterator[None]:
        try:
            yield
        except ImageportError:
            raise
        except OSError as error:
            subject = f"{self.location}/{name}".rstrip("/")
            raise _as_ours(error, verb, subject, new_name) from error


def _as_ours(error: OSError, verb: str, subject: str, new_name: str) -> ImageportError:
    kinds: dict[int, type[ImageportError]] = {
        errno.ENOENT: FileMissing,
        errno.ENOTDIR: FileMissing,
        errno.EEXIST: NameTaken,
        errno.ENOTEMPTY: NameTaken,
        errno.EISDIR: NameTaken,
        errno.ENOSPC: ShareFull,
        errno.EDQUOT: ShareFull,
        errno.EACCES: ShareRefused,
        errno.EPERM: ShareRefused,
        errno.EROFS: ShareRefused,
        errno.ENAMETOOLONG: InputError,
    }
    kind = kinds.get(error.errno or 0, ShareError)
    what = f"'{subject}' to '{new_name}'" if new_name else f"'{subject}'"
    return kind(f"Cannot {verb} {what}: {os.strerror(error.errno or 0)}.")


def _as_stat(name: str, facts: os.stat_result) -> FileStat:
    is_folder = stat_modes.S_ISDIR(facts.st_mode)
    return FileStat(name, 0 if is_folder else facts.st_size, facts.st_mtime_ns, is_folder)


def _resolves(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry still exists: others delete while we list, links dangle."""
    try:
        entry.stat()
    except FileNotFoundError:
        return False
    return True


def _rename_without_replacing(path: Path, new_path: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(path), os.fsencode(new_path)
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE) == 0:
        return
    code = ctypes.get_errno()
    if code not in {errno.EINVAL, errno.ENOSYS}:
        raise OSError(code, os.strerror(code))
    # Some file systems (NFS) lack the flag; a hard link also fails when the name exists.
    os.link(path, new_path)
    path.unlink()


def _sync_folder(path: Path) -> None:
    """Make a rename durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
