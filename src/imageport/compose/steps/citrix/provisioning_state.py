"""What Provisioning Services and Machine Creation Services leave in an image of the old machine."""

from __future__ import annotations

import re

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
    value = key.value("DependOnService") if key else None
    return value.as_texts() if value else []


def dependents(registry: Registry, control_set: str, service: str) -> list[str]:
    """Return the services that do not start without one; those that are disabled left out."""
    services = registry.key("SYSTEM", f"{control_set}\\Services")
    names = [key.name for key in services.children()] if services else []
    return [
        name
        for name in names
        if registry.start_of(control_set, name) not in {None, DISABLED}
        and service.lower() in map(str.lower, dependencies_of(registry, control_set, name))
    ]
