"""Driver packages of others than Microsoft."""

from __future__ import annotations

from uuid import UUID

from imageport.compose.drivers.installed_drivers import (
    DATABASE,
    DATABASES,
    OEM_INF,
    version_of,
)
from imageport.compose.hives.hive import Key
from imageport.compose.hives.registry import Registry

_MAX_PACKAGES = 2000
_CLASS_AT = slice(8, 24)
"""Of a package's ``Version``: the GUID of its device class."""


def foreign_drivers(registry: Registry, current: str) -> tuple[str, ...]:
    """Return one line per package that was added to Windows: INF, maker, version, class."""
    found = {}
    for hive in DATABASES:
        key = registry.key(hive, f"{DATABASE}\\DriverPackages")
        for package in (key.children() if key else [])[:_MAX_PACKAGES]:
            inf, maker = package.text(""), package.text("Provider")
            if OEM_INF.fullmatch(inf) and not maker.lower().startswith("microsoft"):
                version = version_of(registry, hive, package.name)
                number = ".".join(map(str, version.numbers)) if version else ""
                words = (inf, maker, number, _class_name(registry, current, package))
                found[inf.lower()] = " ".join(word for word in words if word)
    return tuple(found[inf] for inf in sorted(found, key=lambda name: (len(name), name)))


def _class_name(registry: Registry, current: str, package: Key) -> str:
    value = package.value("Version")
    data = value.data[_CLASS_AT] if value else b""
    if len(data) != 16:
        return ""
    identity = f"{{{UUID(bytes_le=data)}}}"
    return registry.text("SYSTEM", f"{current}\\Control\\Class\\{identity}", "Class") or identity
