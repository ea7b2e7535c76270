"""A volume that is still to be made: empty, so that what will lie on it can be planned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imageport.compose.volumes.descriptors import Access
from imageport.compose.volumes.guest_files import GuestFiles
from imageport.errors import EngineFailed


@dataclass(slots=True)
class NewVolume(GuestFiles):
    """Nothing is there, and nothing can be written before the volume is made."""

    size_of_volume_bytes: int

    def exists(self, path: str) -> bool:
        """Only the root exists."""
        return not path

    def is_folder(self, path: str) -> bool:
        """Only the root is one."""
        return not path

    def names(self, folder: str) -> list[str]:
        """Nothing is there."""
        del folder
        return []

    def size_bytes(self, path: str) -> int:
        """Raise: nothing is there."""
        raise _missing(path)

    def read(self, path: str, limit_bytes: int) -> bytes:
        """Raise: nothing is there."""
        del limit_bytes
        raise _missing(path)

    def download(self, path: str, to: Path) -> None:
        """Raise: nothing is there."""
        del to
        raise _missing(path)

    def descriptor(self, path: str) -> bytes:
        """Raise: nothing is there."""
        raise _missing(path)

    def free_bytes(self) -> int:
        """Return the volume's size; what the file system takes of it is little."""
        return self.size_of_volume_bytes

    def add_folder(self, path: str, access: Access) -> None:
        """Raise: the volume is not made yet."""
        del access
        raise _not_made(path)

    def add_file(self, path: str, content: bytes | Path, access: Access) -> None:
        """Raise: the volume is not made yet."""
        del content, access
        raise _not_made(path)

    def rewrite(self, path: str, content: bytes | Path) -> None:
        """Raise: the volume is not made yet."""
        del content
        raise _not_made(path)

    def remove(self, path: str) -> None:
        """Raise: the volume is not made yet."""
        raise _not_made(path)


def _missing(path: str) -> EngineFailed:
    return EngineFailed(f"Cannot read '{path}': it is not in the guest.")


def _not_made(path: str) -> EngineFailed:
    return EngineFailed(f"Cannot write '{path}': its volume is not made yet.")
