"""The files of the Windows volume: the interface, and the overlay that makes planning possible.

Steps see a `PendingFiles` over the real volume: they read through it and what they add stays in
memory. ``plan`` stops there; ``compose`` then applies the very same list to the volume.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
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
    def rewrite(self, path: str, content: Path) -> None:
        """Put new content into an existing file in place, so that its descriptor stays."""

    def has_file_in(self, folder: str, name: str) -> bool:
        """Say whether a folder holds a name; cheap for many names of one folder."""
        return name.lower() in {known.lower() for known in self.names(folder)}


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

    def digest(self) -> str:
        """Return what the change report says about the content."""
        if self.content is None:
            return "folder"
        data = self.content if isinstance(self.content, bytes) else self.content.read_bytes()
        return f"{len(data)} bytes sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(slots=True)
class PendingFiles(GuestFiles):
    """A volume as it will be: the real one below, additions and rewrites above, nothing written."""

    below: GuestFiles
    additions: dict[str, Addition] = field(default_factory=dict)
    rewrites: dict[str, Path] = field(default_factory=dict)

    def exists(self, path: str) -> bool:
        """Say whether it is there or will be."""
        return path.lower() in self.additions or self.below.exists(path)

    def names(self, folder: str) -> list[str]:
        """Return names there and names to come."""
        prefix = folder.lower() + "/"
        added = [
            item.path.rpartition("/")[2]
            for key, item in self.additions.items()
            if key.startswith(prefix) and "/" not in key[len(prefix) :]
        ]
        return sorted({*self.below.names(folder), *added})

    def size_bytes(self, path: str) -> int:
        """Return the size there or to come."""
        content = self._content(path)
        if content is None:
            return self.below.size_bytes(path)
        return len(content) if isinstance(content, bytes) else content.stat().st_size

    def read(self, path: str, limit_bytes: int) -> bytes:
        """Read what is there or to come."""
        content = self._content(path)
        if content is None:
            return self.below.read(path, limit_bytes)
        data = content if isinstance(content, bytes) else content.read_bytes()
        return data[:limit_bytes]

    def download(self, path: str, to: Path) -> None:
        """Copy what is there or to come."""
        content = self._content(path)
        if content is None:
            self.below.download(path, to)
        else:
            to.write_bytes(content if isinstance(content, bytes) else content.read_bytes())

    def descriptor(self, path: str) -> bytes:
        """Return the descriptor there or to come."""
        addition = self.additions.get(path.lower())
        if addition is None:
            return self.below.descriptor(path)
        return addition.access.descriptor(is_folder=addition.is_folder)

    def free_bytes(self) -> int:
        """Return the free space there."""
        return self.below.free_bytes()

    def add_folder(self, path: str, access: Access) -> None:
        """Remember a folder."""
        self._add(Addition(path, None, access))

    def add_file(self, path: str, content: bytes | Path, access: Access) -> None:
        """Remember a file."""
        self._add(Addition(path, content, access))

    def rewrite(self, path: str, content: Path) -> None:
        """Remember new content for an existing file."""
        self.rewrites[path] = content

    def apply(self) -> None:
        """Write everything to the volume: new things first, hives last."""
        for addition in self.additions.values():
            if addition.content is None:
                self.below.add_folder(addition.path, addition.access)
            else:
                self.below.add_file(addition.path, addition.content, addition.access)
        for path, content in self.rewrites.items():
            self.below.rewrite(path, content)

    def _add(self, addition: Addition) -> None:
        if self.exists(addition.path):
            raise EngineFailed(f"Cannot add '{addition.path}': it exists already.")
        self.additions[addition.path.lower()] = addition

    def _content(self, path: str) -> bytes | Path | None:
        rewritten = next((c for p, c in self.rewrites.items() if p.lower() == path.lower()), None)
        if rewritten is not None:
            return rewritten
        addition = self.additions.get(path.lower())
        return addition.content if addition else None
