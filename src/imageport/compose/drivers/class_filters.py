"""Filter drivers of device classes: what must be startable, or every device of the class fails."""

from __future__ import annotations

from collections.abc import Iterator

from imageport.compose.hives.registry import Registry

_LISTS = ("UpperFilters", "LowerFilters")


def class_filters(registry: Registry, control_set: str) -> Iterator[tuple[str, str]]:
    """Yield (class GUID, service) for each filter of each device class."""
    key = registry.key("SYSTEM", f"{control_set}\\Control\\Class")
    for device_class in key.children() if key else []:
        for name in _LISTS:
            value = device_class.value(name)
            for service in value.as_texts() if value else []:
                yield device_class.name, service


def filter_services(registry: Registry, control_set: str) -> set[str]:
    """Return the services that filter any class."""
    return {service for _, service in class_filters(registry, control_set)}
