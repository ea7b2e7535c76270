"""What Provisioning Services and Machine Creation Services leave in an image of the old machine."""

from __future__ import annotations

import re

from imageport.compose.hives.hive import Key
from imageport.compose.hives.registry import DISABLED, Registry
from imageport.compose.volumes.guest_files import GuestFiles

DEVICE_SERVICE = "BNDevice"
NETWORK_STACKS = ("bnistack", "bnistack6")
FILE_SYSTEM_FILTER = "CFsDep2"
AGENT_STATE = "Services\\bnistack\\PVSAgent"
"""Of a control set: what the device was streamed from, and where it cached writes."""
DEVICE_VALUES = ("DiskName", "WriteCacheType", "WriteCacheDrive")
PERSONALITY = "Personality.ini"
"""At the volume's root: device, disk and mode, written anew by either product for each machine."""
IDENTITY_AGENT = "PvsVmAgent"
WORKSTATION = "LanmanWorkstation"
_WRITE_CACHE = re.compile(r"\.?vdiskdif\.vhdx|mcsdif\.vhdx|.*\.vdiskcache", re.IGNORECASE)
"""``mcsdif`` is that of Machine Creation Services; it lies there where no other disk was."""


def write_caches(files: GuestFiles) -> list[str]:
    """Return the write-cache files at the volume's root."""
    return [name for name in files.names("") if _WRITE_CACHE.fullmatch(name)]


def device_values(registry: Registry) -> list[tuple[str, str]]:
    """Return (key, value's name) of what names the old device, in every control set."""
    return [
        (f"{control_set}\\{AGENT_STATE}", name)
        for control_set in registry.control_sets
        for name in DEVICE_VALUES
        if registry.value("SYSTEM", f"{control_set}\\{AGENT_STATE}", name) is not None
    ]


def dependencies_of(registry: Registry, control_set: str, service: str) -> list[str]:
    """Return the services that one does not start without."""
    key = registry.service(control_set, service)
    return _needed_by(key) if key else []


def dependents(registry: Registry, control_set: str, service: str) -> list[str]:
    """Return the services that do not start without one; those that are disabled left out.

    Finding a key by its name takes longer the more there are, so none is looked up here.
    """
    services = registry.key("SYSTEM", f"{control_set}\\Services")
    return [
        key.name
        for key in (services.children() if services else [])
        if service.lower() in map(str.lower, _needed_by(key)) and _may_start(key)
    ]


def _needed_by(service: Key) -> list[str]:
    value = service.value("DependOnService")
    return value.as_texts() if value else []


def _may_start(service: Key) -> bool:
    start = service.value("Start")
    return start is not None and start.as_number() not in {None, DISABLED}
