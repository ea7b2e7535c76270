# References: Azure Compute REST, "Resource Skus - List", "Usage - List".
"""What Azure says about machine sizes here: what they are, whether one can have them, what is left.

Both questions are asked of the subscription, not of the resource group; credentials that may not
ask them can still work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from imageport.clouds.azure.account import AzureAccount
from imageport.clouds.azure.error_mapping import asked
from imageport.errors import PermissionMissing

SCSI, NVME = "SCSI", "NVMe"
REGIONAL_VCPUS: Final = "cores"
"""Name of the usage that counts the vCPUs of all families in the region."""


@dataclass(frozen=True, slots=True)
class MachineSize:
    """One size in the settings' location."""

    name: str
    family: str
    """``standardDSv5Family``: the quota that the size counts for."""
    vcpus: int
    generations: tuple[str, ...]
    """``V1`` and ``V2``."""
    architecture: str
    """``x64`` or ``Arm64``."""
    premium: bool
    """Whether it takes Premium SSD."""
    controllers: tuple[str, ...]
    """``SCSI`` and ``NVMe``; sizes that say nothing have SCSI."""
    zones: tuple[str, ...]
    """Zones that have the size."""
    closed: str = ""
    """Azure's reason when the subscription may not use it in this location at all."""
    closed_zones: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Quota:
    """How many vCPUs are in use and how many may be."""

    used: int
    limit: int

    @property
    def left(self) -> int:
        """Return how many more there may be."""
        return max(0, self.limit - self.used)


def machine_sizes(account: AzureAccount) -> dict[str, MachineSize]:
    """Return the sizes of the location by lower-case name."""
    location = account.settings.location
    with asked("Microsoft.Compute/skus/read", location):
        items = account.clients.compute.resource_skus.list(filter=f"location eq '{location}'")
        found = [item.as_dict() for item in items]
    sizes = [_size(item) for item in found if item.get("resourceType") == "virtualMachines"]
    return {size.name.lower(): size for size in sizes}


def disk_controller(account: AzureAccount, size: str) -> str:
    """Return the controller to ask for: `NVME` where the size has no other, else ""."""
    try:
        found = machine_sizes(account).get(size.lower())
    except PermissionMissing:
        return ""  # Azure then takes the size's own default
    return NVME if found is not None and SCSI not in found.controllers else ""


def vcpu_quotas(account: AzureAccount) -> dict[str, Quota]:
    """Return the vCPU quotas of the location by lower-case name of family, and `REGIONAL_VCPUS`."""
    location = account.settings.location
    with asked("Microsoft.Compute/locations/usages/read", location):
        found = [item.as_dict() for item in account.clients.compute.usage.list(location)]
    return {
        str((item.get("name") or {}).get("value", "")).lower(): Quota(
            int(item["currentValue"]), int(item["limit"])
        )
        for item in found
    }


def _size(item: dict[str, Any]) -> MachineSize:
    known = {one["name"]: str(one["value"]) for one in item.get("capabilities") or []}
    zones = [zone for info in item.get("locationInfo") or [] for zone in info.get("zones") or []]
    restrictions: list[dict[str, Any]] = item.get("restrictions") or []
    closed = [
        str(one.get("reasonCode", "restricted"))
        for one in restrictions
        if str(one.get("type", "")).lower() == "location"
    ]
    closed_zones = [
        zone
        for one in restrictions
        if str(one.get("type", "")).lower() == "zone"
        for zone in (one.get("restrictionInfo") or {}).get("zones") or []
    ]
    return MachineSize(
        name=str(item["name"]),
        family=str(item.get("family", "")),
        vcpus=int(float(known.get("vCPUs", "0"))),
        generations=_listed(known.get("HyperVGenerations", "V1")),
        architecture=known.get("CpuArchitectureType", "x64"),
        premium=known.get("PremiumIO", "").lower() == "true",
        controllers=_listed(known.get("DiskControllerTypes", SCSI)),
        zones=tuple(sorted(zones)),
        closed=closed[0] if closed else "",
        closed_zones=tuple(sorted(closed_zones)),
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
