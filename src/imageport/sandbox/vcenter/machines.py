"""The master machines of an embedded vCenter, as its program reads them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

DATASTORE = "masters"
"""The name of the one datastore; it is a folder."""
DATACENTER = "DC0"


@dataclass(frozen=True, slots=True)
class MasterDisk:
    """A disk whose contents are a raw file in the datastore, as long as its capacity."""

    name: str
    """Of its descriptor, without ending."""
    controller: str = "pvscsi"
    """Also ``lsilogic``, ``lsilogic-sas``, ``nvme``, ``sata``."""
    bus: int = 0
    unit: int = 0
    boot: bool = False
    """Whether the machine's boot order names it."""


@dataclass(frozen=True, slots=True)
class MasterMachine:
    """A machine at the start of the vCenter."""

    name: str
    disks: tuple[MasterDisk, ...]
    folder: str = "masters"
    """Below the datacenter's ``vm``."""
    firmware: str = "efi"
    powered_on: bool = False
    change_tracking: bool = True
    snapshots: tuple[str, ...] = ()
    """Taken at the start, oldest first."""

    @property
    def path(self) -> str:
        """Return its inventory path."""
        return "".join(f"/{part}" for part in (DATACENTER, "vm", self.folder, self.name) if part)

    def flat_file(self, datastore: Path, disk: MasterDisk) -> Path:
        """Return the raw file of a disk; it is made before the vCenter starts."""
        return datastore / self._flat(disk)

    def as_json(self) -> dict[str, Any]:
        """Return what the program reads."""
        found = asdict(self)
        for disk, values in zip(self.disks, found["disks"], strict=True):
            values["flat"] = self._flat(disk)
            del values["name"]
        return found

    def _flat(self, disk: MasterDisk) -> str:
        return f"{self.name}/{disk.name}-flat.vmdk"
