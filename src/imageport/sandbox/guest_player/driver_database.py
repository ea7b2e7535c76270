"""What the driver database says: by which names a device is looked for, and what it is offered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from imageport.sandbox.guest_player import registry
from imageport.sandbox.guest_player.registry import Hive


def compatible_ids(device: str) -> list[str]:
    """Return the ids under which a device may be named, most special first."""
    base, _, rest = device.upper().partition("&SUBSYS_")
    if not rest:
        return [base]  # on VMBus: its class is all there is
    subsystem, _, revision = rest.partition("&REV_")
    return [device.upper(), f"{base}&SUBSYS_{subsystem}", f"{base}&REV_{revision}", base]


def offers(databases: Iterable[Hive], device: str) -> Iterator[tuple[str, str]]:
    """Yield (service, INF) for a device, for the most special id first.

    An INF counts when its package says, for this very id, by which configuration it is installed.
    """
    hives = list(databases)
    for name in compatible_ids(device):
        for hive in hives:
            for inf in hive.key(f"DriverDatabase\\DeviceIds\\{name}") or {}:
                package = active_package(hive, inf)
                place = f"DriverDatabase\\DriverPackages\\{package}"
                for service in _services(hive, place, name):
                    yield service, inf


def active_package(hive: Hive, inf: str) -> str:
    """Return the folder in the driver store that an INF stands for, "" when it is not known."""
    return registry.text(hive.key(f"DriverDatabase\\DriverInfFiles\\{inf}"), "active")


def _services(hive: Hive, package: str, name: str) -> Iterator[str]:
    """Yield the service of the id's own configuration; without a descriptor that of any."""
    described = registry.text(hive.key(f"{package}\\Descriptors\\{name}"), "configuration")
    configurations = f"{package}\\Configurations"
    wanted = f"{configurations}\\{described}".lower()
    for path, key in hive.subtree(configurations).items():
        if described and path != wanted:
            continue
        if service := registry.text(key, "service"):
            yield service
