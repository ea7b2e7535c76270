"""The files of the Windows volume: the interface, and the overlay that makes planning possible.

Steps see a `PendingFiles` over the real volume: they read through it and what they add stays in
memory. ``plan`` stops there; ``compose`` then applies the very same list to the volume.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from imageport.compose.volumes.descriptors import Access
from imageport.errors import EngineFailed


class GuestFiles(ABC):
    """Files of one volume by path from its root, ``Windows/System32/…``, compared without case.

    Reading something missing raises `EngineFailed`; asking whether it exists never does. Writing
    never replaces a file: `add_file` refuses a taken name, `rewrite` keeps the file's identity.
    """

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Say whether a file or folder of that path exists."""

    @abstractmethod
    def is_folder(self, path: str) -> bool:
        """Say whether a folder of that path exists."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted; empty when it does not exist."""

    @abstractmethod
    def size_bytes(self, path: str) -> int:
        """Return a file's size."""

    @abstractmethod
    def read(self, path: str, limit_bytes: int) -> bytes:
        """Return a file's first bytes, at most ``limit_bytes``."""

    @abstractmethod
    def download(self, path: str, to: Path) -> None:
        """Copy a file to this machine."""

    @abstractmethod
    def descriptor(self, path: str) -> bytes:
        """Return the security descriptor."""

    @abstractmethod
    def free_bytes(self) -> int:
        """Return the free space of the volume."""

    @abstractmethod
    def add_folder(self, path: str, access: Access) -> None:
        """Make a new folder with its explicit descriptor; its parent exists."""

    @abstractmethod
    def add_file(self, path: str, content: bytes | Path, access: Access) -> None:
        """Make a new file with its explicit descriptor; its folder exists."""

    @abstractmethod
    def rewrite(self, path: str, content: bytes | Path) -> None:
        """Put new content into an existing file in place, so that its descriptor stays."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all below it."""

    def settle(self) -> None:  # noqa: B027 - most volumes have nothing to wait for
        """Return once all that was written would outlast a kill of the machine that writes it."""

    def below(self, folder: str) -> Iterator[str]:
        """Yield the path of every file below a folder, at any depth."""
        for name in self.names(folder):
            path = f"{folder}/{name}" if folder else name
            if self.is_folder(path):
                yield from self.below(path)
            else:
                yield path


@dataclass(frozen=True, slots=True)
class Addition:
    """One file (or folder, when ``content`` is None) that a step adds."""

    path: str
    content: bytes | Path | None
    access: Access

    @property
    def is_folder(self) -> bool:
        """Say whether this is a folder."""
        return self.content is None


@dataclass(slots=True)
class PendingFiles(GuestFiles):
    """A volume as it will be: the real one below, changes above, nothing written.

    ``removals`` and ``additions`` are by lower-case path. What is added after it was removed counts
    as added; `apply` removes such things first and all others last, so that no service is left
    without its file should writing end half-way. Between such stages it waits for the disk, which
    otherwise gets them in any order.
    """

    real: GuestFiles
    additions: dict[str, Addition] = field(default_factory=dict)
    rewrites: dict[str, tuple[str, bytes | Path]] = field(default_factory=dict)
    removals: dict[str, str] = field(default_factory=dict)

    @property
    def is_changed(self) -> bool:
        """Say whether anything is to be written."""
        return bool(self.additions or self.rewrites or self.removals)

    def exists(self, path: str) -> bool:
        """Say whether it is there or will be."""
        return path.lower() in self.additions or (
            not self._is_removed(path) and self.real.exists(path)
        )

    def is_folder(self, path: str) -> bool:
        """Say whether it is a folder or will be."""
        addition = self.additions.get(path.lower())
        if addition is not None:
            return addition.is_folder
        return not self._is_removed(path) and self.real.is_folder(path)

    def names(self, folder: str) -> list[str]:
        """Return names there and names to come."""
        prefix = folder.lower() + "/" if folder else ""
        added = [
            item.path.rpartition("/")[2]
            for key, item in self.additions.items()
            if key.startswith(prefix) and "/" not in key[len(prefix) :]
        ]
        there = [] if self._is_removed(folder) else self.real.names(folder)
        kept = [name for name in there if not self._is_removed(prefix + name)]
        return sorted({*kept, *added})

    def size_bytes(self, path: str) -> int:
        """Return the size there or to come."""
        content = self._content(path)
        if content is None:
            return self._there(path).size_bytes(path)
        return len(content) if isinstance(content, bytes) else content.stat().st_size

    def read(self, path: str, limit_bytes: int) -> bytes:
        """Read what is there or to come."""
        content = self._content(path)
        if content is None:
            return self._there(path).read(path, limit_bytes)
        if isinstance(content, bytes):
            return content[:limit_bytes]
        with content.open("rb") as file:  # an installer is no smaller than memory may be
            return file.read(limit_bytes)

    def download(self, path: str, to: Path) -> None:
        """Copy what is there or to come."""
        content = self._content(path)
        if content is None:
            self._there(path).download(path, to)
        elif isinstance(content, bytes):
            to.write_bytes(content)
        else:
            shutil.copyfile(content, to)

    def descriptor(self, path: str) -> bytes:
        """Return the descriptor there or to come."""
        addition = self.additions.get(path.lower())
        if addition is None:
            return self._there(path).descriptor(path)
        return addition.access.descriptor(is_folder=addition.is_folder)

    def free_bytes(self) -> int:
        """Return the free space there."""
        return self.real.free_bytes()

    def add_folder(self, path: str, access: Access) -> None:
        """Remember a folder."""
        self._add(Addition(path, None, access))

    def add_file(self, path: str, content: bytes | Path, access: Access) -> None:
        """Remember a file."""
        self._add(Addition(path, content, access))

    def rewrite(self, path: str, content: bytes | Path) -> None:
        """Remember new content for an existing file."""
        key = path.lower()
        if key in self.additions:
            self.additions[key] = replace(self.additions[key], content=content)
            return
        self._there(path)
        self.rewrites[key] = (path, content)

    def remove(self, path: str) -> None:
        """Remember that it goes; what was only to come is forgotten."""
        key = path.lower()
        for known in [k for k in self.additions if k == key or k.startswith(key + "/")]:
            del self.additions[known]
        for known in [k for k in self.rewrites if k == key or k.startswith(key + "/")]:
            del self.rewrites[known]
        if self.real.exists(path):
            self.removals[key] = path

    def apply(self) -> None:
        """Write everything to the volume; what is added or rewritten last is written last."""
        first = {
            key: path
            for key, path in self.removals.items()
            if any(added == key or added.startswith(key + "/") for added in self.additions)
        }
        for path in first.values():
            self.real.remove(path)
        for addition in self.additions.values():
            if addition.content is None:
                self.real.add_folder(addition.path, addition.access)
            else:
                self.real.add_file(addition.path, addition.content, addition.access)
        self.real.settle()  # drivers lie there before a hive names them
        for path, content in self.rewrites.values():
            self.real.rewrite(path, content)
        self.real.settle()  # no hive names them any more before drivers go
        for key, path in self.removals.items():
            if key not in first and self.real.exists(path):
                self.real.remove(path)

    def _add(self, addition: Addition) -> None:
        if self.exists(addition.path):
            raise EngineFailed(f"Cannot add '{addition.path}': it exists already.")
        self.additions[addition.path.lower()] = addition

    def _is_removed(self, path: str) -> bool:
        key = path.lower()
        return any(key == gone or key.startswith(gone + "/") for gone in self.removals)

    def _there(self, path: str) -> GuestFiles:
        if self._is_removed(path):
            raise EngineFailed(f"Cannot read '{path}': it is not in the guest.")
        return self.real

    def _content(self, path: str) -> bytes | Path | None:
        rewritten = self.rewrites.get(path.lower())
        if rewritten is not None:
            return rewritten[1]
        addition = self.additions.get(path.lower())
        return addition.content if addition else None
