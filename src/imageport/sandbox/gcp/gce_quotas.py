# References: Compute Engine, "Allocation quotas"; REST v1 regions.get, projects.get.
"""How much of everything there may be, and how much there is."""

from __future__ import annotations

from collections import Counter
from typing import Final

from imageport.sandbox.gcp.account import REGION
from imageport.sandbox.gcp.gce_compute import Compute
from imageport.sandbox.gcp.gce_machine_types import DISK_TYPES, TYPES, find_type
from imageport.sandbox.gcp.gce_messages import Json, over_quota
from imageport.sandbox.gcp.gce_names import name_of

REGIONAL: Final = {
    "CPUS": 24.0,
    **{name: 24.0 for item in TYPES for name in item.quotas},
    "INSTANCES": 100.0,
    "DISKS_TOTAL_GB": 4096.0,
    "SSD_TOTAL_GB": 2048.0,
    "HDB_TOTAL_GB": 2048.0,
    "IN_USE_ADDRESSES": 8.0,
    "STATIC_ADDRESSES": 8.0,
}
"""Limits of the region, unless the knob says otherwise."""
OVERALL: Final = {
    "IMAGES": 2000.0,
    "FIREWALLS": 200.0,
    "NETWORKS": 5.0,
    "SNAPSHOTS": 5000.0,
    "CPUS_ALL_REGIONS": 64.0,
}
"""Limits of the project."""


def regional_quotas(compute: Compute) -> list[Json]:
    """Return the quotas of the region with what is used."""
    return _rows(compute, REGIONAL, _used_of_region(compute))


def project_quotas(compute: Compute) -> list[Json]:
    """Return the quotas of the project with what is used."""
    return _rows(compute, OVERALL, _used_of_project(compute))


def check_quota(compute: Compute, metric: str, more: float) -> None:
    """Refuse with 403 what would exceed a quota."""
    in_region = metric in REGIONAL
    used = _used_of_region(compute) if in_region else _used_of_project(compute)
    limit = compute.knobs.quotas.get(metric, (REGIONAL if in_region else OVERALL)[metric])
    if used[metric] + more > limit:
        where = f"in region {REGION}" if in_region else "globally"
        raise over_quota(metric, float(limit), where)


def _rows(compute: Compute, limits: dict[str, float], used: Counter[str]) -> list[Json]:
    return [
        {"metric": name, "limit": compute.knobs.quotas.get(name, limit), "usage": used[name] + 0.0}
        for name, limit in limits.items()
    ]


def _used_of_region(compute: Compute) -> Counter[str]:
    used: Counter[str] = Counter()
    for _, machine in compute.table.of_type("instances"):
        found = find_type(name_of(machine["machineType"]))
        # Stopped machines use none of these.
        if found is None or machine["status"] == "TERMINATED":
            continue
        used["INSTANCES"] += 1
        for name in found.quotas:
            used[name] += found.vcpus
        for interface in machine["networkInterfaces"]:
            used["IN_USE_ADDRESSES"] += len(interface.get("accessConfigs", []))
    for _, disk in compute.table.of_type("disks"):
        used[DISK_TYPES[name_of(disk["type"])][1]] += int(disk["sizeGb"])
    return used


def _used_of_project(compute: Compute) -> Counter[str]:
    kinds = {"images": "IMAGES", "firewalls": "FIREWALLS", "networks": "NETWORKS"}
    used: Counter[str] = Counter()
    for kind, metric in kinds.items():
        used[metric] = sum(1 for _ in compute.table.of_type(kind))
    region = _used_of_region(compute)
    used["CPUS_ALL_REGIONS"] = sum(
        region[name] for name in {one for item in TYPES for one in item.quotas}
    )
    return used
