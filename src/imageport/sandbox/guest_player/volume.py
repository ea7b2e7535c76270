"""The mounted Windows volume: names without regard to case, new files with inherited access."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath

from imageport.sandbox.guest_player.descriptors import inherited
from imageport.sandbox.guest_player.programs import PlayerError, run

_ACL = "system.ntfs_acl"


class WindowsVolume:
    """Drive C: while Windows runs."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, path: str) -> Path | None:
        """Return where a Windows path lies on this machine, None when it is not there."""
        found = self._root
        for name in _parts(path):
            direct = found / name
            if direct.exists():
                found = direct
                continue
            if not found.is_dir():
                return None
            same = [entry for entry in found.iterdir() if entry.name.lower() == name.lower()]
            if not same:
                return None
            found = same[0]
        return found

    def exists(self, path: str) -> bool:
        """Tell whether there is such a file or folder."""
        return self.find(path) is not None

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes, None when it is not there."""
        found = self.find(path)
        return found.read_bytes() if found is not None and found.is_file() else None

    def make_folder(self, path: str) -> Path:
        """Return the folder, made with what its parent hands down."""
        found = self._root
        for depth, name in enumerate(_parts(path), start=1):
            known = self.find("\\".join(_parts(path)[:depth]))
            if known is None:
                known = found / name
                known.mkdir()
                self._inherit(found, known)
            found = known
        return found

    def write(self, path: str, data: bytes) -> None:
        """Write a file: one that exists in place, a new one with what its folder hands down."""
        *folders, name = _parts(path)
        folder = self.make_folder("\\".join(folders))
        target = self.find(path)
        if target is None:
            target = folder / name
            target.write_bytes(data)
            self._inherit(folder, target)
        else:
            target.write_bytes(data)

    def names(self, path: str) -> list[str]:
        """Return the names in a folder."""
        found = self.find(path)
        return sorted(entry.name for entry in found.iterdir()) if found is not None else []

    @staticmethod
    def _inherit(folder: Path, child: Path) -> None:
        parent = os.getxattr(folder, _ACL)
        os.setxattr(child, _ACL, inherited(parent, folder=child.is_dir()))


@contextmanager
def mounted(image: Path) -> Iterator[WindowsVolume]:
    """Mount a volume's image for reading and writing; clean when the block is left."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        raise PlayerError("Cannot play the boot: mounting NTFS needs root and /dev/fuse.")
    mount = image.with_suffix(".mount")
    mount.mkdir()
    try:
        run("ntfs-3g", "-o", "permissions,noatime,norecover", image, mount)
        try:
            yield WindowsVolume(mount)
        finally:
            run("umount", mount)
    finally:
        mount.rmdir()


def _parts(path: str) -> tuple[str, ...]:
    """Return the names in a path below the drive, whatever way Windows writes it."""
    text = path.strip().strip('"').removeprefix("\\??\\")
    for prefix in ("\\systemroot\\", "%systemroot%\\", "%windir%\\"):
        if text.lower().startswith(prefix):
            text = "Windows\\" + text[len(prefix) :]
    if text.lower().startswith("system32\\"):
        text = "Windows\\" + text
    return tuple(part for part in PureWindowsPath(text).parts if ":" not in part and part != "\\")
