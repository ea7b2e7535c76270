# References: Azure REST API, Resource Skus - List (2021-07-01), Usage - List.
"""What the region offers: sizes, and how much of them is used."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from imageport.sandbox.azure.account import LOCATION
from imageport.sandbox.azure.arm_body import ZONES
from imageport.sandbox.azure.arm_errors import ArmError
from imageport.sandbox.azure.arm_messages import ArmAnswer, ArmRequest
from imageport.sandbox.azure.emulator import Emulator
from imageport.sandbox.azure.machine_sizes import SIZES, MachineSize, find_size

Json = dict[str, Any]
REGIONAL = "cores"
"""The usage of all families together."""
_FILTER = re.compile(r"\s*location\s+eq\s+'([^']+)'\s*", re.IGNORECASE)
_DISK_SKUS = ("Standard_LRS", "StandardSSD_LRS", "Premium_LRS")


def list_skus(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer GET of the resource SKUs; ``$filter=location eq '…'`` is the only filter."""
    wanted = request.query.get("$filter", "")
    if wanted:
        found = _FILTER.fullmatch(wanted)
        if found is None:
            raise ArmError(400, "InvalidFilterInQueryString", f"Invalid $filter '{wanted}'.")
        if found[1].replace(" ", "").lower() != LOCATION:
            return ArmAnswer(200, {"value": []})
    missing = {item.lower() for item in emulator.knobs.missing_sizes}
    sizes = [_sku(size, missing=size.name.lower() in missing) for size in SIZES]
    disks = [_disk_sku(name) for name in _DISK_SKUS]
    return ArmAnswer(200, {"value": sizes + disks})


def _sku(size: MachineSize, *, missing: bool) -> Json:
    capabilities = {
        "vCPUs": str(size.vcpus),
        "MemoryGB": str(size.memory_gib),
        "MaxDataDiskCount": str(size.data_disks),
        "HyperVGenerations": ",".join(size.generations),
        "CpuArchitectureType": size.architecture,
        "PremiumIO": "True",
        "AcceleratedNetworkingEnabled": "True",
        # Sizes that only have SCSI do not carry the capability at all.
        **(
            {"DiskControllerTypes": ",".join(size.controllers)}
            if size.controllers != ("SCSI",)
            else {}
        ),
    }
    restriction = {
        "type": "Location",
        "values": [LOCATION],
        "restrictionInfo": {"locations": [LOCATION]},
        "reasonCode": "NotAvailableForSubscription",
    }
    return {
        "resourceType": "virtualMachines",
        "name": size.name,
        "tier": "Standard",
        "size": size.name.removeprefix("Standard_"),
        "family": size.family,
        "locations": [LOCATION],
        "locationInfo": [{"location": LOCATION, "zones": list(ZONES), "zoneDetails": []}],
        "capabilities": [{"name": name, "value": value} for name, value in capabilities.items()],
        "restrictions": [restriction] if missing else [],
    }


def _disk_sku(name: str) -> Json:
    return {
        "resourceType": "disks",
        "name": name,
        "tier": name.split("_", maxsplit=1)[0],
        "locations": [LOCATION],
        "locationInfo": [{"location": LOCATION, "zones": list(ZONES), "zoneDetails": []}],
        "capabilities": [],
        "restrictions": [],
    }


def used_vcpus(emulator: Emulator, without: str = "") -> Counter[str]:
    """Return vCPUs by family and in all; machines that are deallocated count too.

    So says "Check vCPU quotas": the total of cores in use, allocated and deallocated.
    """
    used: Counter[str] = Counter()
    for machine in emulator.resources.of_type("Microsoft.Compute/virtualMachines"):
        if str(machine["id"]).lower() == without:
            continue
        size = find_size(machine["properties"]["hardwareProfile"]["vmSize"])
        if size is not None:
            used[size.family] += size.vcpus
            used[REGIONAL] += size.vcpus
    return used


def list_usages(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer GET of the compute usages of a location."""
    location = request.names["location"].replace(" ", "").lower()
    if location != LOCATION:
        text = f"The provided location '{location}' is not available for resource type 'usages'."
        raise ArmError(400, "NoRegisteredProviderFound", text)
    used = used_vcpus(emulator)
    names = {REGIONAL: "Total Regional vCPUs"}
    names |= {size.family: f"{size.family} vCPUs" for size in SIZES}
    machines = sum(1 for _ in emulator.resources.of_type("Microsoft.Compute/virtualMachines"))
    rows = [
        _usage(name, text, used[name], emulator.knobs.quota_vcpus) for name, text in names.items()
    ]
    rows.append(_usage("virtualMachines", "Virtual Machines", machines, 25000))
    return ArmAnswer(200, {"value": rows})


def _usage(name: str, text: str, used: int, limit: int) -> Json:
    return {
        "unit": "Count",
        "currentValue": used,
        "limit": limit,
        "name": {"value": name, "localizedValue": text},
    }
