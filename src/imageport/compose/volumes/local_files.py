"""A volume that is a folder of this machine: what the steps' tests run on, without a guest.

Host side only; it does not travel in the engine.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from imageport.compose.volumes.descriptors import Access
from imageport.compose.volumes.guest_files import GuestFiles
from imageport.errors import EngineFailed


@dataclass(slots=True)
class LocalFiles(GuestFiles):
    """Files below ``root``; descriptors are remembered beside them, the host has no place for them.

    ``inherited`` is what files have that were there before.
    """

    root: Path
    inherited: bytes = field(default_factory=lambda: Access.USERS_READ.descriptor(is_folder=True))
    descriptors: dict[str, bytes] = field(default_factory=dict)
    free: int = 8 * 1024**3

    def exists(self, path: str) -> bool:
        """Say whether it is there."""
        return self._find(path) is not None

    def is_folder(self, path: str) -> bool:
        """Say whether it is a folder."""
        found = self._find(path)
        return found is not None and found.is_dir()

    def names(self, folder: str) -> list[str]:
        """Return a folder's names."""
        found = self._find(folder)
        return sorted(item.name for item in found.iterdir()) if found and found.is_dir() else []

    def size_bytes(self, path: str) -> int:
        """Return a file's size."""
        return self._need(path).stat().st_size

    def read(self, path: str, limit_bytes: int) -> bytes:
        """Return a file's first bytes."""
        with self._need(path).open("rb") as file:
            return file.read(limit_bytes)

    def download(self, path: str, to: Path) -> None:
        """Copy a file."""
        shutil.copyfile(self._need(path), to)

    def descriptor(self, path: str) -> bytes:
        """Return the remembered descriptor."""
        self._need(path)
        return self.descriptors.get(path.lower(), self.inherited)

    def free_bytes(self) -> int:
        """Return the free space it was told."""
        return self.free

    def add_folder(self, path: str, access: Access) -> None:
        """Make a folder."""
        self._place(path).mkdir()
        self.descriptors[path.lower()] = access.descriptor(is_folder=True)

    def add_file(self, path: str, content: bytes | Path, access: Access) -> None:
        """Make a file."""
        data = content if isinstance(content, bytes) else content.read_bytes()
        with self._place(path).open("xb") as file:
            file.write(data)
        self.descriptors[path.lower()] = access.descriptor(is_folder=False)

    def rewrite(self, path: str, content: bytes | Path) -> None:
        """Put new content into a file in place."""
        data = content if isinstance(content, bytes) else content.read_bytes()
        with self._need(path).open("r+b") as file:
            file.truncate()
            file.write(data)

    def remove(self, path: str) -> None:
        """Remove a file or a whole folder."""
        found = self._need(path)
        if found.is_dir():
            shutil.rmtree(found)
        else:
            found.unlink()

    def _place(self, path: str) -> Path:
        folder, _, name = path.rpartition("/")
        return self._need(folder) / name

    def _need(self, path: str) -> Path:
        found = self._find(path)
        if found is None:
            raise EngineFailed(f"Cannot read '{path}': it is not in the guest.")
        return found

    def _find(self, path: str) -> Path | None:
        at = self.root
        for part in filter(None, path.split("/")):
            name = _spelled(at, part)
            if name is None:
                return None
            at /= name
        return at


def _spelled(folder: Path, name: str) -> str | None:
    """Return how a name is spelled in a folder, None where it is not there."""
    wanted = name.lower()
    try:
        with os.scandir(folder) as entries:
            return next((entry.name for entry in entries if entry.name.lower() == wanted), None)
    except (FileNotFoundError, NotADirectoryError):
        return None
