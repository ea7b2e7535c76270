"""Where a machine finds its disks: links with the names that udev gives them in that cloud."""

from __future__ import annotations

from pathlib import Path


class DeviceFolder:
    """The ``/dev`` of one machine, below a root of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._dev = root / "dev"
        self._dev.mkdir(parents=True, exist_ok=True)
        for left in self._dev.rglob("*"):
            if left.is_symlink():
                left.unlink()

    def plug(self, name: str, disk: Path) -> None:
        """Show a disk as ``/dev/NAME``; a second call is no error."""
        link = self._dev / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(disk)

    def unplug(self, name: str) -> None:
        """Take a disk away; one that is not there is no error."""
        (self._dev / name).unlink(missing_ok=True)
