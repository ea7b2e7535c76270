# References: Azure Compute REST, "Resource Skus - List", "Usage - List"; "vCPU quotas".
"""What about machine sizes and quotas would stop an image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from imageport.cloud import PlaceProblem
from imageport.clouds.azure.account import AzureAccount
from imageport.clouds.azure.machine_sizes import (
    NVME,
    REGIONAL_VCPUS,
    SCSI,
    MachineSize,
    machine_sizes,
    vcpu_quotas,
)

MACHINES: Final = ("engine_vm_size", "boot_vm_size")
"""The settings that name one."""


def check_machines(account: AzureAccount) -> Iterator[PlaceProblem]:
    """Yield why a machine of a named size could not be made here, or not boot the image."""
    settings = account.settings
    sizes = machine_sizes(account)
    if not sizes:
        yield PlaceProblem("location", f"'{settings.location}'", "a location with machines")
        return
    for setting in MACHINES:
        name = getattr(settings, setting)
        size = sizes.get(name.lower())
        if size is None:
            where = f"'{settings.location}' does not offer"
            yield PlaceProblem(setting, f"'{name}', which {where}", "a size that it offers")
            continue
        yield from _unavailable(account, setting, size)
        yield from _unfit(account, setting, size)


def _unavailable(account: AzureAccount, setting: str, size: MachineSize) -> Iterator[PlaceProblem]:
    zone, location = account.settings.zone, account.settings.location
    hint = "Name another size or zone, or ask Azure for access to this one."
    if size.closed:
        found = f"'{size.name}', closed in '{location}' ({size.closed})"
        yield PlaceProblem(setting, found, "a size that the subscription may use", hint)
    elif zone and (zone not in size.zones or zone in size.closed_zones):
        left = [one for one in size.zones if one not in size.closed_zones]
        found = f"'{size.name}', not to be had in zone {zone}"
        yield PlaceProblem(setting, found, f"zone {' or '.join(left) or 'left empty'}", hint)


def _unfit(account: AzureAccount, setting: str, size: MachineSize) -> Iterator[PlaceProblem]:
    if size.architecture.lower() != "x64":
        yield PlaceProblem(setting, f"'{size.name}' with {size.architecture}", "x64 processors")
    if "V2" not in size.generations:
        yield PlaceProblem(
            setting, f"'{size.name}' without generation 2", "one with UEFI, as the image has"
        )
    if not {SCSI, NVME} & set(size.controllers):
        found = f"'{size.name}' with {', '.join(size.controllers)} disks"
        yield PlaceProblem(setting, found, f"{SCSI} or {NVME}")
    if account.settings.disk_sku.startswith("Premium") and not size.premium:
        found = f"'{size.name}', which takes no Premium SSD"
        yield PlaceProblem(setting, found, f"one that takes {account.settings.disk_sku}")


def check_quota(account: AzureAccount) -> Iterator[PlaceProblem]:
    """Yield where vCPUs are short.

    The machines of a run follow each other, so each has to fit for itself.
    """
    sizes = machine_sizes(account)
    named = [
        (setting, sizes.get(getattr(account.settings, setting).lower())) for setting in MACHINES
    ]
    wanted = [(setting, size) for setting, size in named if size is not None]
    # A location without sizes has no quotas to ask for either.
    quotas = vcpu_quotas(account) if wanted else {}
    seen: set[str] = set()
    for setting, size in wanted:
        for name in (size.family, REGIONAL_VCPUS):
            quota = quotas.get(name.lower())
            if quota is None or quota.left >= size.vcpus or name in seen:
                continue
            seen.add(name)
            what = "all families together" if name == REGIONAL_VCPUS else name
            yield PlaceProblem(
                f"vCPU quota of {what}",
                f"{quota.limit}, of which {quota.used} are in use",
                f"{size.vcpus} more for {setting}",
                "Raise the quota of the subscription in this location, or name a smaller size.",
            )
