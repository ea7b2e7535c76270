# References: Microsoft "INF DDInstall section", "INF DDInstall.HW section", "INF DDInstall.Services
# section", "INF AddService directive", "INF CopyFiles directive", "INF DestinationDirs section",
# "INF FeatureScore directive".
"""What an INF installs for a device: services, files, values, and what of it is not followed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from imageport.compose.drivers.inf_models import AMD64
from imageport.compose.drivers.inf_text import InfText
from imageport.compose.drivers.inf_values import InfValue, number, read_values
from imageport.errors import InputError

_ASSOCIATED = 0x2
"""SPSVCINST_ASSOCSERVICE: the device's own function driver."""
_DEFAULT_FEATURE_SCORE = 0xFF
_MAX_SERVICES = 50
_NAME = re.compile(r"[A-Za-z0-9_.()+\- ]{1,80}")
"""Names of services and sections, which become keys of the registry."""
_MAX_FILES = 2000
_OTHER_DIRECTIVES = (
    "Include",
    "Needs",
    "DelReg",
    "DelFiles",
    "RenFiles",
    "BitReg",
    "AddProperty",
    "RegisterDlls",
    "AddSoftware",
    "AddComponent",
    "CopyINF",
)
RUN_FROM_STORE = 13
"""The directory that is the package's own folder in the driver store."""


@dataclass(frozen=True, slots=True)
class InfFile:
    """One file as it is installed: a directory's number, a folder below it, its name there."""

    directory: int
    folder: str
    name: str
    source: str
    """Its name in the package."""


@dataclass(frozen=True, slots=True)
class InfService:
    """One service that the INF installs; ``binary`` is the file's name, "" when it names none."""

    name: str
    binary: str
    directory: int = 12
    """The number that ``ServiceBinary`` begins with."""
    is_function: bool = False
    """Whether it drives the device, rather than filtering or helping."""
    kind: int = 1
    start: int = 3
    error_control: int = 1
    group: str = ""
    dependencies: tuple[str, ...] = ()
    display_name: str = ""
    """As written: ``%token%`` or text."""
    values: tuple[InfValue, ...] = ()
    """Below the service's key."""
    event_log: tuple[InfValue, ...] = ()
    """Below ``Services\\EventLog\\System\\NAME``."""


@dataclass(frozen=True, slots=True)
class InfInstall:
    """What is installed for a model."""

    name: str
    """The section's name as its head spells it, with its platform."""
    feature_score: int = _DEFAULT_FEATURE_SCORE
    services: tuple[InfService, ...] = ()
    files: tuple[InfFile, ...] = ()
    driver_values: tuple[InfValue, ...] = ()
    """Below the class' instance of the device (the software key)."""
    device_values: tuple[InfValue, ...] = ()
    """Below the device's own ``Device Parameters`` (the hardware key)."""
    included: tuple[str, ...] = ()
    """INF files of Windows that it builds on."""
    not_followed: tuple[str, ...] = ()
    """What is left to Windows' own setup."""

    @property
    def function(self) -> InfService | None:
        """Return the service that drives the device, None when it needs none."""
        return next((service for service in self.services if service.is_function), None)


@dataclass(slots=True)
class _Reader:
    document: InfText
    base: str
    left: list[str] = field(default_factory=list)

    def section(self, suffix: str = "") -> str:
        """Return the most special section of the base that exists, "" when none does."""
        for platform in (f".{AMD64}", ".nt", ""):
            if found := self.document.spelled(f"{self.base}{platform}{suffix}"):
                return found
        return ""

    def values(self, section: str, key: str = "AddReg") -> tuple[InfValue, ...]:
        names = self.document.all_values(section, key)
        values, left = read_values(self.document, names)
        self.left += left
        return tuple(values)

    def note_others(self, section: str) -> None:
        for directive in _OTHER_DIRECTIVES:
            if values := self.document.all_values(section, directive):
                self.left.append(f"[{section}] {directive}={','.join(values)[:80]}")


def read_install(document: InfText, base: str) -> InfInstall:
    """Return what the INF installs for models of an install section.

    Raises:
        InputError: a section's or service's name could be no key of the registry.
    """
    _check(base, "install section")
    reader = _Reader(document, base)
    own, hardware = reader.section(), reader.section(".hw")
    services, co_installers = reader.section(".services"), reader.section(".coinstallers")
    sections = [section for section in (own, hardware, services) if section]
    included = [name for section in sections for name in document.all_values(section, "Include")]
    for section in sections:
        reader.note_others(section)
    if co_installers:
        reader.left.append(f"[{co_installers}] co-installers")
    return InfInstall(
        name=own or base,
        feature_score=_feature_score(document.first(own, "FeatureScore")),
        services=_services(reader, services),
        files=_files(reader, own),
        driver_values=reader.values(own),
        device_values=reader.values(hardware),
        included=tuple(dict.fromkeys(included)),
        not_followed=tuple(dict.fromkeys(reader.left)),
    )


def _feature_score(text: str) -> int:
    """Return a byte that is always hexadecimal, with 0x or without."""
    try:
        found = int(text, 16)
    except ValueError:
        return _DEFAULT_FEATURE_SCORE
    return found if 0 <= found <= _DEFAULT_FEATURE_SCORE else _DEFAULT_FEATURE_SCORE


def _services(reader: _Reader, section: str) -> tuple[InfService, ...]:
    document = reader.document
    found = []
    for line in document.section(section)[: _MAX_SERVICES * 4]:
        values = [document.expand(value) for value in line.values]
        if line.key.lower() != "addservice" or len(values) < 3 or not values[0]:
            continue
        name, flags, install, *log = values
        _check(name, "service")
        found.append(_service(reader, name, number(flags) or 0, install, [*log, ""][0]))
    return tuple(found[:_MAX_SERVICES])


def _service(reader: _Reader, name: str, flags: int, section: str, log: str) -> InfService:
    document = reader.document
    path = document.first(section, "servicebinary").replace("/", "\\")
    directory, _, file = path.partition("\\")
    place = number(directory.strip("%")) if file else None

    def setting(key: str, default: int, most: int) -> int:
        found = number(document.first(section, key) or str(default))
        return default if found is None or found > most else found

    raw = next((li for li in document.section(section) if li.key.lower() == "displayname"), None)
    return InfService(
        name=name,
        binary=path.rpartition("\\")[2],
        directory=12 if place is None else place,
        is_function=bool(flags & _ASSOCIATED),
        kind=setting("ServiceType", 1, 0x1FF),
        start=setting("StartType", 3, 4),
        error_control=setting("ErrorControl", 1, 3),
        group=document.first(section, "LoadOrderGroup"),
        dependencies=tuple(document.all_values(section, "Dependencies")),
        display_name=raw.values[0] if raw else "",
        values=reader.values(section),
        event_log=reader.values(log) if log else (),
    )


def _check(name: str, what: str) -> None:
    if not _NAME.fullmatch(name):
        raise InputError(f"Bad driver INF: found {what} '{name[:80]}', needed a plain name.")


def _files(reader: _Reader, section: str) -> tuple[InfFile, ...]:
    document = reader.document
    found: dict[tuple[int, str, str], InfFile] = {}
    for name in dict.fromkeys(document.all_values(section, "CopyFiles")):
        place = _directory(document, "DefaultDestDir" if name.startswith("@") else name)
        if place is None:
            reader.left.append(f"[{section}] CopyFiles={name}")
            continue
        lines = [(name[1:],)] if name.startswith("@") else _fields(document, name)
        for fields in lines[:_MAX_FILES]:
            target, source = ([*fields, ""])[:2]
            if target:
                file = InfFile(*place, target, source or target)
                found[place[0], place[1].lower(), target.lower()] = file
    return tuple(found.values())


def _fields(document: InfText, section: str) -> list[tuple[str, ...]]:
    lines = document.section(section)
    return [tuple(document.expand(field) for field in line.fields) for line in lines]


def _directory(document: InfText, section: str) -> tuple[int, str] | None:
    """Return (directory number, folder below it) of a list of files."""
    values = document.values("destinationdirs", section) or document.values(
        "destinationdirs", "defaultdestdir"
    )
    found = number(values[0]) if values else None
    if found is None:
        return None
    return found, values[1].replace("/", "\\").strip("\\") if len(values) > 1 else ""
