"""The Windows volume mounted in libguestfs' machine.

Descriptors are set by ``setfattr`` inside that machine: libguestfs' own xattr call takes text, and
a descriptor is bytes (its Python binding refuses the first NUL). What was set is read back.
"""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import Any

from imageport.compose.volumes.descriptors import Access
from imageport.compose.volumes.guest_files import GuestFiles
from imageport.errors import EngineFailed

_ACL = "system.ntfs_acl"
_SYSROOT = "/sysroot"
"""Where libguestfs mounts guests in its own machine."""


class MountedFiles(GuestFiles):
    """Files below ``mount`` of a launched libguestfs handle."""

    def __init__(self, handle: Any, mount: str, *, has_descriptors: bool = True) -> None:
        self._handle = handle
        self._mount = mount
        self._has_descriptors = has_descriptors  # FAT, of the EFI partition, has none
        self._folders: dict[str, list[str]] = {}

    def exists(self, path: str) -> bool:
        """Say whether it is there."""
        folder, _, name = path.rpartition("/")
        return not name or any(name.lower() == known.lower() for known in self.names(folder))

    def is_folder(self, path: str) -> bool:
        """Say whether it is a folder."""
        place = self._resolve(path)
        return place is not None and bool(self._handle.is_dir(place))

    def names(self, folder: str) -> list[str]:
        """Return a folder's names; asked once per folder."""
        key = folder.lower()
        if key not in self._folders:
            place = self._resolve(folder)
            is_there = place is not None and self._handle.is_dir(place)
            self._folders[key] = sorted(self._handle.ls(place)) if is_there else []
        return self._folders[key]

    def size_bytes(self, path: str) -> int:
        """Return a file's size."""
        return int(self._handle.filesize(self._need(path)))

    def read(self, path: str, limit_bytes: int) -> bytes:
        """Return a file's first bytes."""
        place = self._need(path)
        pieces: list[bytes] = []
        done = 0
        while done < limit_bytes:  # one message to the appliance holds less than 4 MiB
            try:
                piece = self._handle.pread(place, min(limit_bytes - done, 1024 * 1024), done)
            except RuntimeError as error:  # a kind of compression that the driver cannot read
                raise EngineFailed(f"Cannot read '{path}': {error}.") from error
            if not piece:
                break
            pieces.append(piece)
            done += len(piece)
        return b"".join(pieces)

    def download(self, path: str, to: Path) -> None:
        """Copy a file to this machine."""
        place = self._need(path)
        try:
            self._handle.download(place, str(to))
        except RuntimeError as error:  # as above
            raise EngineFailed(f"Cannot read '{path}': {error}.") from error

    def descriptor(self, path: str) -> bytes:
        """Return the security descriptor."""
        return self._acl(self._need(path))

    def free_bytes(self) -> int:
        """Return the free space of the volume."""
        facts = self._handle.statvfs(self._mount)
        return int(facts["bavail"] * facts["bsize"])

    def add_folder(self, path: str, access: Access) -> None:
        """Make a new folder."""
        place = self._new(path)
        self._handle.mkdir(place)
        self._set_descriptor(place, access.descriptor(is_folder=True))

    def add_file(self, path: str, content: bytes | Path, access: Access) -> None:
        """Make a new file."""
        place = self._new(path)
        # First the descriptor, then the content: never a moment in which everybody may change it.
        self._handle.touch(place)
        self._set_descriptor(place, access.descriptor(is_folder=False))
        self._put(place, content)

    def rewrite(self, path: str, content: bytes | Path) -> None:
        """Put new content into an existing file: upload truncates it, so it stays the same file."""
        place = self._need(path)
        before = self._acl(place)
        self._put(place, content)
        if self._acl(place) != before:
            raise EngineFailed(f"Cannot rewrite '{path}': its security descriptor changed.")

    def remove(self, path: str) -> None:
        """Remove a file or a whole folder."""
        if not path.strip("/"):
            raise EngineFailed("Cannot remove '': it would be the whole volume.")
        place = self._need(path)
        self._handle.rm_rf(place)
        key = path.lower()
        stale = [k for k in self._folders if k == key or k.startswith(key + "/")]
        for known in [*stale, key.rpartition("/")[0]]:
            self._folders.pop(known, None)
        if self.exists(path):
            raise EngineFailed(f"Cannot remove '{path}': it is still there.")

    def settle(self) -> None:
        """Have the machine write what it holds in memory."""
        self._handle.sync()

    def _put(self, place: str, content: bytes | Path) -> None:
        if isinstance(content, Path):
            self._handle.upload(str(content), place)
            return
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            self._handle.upload(file.name, place)

    def _acl(self, place: str) -> bytes:
        return bytes(self._handle.lgetxattr(place, _ACL)) if self._has_descriptors else b""

    def _set_descriptor(self, place: str, descriptor: bytes) -> None:
        if not self._has_descriptors:
            return
        inside = shlex.quote(_SYSROOT + place)
        self._handle.debug("sh", [f"setfattr -h -n {_ACL} -v 0x{descriptor.hex()} {inside}"])
        found = self._handle.lgetxattr(place, _ACL)
        if found != descriptor:
            raise EngineFailed(f"Cannot protect '{place}': its security descriptor did not stay.")

    def _new(self, path: str) -> str:
        folder, _, name = path.rpartition("/")
        if self.exists(path):
            raise EngineFailed(f"Cannot add '{path}': it exists already.")
        self._folders.pop(folder.lower(), None)
        self._folders.pop(path.lower(), None)
        return f"{self._need(folder)}/{name}"

    def _need(self, path: str) -> str:
        place = self._resolve(path)
        if place is None:
            raise EngineFailed(f"Cannot read '{path}': it is not in the guest.")
        return place

    def _resolve(self, path: str) -> str | None:
        """Return the path as it is spelled on the volume."""
        folder, _, name = path.rpartition("/")
        if not name:
            return self._mount
        parent = self._resolve(folder)
        if parent is None:
            return None
        spelled = [known for known in self.names(folder) if known.lower() == name.lower()]
        return f"{parent}/{spelled[0]}" if spelled else None
