# References: Amazon EC2 User Guide, "Amazon EBS volumes and NVMe": the volume id is the serial.
"""Where a machine finds its disks: links with the names that udev gives EBS volumes."""

from __future__ import annotations

from pathlib import Path

PREFIX = "nvme-Amazon_Elastic_Block_Store_"


class DeviceFolder:
    """The ``/dev/disk/by-id`` of one machine, below a root of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._by_id = root / "dev" / "disk" / "by-id"
        self._by_id.mkdir(parents=True, exist_ok=True)
        for left in self._by_id.iterdir():
            left.unlink()

    def plug(self, volume_id: str, disk: Path) -> None:
        """Show a volume; a second call is no error."""
        link = self._link(volume_id)
        if not link.is_symlink():
            link.symlink_to(disk)

    def unplug(self, volume_id: str) -> None:
        """Take a volume away; one that is not there is no error."""
        self._link(volume_id).unlink(missing_ok=True)

    def _link(self, volume_id: str) -> Path:
        return self._by_id / (PREFIX + volume_id.replace("-", ""))
