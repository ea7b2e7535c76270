"""Folder and files in memory: for tests, and for small state that need not survive.

It behaves like an SMB server where that is stricter than a local disk: holes are told only of
files that carry the sparse mark, names compare without case, and open handles exclude each other.
"""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass, field

from imageport.errors import FileLocked, FileMissing, NameTaken, ShareFull, SourceChanged
from imageport.model import FileIdentity
from imageport.storage.byte_file import ByteFile, WritableFile
from imageport.storage.folder import FileStat, Folder
from imageport.storage.relative_name import split_name

_PAGE_BYTES = 64 * 1024
"""What NTFS keeps as the smallest hole of a sparse file."""

_ids = itertools.count(1)


@dataclass
class _Content:
    """The bytes of one file; pages that were never written are holes."""

    size_bytes: int = 0
    sparse: bool = False
    pages: dict[int, bytearray] = field(default_factory=dict)
    last_write_ns: int = field(default_factory=time.time_ns)
    change_ns: int = field(default_factory=time.time_ns)
    file_id: int = field(default_factory=lambda: next(_ids))
    readers: int = 0
    denying_readers: int = 0
    writers: int = 0

    def touch(self) -> None:
        self.last_write_ns = self.change_ns = time.time_ns()


class MemoryFolder(Folder):
    """A folder in memory; ``capacity_bytes`` limits what its files may hold together."""

    def __init__(self, location: str = "memory", *, capacity_bytes: int = 1 << 40) -> None:
        self.location = location
        self._capacity_bytes = capacity_bytes
        self._lock = threading.RLock()
        self._files: dict[tuple[str, ...], tuple[str, _Content]] = {}
        self._folders: dict[tuple[str, ...], str] = {(): ""}

    def list(self, name: str = "") -> list[FileStat]:
        """Return the entries directly below ``name``, sorted; `FileMissing` if it is not there."""
        with self._lock:
            parent = self._key(name, root_allowed=True)
            if parent not in self._folders:
                raise self._missing("list", name)
            found = [
                FileStat(shown, content.size_bytes, content.last_write_ns)
                for key, (shown, content) in self._files.items()
                if key[:-1] == parent
            ] + [
                FileStat(shown, 0, 0, is_folder=True)
                for key, shown in self._folders.items()
                if key and key[:-1] == parent
            ]
        return sorted(found, key=lambda entry: entry.name)

    def stat(self, name: str) -> FileStat | None:
        """Return the entry, or None."""
        with self._lock:
            key = self._key(name)
            if key in self._folders:
                return FileStat(self._folders[key], 0, 0, is_folder=True)
            if key not in self._files:
                return None
            shown, content = self._files[key]
            return FileStat(shown, content.size_bytes, content.last_write_ns)

    def open_read(self, name: str, *, deny_write: bool = False) -> ByteFile:
        """Open for reading; with ``deny_write`` nobody can write meanwhile."""
        with self._lock:
            content = self._content("open", name)
            if content.writers:
                raise self._locked("open", name)
            return MemoryFile(self, content, f"{self.location}/{name}", deny_write=deny_write)

    def create(self, name: str) -> WritableFile:
        """Create a new empty file; `NameTaken` if the name exists."""
        with self._lock:
            key = self._key(name)
            if key in self._files or key in self._folders:
                raise self._taken("create", name)
            if key[:-1] not in self._folders:
                raise self._missing("create", name)
            content = _Content()
            self._files[key] = (name.rsplit("/", 1)[-1], content)
            return MemoryWritableFile(self, content, f"{self.location}/{name}")

    def open_write(self, name: str) -> WritableFile:
        """Open an existing file for reading and writing; `FileMissing` if it is not there."""
        with self._lock:
            content = self._content("open", name)
            if content.writers or content.readers or content.denying_readers:
                raise self._locked("open", name)
            return MemoryWritableFile(self, content, f"{self.location}/{name}")

    def rename(self, name: str, new_name: str, *, replace: bool = False) -> None:
        """Rename inside the folder, atomically; `NameTaken` unless ``replace``."""
        with self._lock:
            key, new_key = self._key(name), self._key(new_name)
            content = self._content("rename", name)
            if new_key[:-1] not in self._folders:
                raise self._missing("rename", new_name)
            taken = new_key in self._files and new_key != key
            if new_key in self._folders or (taken and not replace):
                raise self._taken("rename", new_name)
            if content.writers or content.denying_readers:
                raise self._locked("rename", name)
            del self._files[key]
            self._files[new_key] = (new_name.rsplit("/", 1)[-1], content)

    def delete(self, name: str) -> None:
        """Delete a file; one that is not there is no error."""
        with self._lock:
            key = self._key(name)
            if key in self._folders:
                raise self._missing("delete", name)
            if key in self._files:
                content = self._files[key][1]
                if content.writers or content.denying_readers:
                    raise self._locked("delete", name)
                del self._files[key]

    def make_folder(self, name: str) -> None:
        """Create a folder and its parents; existing ones are no error."""
        with self._lock:
            key = self._key(name, root_allowed=True)
            shown = name.split("/")
            for depth in range(1, len(key) + 1):
                if key[:depth] in self._files:
                    raise self._taken("create", name)
                self._folders.setdefault(key[:depth], shown[depth - 1])

    def set_last_write(self, name: str, last_write_ns: int) -> None:
        """Set the modification time."""
        with self._lock:
            content = self._content("set the time of", name)
            content.last_write_ns = last_write_ns
            content.change_ns = time.time_ns()

    def free_bytes(self) -> int:
        """Return what may still be stored."""
        with self._lock:
            pages = sum(len(content.pages) for _, content in self._files.values())
        return max(0, self._capacity_bytes - pages * _PAGE_BYTES)

    def close(self) -> None:
        """Do nothing: memory holds no connection."""

    def _key(self, name: str, *, root_allowed: bool = False) -> tuple[str, ...]:
        parts = split_name(name, self.location, root_allowed=root_allowed)
        return tuple(part.casefold() for part in parts)

    def _content(self, verb: str, name: str) -> _Content:
        entry = self._files.get(self._key(name))
        if entry is None:
            raise self._missing(verb, name)
        return entry[1]

    def _missing(self, verb: str, name: str) -> FileMissing:
        is_folder = self._key(name, root_allowed=True) in self._folders
        cause = "it is a folder" if is_folder else "it does not exist"
        return FileMissing(f"Cannot {verb} '{self.location}/{name}': {cause}.")

    def _taken(self, verb: str, name: str) -> NameTaken:
        return NameTaken(f"Cannot {verb} '{self.location}/{name}': the name exists.")

    def _locked(self, verb: str, name: str) -> FileLocked:
        return FileLocked(f"Cannot {verb} '{self.location}/{name}': somebody else has it open.")


class MemoryFile(ByteFile):
    """A file of a `MemoryFolder`, open for reading."""

    def __init__(
        self, folder: MemoryFolder, content: _Content, location: str, *, deny_write: bool = False
    ) -> None:
        self.location = location
        self._folder = folder
        self._content = content
        self._lock = folder._lock  # noqa: SLF001 - one module, one lock for a folder
        self._holds = self._count_name(deny_write=deny_write)
        self._opened_size_bytes = content.size_bytes
        self._open = True
        setattr(content, self._holds, getattr(content, self._holds) + 1)

    @property
    def size_bytes(self) -> int:
        """Return the size at the time of opening."""
        return self._opened_size_bytes

    def identity(self) -> FileIdentity:
        """Return the identity now."""
        with self._lock:
            return FileIdentity(
                path=self.location,
                size_bytes=self._content.size_bytes,
                last_write_ns=self._content.last_write_ns,
                change_ns=self._content.change_ns,
                file_id=self._content.file_id,
            )

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return exactly ``length_bytes``; `SourceChanged` when the file ends before that."""
        with self._lock:
            end = offset_bytes + length_bytes
            if end > self._content.size_bytes:
                raise SourceChanged(
                    f"Cannot read '{self.location}': found its end at "
                    f"{self._content.size_bytes} bytes, needed {end}."
                )
            return b"".join(
                bytes(memoryview(page)[start:stop]) if page is not None else bytes(stop - start)
                for page, start, stop in (
                    (self._content.pages.get(index), start, stop)
                    for index, start, stop in _pieces(offset_bytes, length_bytes)
                )
            )

    def allocated_ranges(self) -> list[tuple[int, int]]:
        """Return what was written, in whole pages; the whole file without the sparse mark."""
        with self._lock:
            content = self._content
            if not content.sparse:
                return [(0, content.size_bytes)] if content.size_bytes else []
            found: list[tuple[int, int]] = []
            for index in sorted(content.pages):
                start = index * _PAGE_BYTES
                length = min(_PAGE_BYTES, content.size_bytes - start)
                if found and sum(found[-1]) == start:
                    found[-1] = (found[-1][0], found[-1][1] + length)
                else:
                    found.append((start, length))
            return found

    def close(self) -> None:
        """Release the handle."""
        with self._lock:
            if self._open:
                self._open = False
                setattr(self._content, self._holds, getattr(self._content, self._holds) - 1)

    def _count_name(self, *, deny_write: bool) -> str:
        return "denying_readers" if deny_write else "readers"


class MemoryWritableFile(MemoryFile, WritableFile):
    """A file of a `MemoryFolder`, open for writing; ``size_bytes`` follows what was written."""

    @property
    def size_bytes(self) -> int:
        """Return the size now."""
        return self._content.size_bytes

    def write_at(self, offset_bytes: int, data: bytes | memoryview) -> None:
        """Write all of ``data``; `ShareFull` when the folder's capacity is used up."""
        view = memoryview(data).cast("B")
        with self._lock:
            pieces = list(_pieces(offset_bytes, len(view)))
            new = sum(1 for index, _, _ in pieces if index not in self._content.pages)
            if new * _PAGE_BYTES > self._folder.free_bytes():
                raise ShareFull(f"Cannot write '{self.location}': no space left.")
            done = 0
            for index, start, stop in pieces:
                page = self._content.pages.setdefault(index, bytearray(_PAGE_BYTES))
                page[start:stop] = view[done : done + stop - start]
                done += stop - start
            self._content.size_bytes = max(self._content.size_bytes, offset_bytes + len(view))
            self._content.touch()

    def set_size(self, size_bytes: int) -> None:
        """Cut or extend; what is added is a hole."""
        with self._lock:
            pages = self._content.pages
            for index in [index for index in pages if index * _PAGE_BYTES >= size_bytes]:
                del pages[index]
            last = pages.get(size_bytes // _PAGE_BYTES)
            if last is not None and size_bytes < self._content.size_bytes:
                kept = size_bytes % _PAGE_BYTES
                last[kept:] = bytes(_PAGE_BYTES - kept)
            self._content.size_bytes = size_bytes
            self._content.touch()

    def set_sparse(self) -> None:
        """Set the mark that makes `allocated_ranges` tell holes."""
        with self._lock:
            self._content.sparse = True

    def flush(self) -> None:
        """Do nothing: memory is as durable as it gets."""

    def _count_name(self, *, deny_write: bool) -> str:  # noqa: ARG002 - writers always exclude
        return "writers"


def _pieces(offset_bytes: int, length_bytes: int) -> list[tuple[int, int, int]]:
    """Return (page index, start, stop inside the page) that cover a range."""
    found = []
    end = offset_bytes + length_bytes
    while offset_bytes < end:
        index, start = divmod(offset_bytes, _PAGE_BYTES)
        stop = min(_PAGE_BYTES, start + end - offset_bytes)
        found.append((index, start, stop))
        offset_bytes += stop - start
    return found
