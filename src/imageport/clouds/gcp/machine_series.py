# References: Compute Engine, "Machine families resource and comparison guide", "Use Google Virtual
# NIC", "Choose a disk type" (machine series support).
"""What Google's documents say about machine series and its API does not tell: adapters and disks.

A series that is in no table here is newer than the table: nothing is said about it.
"""

from __future__ import annotations

from typing import Final

PERSISTENT_DISK: Final = "pd-"
HYPERDISK_BALANCED: Final = "hyperdisk-balanced"

_FIRST_GENERATIONS: Final = frozenset(
    {"a2", "c2", "c2d", "e2", "f1", "g1", "g2", "m1", "m2", "n1", "n2", "n2d", "t2d"}
)
"""The only ones that take VirtIO-Net; what came later has gVNIC alone."""
_HYPERDISK_ONLY: Final = frozenset(
    {"a4", "c4", "c4a", "c4d", "h4d", "m4", "n4", "n4a", "n4d", "x4"}
)
_WITHOUT_HYPERDISK_BALANCED: Final = frozenset(
    {"a2", "c2", "c2d", "e2", "f1", "g1", "g2", "n1", "n2", "n2d", "t2a", "t2d"}
)
_OF_COMMON_QUOTA: Final = frozenset({"e2", "f1", "g1", "n1"})


def series_of(machine_type: str) -> str:
    """Return ``n2`` of ``n2-standard-2``."""
    return machine_type.partition("-")[0]


def takes_adapter(machine_type: str, nic_type: str) -> bool:
    """Tell whether machines of this type have the network adapter."""
    return nic_type == "GVNIC" or series_of(machine_type) in _FIRST_GENERATIONS


def takes_disk(machine_type: str, disk_type: str) -> bool:
    """Tell whether disks of this type can be attached to machines of this one."""
    series = series_of(machine_type)
    if disk_type.startswith(PERSISTENT_DISK):
        return series not in _HYPERDISK_ONLY
    if disk_type == HYPERDISK_BALANCED:
        return series not in _WITHOUT_HYPERDISK_BALANCED
    return True


def cpu_quotas(machine_type: str) -> tuple[str, ...]:
    """Return the names that a region's quota for these machines may have, the narrowest first."""
    series = series_of(machine_type)
    own = f"{series.upper()}_CPUS"
    return (own, "CPUS") if series in _OF_COMMON_QUOTA else (own,)


def disk_quota(disk_type: str) -> str:
    """Return the name of the region's quota for a disk type; empty when it has none there."""
    if disk_type == "pd-standard":
        return "DISKS_TOTAL_GB"
    if disk_type in {"pd-balanced", "pd-ssd"}:
        return "SSD_TOTAL_GB"
    return "HDB_TOTAL_GB" if disk_type == HYPERDISK_BALANCED else ""
