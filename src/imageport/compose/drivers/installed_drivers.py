"""Which devices the guest has drivers for, from its driver databases and its driver store."""

from __future__ import annotations

import re
import struct
from collections.abc import Collection
from dataclasses import dataclass

from imageport.compose.drivers.inf import DriverVersion
from imageport.compose.hives.registry import Registry
from imageport.compose.volumes.guest_files import GuestFiles

DATABASE = "DriverDatabase"
DATABASES = ("DRIVERS", "SYSTEM")
"""Drivers that are needed to boot are in SYSTEM, all others in DRIVERS (Windows 8 and later)."""
STORE = "Windows/System32/DriverStore/FileRepository"
INF_FOLDER = "Windows/INF"
OEM_INF = re.compile(r"oem[0-9]{1,4}\.inf", re.IGNORECASE)
"""Names that Windows gives to the INFs of others."""
_VERSION = struct.Struct("<24xQ4H8x")
"""A package's ``Version``: class, FILETIME of the date, four numbers, the last one first."""


@dataclass(frozen=True, slots=True)
class InstalledPackage:
    """A package that Windows knows; what a half-installed one lacks is ""."""

    oem_inf: str
    """Its name in ``\\Windows\\INF``."""
    hive: str = ""
    store: str = ""
    """Its folder in the driver store."""


def infs_for(registry: Registry, *hardware_ids: str) -> list[tuple[str, str]]:
    """Return (hive, INF name) of every installed driver that covers one of some hardware ids.

    Each database is looked through once: real ones know ten thousand devices, and packages of
    graphics cards have a thousand ids.
    """
    buses: dict[str, set[str]] = {}
    for hardware_id in hardware_ids:
        bus, _, device = hardware_id.upper().partition("\\")
        buses.setdefault(bus, set()).add(device)
    found: set[tuple[str, str]] = set()
    for bus, devices in buses.items():
        wider = {part for device in devices for part in _wider(device)}
        for hive in DATABASES:
            key = registry.key(hive, f"{DATABASE}\\DeviceIds\\{bus}")
            for child in key.children() if key else []:
                name = child.name.upper()
                if name in wider or not devices.isdisjoint(_wider(name)):
                    found.update((hive, inf) for inf in child.values() if inf)
    return sorted(found)


def _wider(device: str) -> list[str]:
    """Return an id and those of which it is a narrower form: without its last parts."""
    parts = device.split("&")
    return ["&".join(parts[:count]) for count in range(1, len(parts) + 1)]


def package_of(registry: Registry, hive: str, inf_name: str) -> str:
    """Return the driver store's folder of an INF, "" when the database does not say."""
    place = f"{DATABASE}\\DriverInfFiles\\{inf_name}"
    active = registry.text(hive, place, "Active")
    if active:
        return active
    value = registry.value(hive, place, "")
    return next(iter(value.as_texts()), "") if value else ""


def stored_package(registry: Registry, files: GuestFiles, hive: str, inf_name: str) -> str:
    """Return `package_of` where that folder is in the driver store, else "".

    What is gone from there cannot be taken by Windows, whatever the database says of it.
    """
    package = package_of(registry, hive, inf_name)
    return package if package and files.exists(f"{STORE}/{package}") else ""


def services_of(registry: Registry, hive: str, package: str) -> list[str]:
    """Return the services that a package's configurations name."""
    key = registry.key(hive, f"{DATABASE}\\DriverPackages\\{package}\\Configurations")
    values = [child.value("Service") for child in key.children()] if key else []
    return sorted({value.as_text() for value in values if value and value.as_text()})


def version_of(registry: Registry, hive: str, package: str) -> DriverVersion | None:
    """Return a package's date and number, None when the database does not say."""
    value = registry.value(hive, f"{DATABASE}\\DriverPackages\\{package}", "Version")
    if value is None or len(value.data) != _VERSION.size:
        return None
    date, four, three, two, one = _VERSION.unpack(value.data)
    return DriverVersion(date, (one, two, three, four))


def find_installed(
    registry: Registry, files: GuestFiles, inf_data: bytes
) -> list[InstalledPackage]:
    """Return the packages whose INF has this very content, whoever installed them."""
    found = []
    for name in oem_infs(files):
        path = f"{INF_FOLDER}/{name}"
        if files.size_bytes(path) != len(inf_data) or files.read(path, len(inf_data)) != inf_data:
            continue
        # One that is in both counts as in SYSTEM: what is needed to boot is looked for there only.
        stores = {hive: package_of(registry, hive, name) for hive in reversed(DATABASES)}
        hive = next((hive for hive, store in stores.items() if store), "")
        found.append(InstalledPackage(name, hive, stores.get(hive, "")))
    return found


def oem_infs(files: GuestFiles) -> list[str]:
    """Return the names of other makers' INF files, ``oem12.inf``, by number."""
    names = [name.lower() for name in files.names(INF_FOLDER) if OEM_INF.fullmatch(name)]
    return sorted(names, key=lambda name: (len(name), name))


def newer_driver(
    registry: Registry, files: GuestFiles, hardware_ids: Collection[str], version: DriverVersion
) -> str:
    """Return an installed driver of a device that Windows would prefer, "" when there is none."""
    for hive, inf in infs_for(registry, *hardware_ids):
        store = stored_package(registry, files, hive, inf)
        known = version_of(registry, hive, store) if store else None
        if known is not None and known > version:
            return f"{inf} ({known})"
    return ""
