# References: Compute Engine REST v1: machineTypes.get, diskTypes.get; "Use Google Virtual NIC".
"""What about machine types and the disk type would stop an image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from google.cloud import compute_v1

from imageport.cloud import PlaceProblem
from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.lookups import look_up
from imageport.clouds.gcp.machine_series import takes_adapter, takes_disk

MACHINES: Final = ("engine_machine_type", "boot_machine_type")
"""The settings that name one."""
ANOTHER_HINT: Final = "Name another machine type, or another zone that has it."


def check_machines(
    account: GcpAccount, sizes: dict[str, tuple[str, int]]
) -> Iterator[PlaceProblem]:
    """Yield why a machine of a named type could not be made here, or not boot the image.

    Args:
        account: Of the run.
        sizes: Gets, by setting, machine type and vCPUs of what exists.
    """
    for setting in MACHINES:
        name = getattr(account.settings, setting)
        found = _machine_type(account, name)
        if found is None:
            where = f"'{name}', which '{account.settings.zone}' does not offer"
            yield PlaceProblem(setting, where, "a machine type that it offers", ANOTHER_HINT)
            continue
        sizes[setting] = (name, int(found.guest_cpus))
        yield from _unfit(account, setting, found)


def _machine_type(account: GcpAccount, name: str) -> compute_v1.MachineType | None:
    settings = account.settings
    types = account.clients.compute(compute_v1.MachineTypesClient)
    return look_up(
        "compute.machineTypes.get",
        name,
        lambda: types.get(project=settings.project, zone=settings.zone, machine_type=name),
    )


def _unfit(account: GcpAccount, setting: str, found: Any) -> Iterator[PlaceProblem]:
    settings, name = account.settings, found.name
    if found.architecture == "ARM64":
        yield PlaceProblem(setting, f"'{name}' with ARM64", "x86-64 processors")
    if found.deprecated.state in {"OBSOLETE", "DELETED"}:
        yield PlaceProblem(setting, f"'{name}', which is {found.deprecated.state}", "one in use")
    if setting == "boot_machine_type" and not takes_adapter(name, settings.nic_type):
        yield PlaceProblem(
            "nic_type",
            f"{settings.nic_type} at {setting} '{name}'",
            "GVNIC, the only adapter of that series",
        )
    if not takes_disk(name, settings.disk_type):
        # Both machines get the one disk, so both have to take its type.
        yield PlaceProblem(
            setting,
            f"'{name}', which takes no {settings.disk_type}",
            f"a series that does, or another disk_type for both of {', '.join(MACHINES)}",
        )


def check_disk_type(account: GcpAccount) -> Iterator[PlaceProblem]:
    """Yield when the zone does not offer the disk type."""
    settings = account.settings
    types = account.clients.compute(compute_v1.DiskTypesClient)
    found = look_up(
        "compute.diskTypes.get",
        settings.disk_type,
        lambda: types.get(
            project=settings.project, zone=settings.zone, disk_type=settings.disk_type
        ),
    )
    if found is None:
        where = f"'{settings.disk_type}', which '{settings.zone}' does not offer"
        yield PlaceProblem("disk_type", where, "a disk type that it offers")
