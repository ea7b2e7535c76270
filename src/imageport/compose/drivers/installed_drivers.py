"""Which devices the guest has drivers for, from its driver databases."""

from __future__ import annotations

from collections.abc import Iterator

from imageport.compose.drivers.inf import id_matches
from imageport.compose.hives.hive import Key
from imageport.compose.hives.registry import Registry

_DATABASES = ("DRIVERS", "SYSTEM")
"""Drivers that are needed to boot are in SYSTEM, all others in DRIVERS (Windows 8 and later)."""


def infs_for(registry: Registry, hardware_id: str) -> list[tuple[str, str]]:
    """Return (hive, INF name) of every installed driver that covers a hardware id."""
    found: set[tuple[str, str]] = set()
    bus, _, device = hardware_id.partition("\\")
    for hive in _DATABASES:
        for key in _devices(registry, hive, bus):
            if id_matches(key.name, device):
                found.update((hive, name) for name in key.values() if name)
    return sorted(found)


def package_of(registry: Registry, hive: str, inf_name: str) -> str:
    """Return the driver store's folder of an INF, "" when the database does not say."""
    place = f"DriverDatabase\\DriverInfFiles\\{inf_name}"
    active = registry.text(hive, place, "Active")
    if active:
        return active
    value = registry.value(hive, place, "")
    return next(iter(value.as_texts()), "") if value else ""


def services_of(registry: Registry, hive: str, package: str) -> list[str]:
    """Return the services that a package's configurations name."""
    key = registry.key(hive, f"DriverDatabase\\DriverPackages\\{package}\\Configurations")
    values = [child.value("Service") for child in key.children()] if key else []
    return sorted({value.as_text() for value in values if value and value.as_text()})


def _devices(registry: Registry, hive: str, bus: str) -> Iterator[Key]:
    key = registry.key(hive, f"DriverDatabase\\DeviceIds\\{bus}")
    yield from key.children() if key else []
