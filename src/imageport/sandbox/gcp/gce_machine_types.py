# References: Compute Engine, "General-purpose machine family", "Choose a disk type", "Use Google
# Virtual NIC", "About NVMe disks" (disk interfaces by machine series).
"""The machine types and disk types that the emulated zone offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MOST_DISKS: Final = 128


@dataclass(frozen=True, slots=True)
class MachineType:
    """One machine type."""

    name: str
    vcpus: int
    memory_mb: int
    nic_types: tuple[str, ...] = ("GVNIC", "VIRTIO_NET")
    disk_interface: str = "SCSI"
    disk_types: tuple[str, ...] = ("pd-standard", "pd-balanced", "pd-ssd")
    architecture: str = "X86_64"
    quotas: tuple[str, ...] = ("CPUS",)
    """Of the region, for its vCPUs."""

    @property
    def platform(self) -> str:
        """Return the hardware as the hypervisor names it."""
        return "gcp-nvme" if self.disk_interface == "NVME" else "gcp"


_THIRD: Final = ("GVNIC",)
_HYPERDISK: Final = ("hyperdisk-balanced",)
TYPES: Final = (
    MachineType("e2-medium", 2, 4096),
    MachineType("e2-standard-2", 2, 8192),
    MachineType("e2-standard-4", 4, 16384),
    MachineType("n1-standard-2", 2, 7680),
    MachineType("n2-standard-2", 2, 8192, quotas=("N2_CPUS",)),
    MachineType("n2-standard-4", 4, 16384, quotas=("N2_CPUS",)),
    MachineType("n2d-standard-2", 2, 8192, quotas=("N2D_CPUS",)),
    MachineType(
        "c3-standard-4", 4, 16384, _THIRD, "NVME",
        ("pd-balanced", "pd-ssd", "hyperdisk-balanced"), quotas=("C3_CPUS",),
    ),
    MachineType("n4-standard-2", 2, 8192, _THIRD, "NVME", _HYPERDISK, quotas=("N4_CPUS",)),
    MachineType("c4-standard-2", 2, 7168, _THIRD, "NVME", _HYPERDISK, quotas=("C4_CPUS",)),
    MachineType(
        "t2a-standard-1", 1, 4096, ("GVNIC",), "NVME", architecture="ARM64", quotas=("T2A_CPUS",)
    ),
)  # fmt: skip
DISK_TYPES: Final = {
    "pd-standard": (1, "DISKS_TOTAL_GB", "10GB-65536GB"),
    "pd-balanced": (1, "SSD_TOTAL_GB", "10GB-65536GB"),
    "pd-ssd": (1, "SSD_TOTAL_GB", "10GB-65536GB"),
    "hyperdisk-balanced": (4, "HDB_TOTAL_GB", "4GB-65536GB"),
}
"""Least size in GiB, quota of the region, and what Google says of the size: persistent disks of
1 GiB are made in spite of it."""
LARGEST_DISK_GIB: Final = 65536


def find_type(name: str) -> MachineType | None:
    """Return a machine type by its name."""
    return next((item for item in TYPES if item.name == name), None)
