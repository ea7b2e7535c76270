"""Services of a platform's tools, and the places of a control set that name services."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from imageport.compose.hives.hive import Key
from imageport.compose.hives.registry import Registry
from imageport.compose.steps.source.platform_packages import device_instances
from imageport.compose.steps.source.source_platform import SourcePlatform, matches, volume_path
from imageport.compose.volumes.guest_files import GuestFiles

FILTER_LISTS = ("UpperFilters", "LowerFilters")
PROVIDER_ORDERS = ("Order", "HwOrder")
_SHARED_HOSTS = ("dllhost.exe", "svchost.exe")
"""Windows' programs that run other makers' libraries: their maker says nothing."""


def old_services(
    registry: Registry,
    files: GuestFiles,
    platform: SourcePlatform,
    control_set: str,
    packaged: frozenset[str],
) -> list[str]:
    """Return the services of the platform in one control set, by who made their binaries.

    ``packaged`` are, in lower case, the services that the platform's driver packages name: makers
    rename theirs, and have Windows' own drivers serve their devices.
    """
    services = registry.key("SYSTEM", f"{control_set}\\Services")
    keys = services.children() if services else []
    return [
        key.name
        for key in keys
        if _is_of(platform, key, files)
        or (key.name.lower() in packaged and platform.made(files, binary_of(key)))
    ]


def files_in_use(registry: Registry, removed: Mapping[str, Iterable[str]]) -> frozenset[str]:
    """Return what the services run that are not ``removed`` (by control set), as `binary_of`."""
    found = set()
    for control_set in registry.control_sets:
        gone = {name.lower() for name in removed[control_set]}
        services = registry.key("SYSTEM", f"{control_set}\\Services")
        for key in services.children() if services else []:
            if key.name.lower() not in gone and key.value("Start") is not None:
                found.add(binary_of(key))
    return frozenset(found)


def lost_names(
    registry: Registry, platform: SourcePlatform, control_set: str, names: Iterable[str]
) -> set[str]:
    """Return, in lower case, the platform's services that are named but do not exist."""
    return {
        name.lower()
        for name in names
        if matches(name, platform.services) and registry.service(control_set, name) is None
    }


def named_services(registry: Registry, control_set: str) -> Iterator[str]:
    """Yield the services that filters, network providers and dependencies name."""
    for path in filter_places(registry, control_set):
        for name in FILTER_LISTS:
            value = registry.value("SYSTEM", path, name)
            yield from value.as_texts() if value else []
    for order in PROVIDER_ORDERS:
        yield from network_providers(registry, control_set, order)
    services = registry.key("SYSTEM", f"{control_set}\\Services")
    for key in services.children() if services else []:
        value = key.value("DependOnService")
        yield from value.as_texts() if value else []


def filter_places(registry: Registry, control_set: str) -> Iterator[str]:
    """Yield the keys that may name filters: device classes, then devices."""
    root = f"{control_set}\\Control\\Class"
    classes = registry.key("SYSTEM", root)
    for key in classes.children() if classes else []:
        yield f"{root}\\{key.name}"
    yield from device_instances(registry, control_set)


def network_providers(registry: Registry, control_set: str, order: str) -> list[str]:
    """Return the providers, which are services, in the order in which Windows asks them."""
    place = f"{control_set}\\Control\\NetworkProvider\\{order}"
    text = registry.text("SYSTEM", place, "ProviderOrder")
    return [name.strip() for name in text.split(",") if name.strip()]


def binary_of(service: Key) -> str:
    """Return what a service runs, from the volume's root in lower case."""
    image = service.text("ImagePath")
    if image:
        return volume_path(image)
    return f"windows/system32/drivers/{service.name.lower()}.sys"


def _is_of(platform: SourcePlatform, service: Key, files: GuestFiles) -> bool:
    """Say whether a service is the platform's: by folder, or by name or mark and its maker."""
    if platform.owns(service.text("ImagePath")):
        return True
    is_marked = bool(platform.service_mark) and service.value(platform.service_mark) is not None
    if not is_marked and not matches(service.name, platform.services):
        return False
    path = binary_of(service)
    if service.value("Start") is None:  # a key that was left behind, or that only holds settings
        return is_marked or platform.made(files, path)
    is_empty = path.rpartition("/")[2] in _SHARED_HOSTS or not files.exists(path)
    return is_empty or platform.made(files, path)
