# Read from databases of real Windows 10 systems: the fields of DeviceIds, the meaning of OemInfMap,
# the types of values with flags. Microsoft documents none of it.
"""What the driver database says of a package, as registry values.

``DriverDatabase`` of SYSTEM holds packages that a boot needs: there the kernel finds a device's
driver before any file system is mounted. All other packages are in the hive DRIVERS.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from imageport.compose.drivers.inf import token_of
from imageport.compose.drivers.inf_installs import InfInstall
from imageport.compose.drivers.inf_models import InfModel
from imageport.compose.drivers.inf_values import APPEND, NO_CLOBBER, InfValue
from imageport.compose.drivers.installed_drivers import DATABASE
from imageport.compose.drivers.package_layout import PackageLayout
from imageport.compose.hives.registry_value import Kind, Value

_HARDWARE_ID, _COMPATIBLE_ID = 1, 2
_CONFIG_SCOPE = 7
"""What most drivers of devices have; others have bits more or less, of unknown meaning."""
_STATUS_FLAGS = 0x12
_CATALOG_ATTRIBUTES = 0x80000003
_X64 = b"\x00\xff\x09\x00\x00\x00\x00\x00"
"""Head of ``Version``: 9 is PROCESSOR_ARCHITECTURE_AMD64."""
_HARDWARE_LAB = "Microsoft Windows Hardware Compatibility Publisher"
"""Who signs catalogues of drivers that passed Microsoft's laboratory."""
_SIGNED_BY_LAB, _SIGNED = 0x0D000005, 0x0F000000
"""SignerScore: as real systems have it for such drivers; SIGNERSCORE_AUTHENTICODE for others."""
_FILTERS = ("UpperFilters", "LowerFilters")
_FLAGGED = {NO_CLOBBER: 0x20000, APPEND: 0x40000}
"""How the type of a value in ``Configurations`` tells that it must not replace another, or adds."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One value, or a key to make when ``value`` is None; ``key`` begins at the hive's root."""

    key: str
    name: str = ""
    value: Value | None = None


def database_entries(layout: PackageLayout, origin: str, catalogue: bytes) -> Iterator[Entry]:
    """Yield everything that a database says of a package.

    Args:
        layout: the package.
        origin: the folder it was added from, as Windows writes it.
        catalogue: its signature's content, which tells who signed.
    """
    for model in layout.models:
        score = layout.inf.install_of(model).feature_score
        key = f"{DATABASE}\\DeviceIds\\{model.hardware_id}"
        yield Entry(key, layout.oem_inf, _rank(model, score))
    class_key = f"{DATABASE}\\DeviceIds\\{layout.inf.class_guid}"
    yield Entry(class_key, layout.oem_inf, Value(Kind.NONE, b""))
    inf_key = f"{DATABASE}\\DriverInfFiles\\{layout.oem_inf}"
    yield Entry(inf_key, "", Value.texts([layout.store]))
    yield Entry(inf_key, "Active", Value.text(layout.store))
    names = sorted(install.name for install in layout.installs)
    yield Entry(inf_key, "Configurations", Value.texts(names))
    package = f"{DATABASE}\\DriverPackages\\{layout.store}"
    for name, value in _package_values(layout, origin, catalogue).items():
        yield Entry(package, name, value)
    for install in layout.installs:
        yield from _configuration(f"{package}\\Configurations\\{install.name}", install)
    yield from _descriptors(package, layout)


def _package_values(layout: PackageLayout, origin: str, catalogue: bytes) -> dict[str, Value]:
    is_by_lab = any(_HARDWARE_LAB.encode(name) in catalogue for name in ("ascii", "utf-16-be"))
    values = {
        "": Value.text(layout.oem_inf),
        "Catalog": Value.text(layout.inf.catalog),
        "CatalogAttributes": Value.dword(_CATALOG_ATTRIBUTES),
        "InfName": Value.text(layout.inf_name.lower()),
        "OemPath": Value.text(origin),
        "Provider": Value.text(layout.inf.provider),
        "SignerScore": Value.dword(_SIGNED_BY_LAB if is_by_lab else _SIGNED),
        "StatusFlags": Value.dword(_STATUS_FLAGS),
        "Version": version_value(layout),
    }
    if is_by_lab:
        values["SignerName"] = Value.text(_HARDWARE_LAB)
    return values


def version_value(layout: PackageLayout) -> Value:
    """Return 48 bytes: the processor, the class, the date, four numbers with the last one first."""
    version = layout.inf.version
    guid = UUID(layout.inf.class_guid)
    numbers = struct.pack("<Q4H8x", version.date, *reversed(version.numbers))
    return Value(Kind.BINARY, _X64 + guid.bytes_le + numbers)


def next_oem_number(taken: Sequence[str], maps: Sequence[bytes]) -> int:
    """Return the first number that no INF has and no ``OemInfMap`` marks as given.

    Args:
        taken: names like ``oem3.inf``.
        maps: bit 7 of the first byte stands for oem0.inf, bit 6 for oem1.inf …
    """
    numbers = {int(name[3:-4]) for name in taken}
    number = 0
    while number in numbers or any(_is_marked(data, number) for data in maps):
        number += 1
    return number


def marked(data: bytes, number: int) -> bytes:
    """Return an ``OemInfMap`` with a number marked as given."""
    whole = bytearray(data.ljust(number // 8 + 1, b"\0"))
    whole[number // 8] |= 0x80 >> number % 8
    return bytes(whole)


def _is_marked(data: bytes, number: int) -> bool:
    return number // 8 < len(data) and bool(data[number // 8] & 0x80 >> number % 8)


def _rank(model: InfModel, feature_score: int) -> Value:
    """Return what kind of id it is, the feature score, and its place among compatible ids."""
    is_hardware_id = model.position == 1
    kind = _HARDWARE_ID if is_hardware_id else _COMPATIBLE_ID
    place = 0 if is_hardware_id else model.position - 2
    return Value(Kind.BINARY, struct.pack("<BBH", kind, feature_score, min(place, 0xFFFF)))


def _configuration(key: str, install: InfInstall) -> Iterator[Entry]:
    yield Entry(key, "ConfigFlags", Value.dword(0))
    yield Entry(key, "ConfigScope", Value.dword(_CONFIG_SCOPE))
    function = install.function
    yield Entry(key, "Service", Value.text(function.name if function else ""))
    if install.included:
        yield Entry(key, "IncludedInfs", Value.texts(list(install.included)))
    filters = [item for item in install.device_values if not item.key and item.name in _FILTERS]
    for item in filters:
        yield Entry(key, item.name, item.value)
    yield from _flagged(f"{key}\\Driver", install.driver_values)
    own = [item for item in install.device_values if item not in filters]
    yield from _flagged(f"{key}\\Device", own)
    for service in install.services:
        yield from _flagged(f"{key}\\Services\\{service.name}", service.values)


def _flagged(base: str, values: Sequence[InfValue]) -> Iterator[Entry]:
    """Yield values as a configuration keeps them; several that append to one become one."""
    whole: dict[tuple[str, str], Value | None] = {}
    for item in values:
        place = (f"{base}\\{item.key}" if item.key else base, item.name)
        known, value = whole.get(place), item.value
        if value is not None and item.flags:
            kind = value.kind | sum(_FLAGGED[flag] for flag in _FLAGGED if item.flags & flag)
            before = known.data[:-2] if known and item.flags & APPEND else b""
            value = Value(kind, before + value.data)
        whole[place] = value
    for (key, name), value in whole.items():
        yield Entry(key, name, value)


def _descriptors(package: str, layout: PackageLayout) -> Iterator[Entry]:
    tokens: dict[str, str] = {}
    for model in layout.models:
        key = f"{package}\\Descriptors\\{model.hardware_id}"
        yield Entry(key, "Configuration", Value.text(layout.inf.install_of(model).name))
        texts = ("Description", model.description), ("Manufacturer", model.manufacturer)
        for name, written in texts:
            token = token_of(written)
            if token in layout.inf.strings:
                tokens[token] = layout.inf.strings[token]
            yield Entry(key, name, Value.text(f"%{token}%" if token else written))
    for token, text in sorted(tokens.items()):
        yield Entry(f"{package}\\Strings", token, Value.text(text))
