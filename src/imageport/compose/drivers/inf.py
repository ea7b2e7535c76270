# References: Microsoft "General syntax rules for INF files", "INF Manufacturer section",
# "INF Models section", "INF AddService directive", "INF SourceDisksFiles section".
"""Reading a driver package's INF: which devices it serves and which files it needs.

The operator's folder is input like any other: sizes and counts are bounded, macros expand once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from imageport.errors import InputError

MAX_INF_BYTES = 4 * 1024 * 1024
_MAX_LINES = 100_000
_MAX_IDS = 10_000
_MACRO = re.compile(r"%([^%\s]{1,255})%")
_AMD64 = "ntamd64"


@dataclass(frozen=True, slots=True)
class InfService:
    """One service that the INF installs; ``binary`` is the file's name."""

    name: str
    binary: str


@dataclass(frozen=True, slots=True)
class DriverInf:
    """What matters of an INF for 64-bit Windows."""

    provider: str
    class_name: str
    class_guid: str
    catalog: str
    """"" = the package is not signed."""
    driver_version: str
    """``MM/DD/YYYY,w.x.y.z`` as it stands there."""
    hardware_ids: tuple[str, ...]
    services: tuple[InfService, ...]
    source_files: tuple[str, ...]
    """Files of the package relative to the INF, with ``/``."""

    def serves(self, hardware_id: str) -> bool:
        """Say whether a device with this id gets a driver from here."""
        return any(id_matches(own, hardware_id) for own in self.hardware_ids)


def id_matches(offered: str, wanted: str) -> bool:
    """Say whether an id that a driver offers covers a device of the wanted id, or narrower."""
    one, other = offered.upper(), wanted.upper()
    return one == other or one.startswith(other + "&") or other.startswith(one + "&")


def parse_inf(data: bytes) -> DriverInf:
    """Read an INF file.

    Raises:
        InputError: it is too large, no INF, or serves no 64-bit device.
    """
    document = _Document(_decoded(data))
    version = document.section("version")
    if not version or document.first("version", "signature").lower() not in {
        "$windows nt$",
        "$chicago$",
    }:
        raise InputError("Bad driver INF: found no signature, needed [Version] Signature.")
    installs, ids = _models(document)
    services = {service for name in installs for service in _services(document, name)}
    return DriverInf(
        provider=document.first("version", "provider"),
        class_name=document.first("version", "class"),
        class_guid=document.first("version", "classguid").lower(),
        catalog=_catalog(document),
        driver_version=",".join(document.values("version", "driverver")),
        hardware_ids=tuple(sorted(ids)),
        services=tuple(sorted(services, key=lambda service: service.name.lower())),
        source_files=tuple(sorted(_source_files(document))),
    )


def _decoded(data: bytes) -> str:
    if len(data) > MAX_INF_BYTES:
        raise InputError(
            f"Bad driver INF: found {len(data)} bytes, needed {MAX_INF_BYTES} or less."
        )
    for mark, encoding in (
        (b"\xff\xfe", "utf-16-le"),
        (b"\xfe\xff", "utf-16-be"),
        (b"\xef\xbb\xbf", "utf-8"),
    ):
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


@dataclass(frozen=True, slots=True)
class _Line:
    key: str
    values: tuple[str, ...]


class _Document:
    """Sections by lower-case name; a section that stands twice continues."""

    def __init__(self, text: str) -> None:
        self._sections: dict[str, list[_Line]] = {}
        lines = text.splitlines()
        if len(lines) > _MAX_LINES:
            raise InputError(f"Bad driver INF: found {len(lines)} lines, needed {_MAX_LINES}.")
        current: list[_Line] | None = None
        for line in _joined(lines):
            if line.startswith("["):
                name = line[1:].partition("]")[0].strip().lower()
                current = self._sections.setdefault(name, [])
            elif current is not None:
                current.append(_line(line))
        self._strings = {
            line.key.lower(): line.values[0] for line in self.section("strings") if line.values
        }

    def section(self, name: str) -> list[_Line]:
        """Return a section's lines, empty when there is none."""
        return self._sections.get(name.lower(), [])

    def names(self) -> list[str]:
        """Return all section names."""
        return list(self._sections)

    def values(self, section: str, key: str) -> list[str]:
        """Return the values of the first line with that key, macros expanded."""
        for line in self.section(section):
            if line.key.lower() == key.lower():
                return [self.expand(value) for value in line.values]
        return []

    def first(self, section: str, key: str) -> str:
        """Return the first of `values`, or ""."""
        return next(iter(self.values(section, key)), "")

    def expand(self, text: str) -> str:
        """Replace ``%name%`` by the [Strings] entry, once."""
        return _MACRO.sub(lambda match: self._strings.get(match[1].lower(), match[0]), text)


def _joined(lines: list[str]) -> Iterator[str]:
    """Yield lines without comments, continued lines joined, empty lines dropped."""
    pending = ""
    for raw in lines:
        line = pending + _without_comment(raw).strip()
        pending = ""
        if line.endswith("\\") and not line.startswith("["):
            pending = line[:-1]
        elif line:
            yield line
    if pending:
        yield pending


def _without_comment(line: str) -> str:
    quoted = False
    for at, character in enumerate(line):
        if character == '"':
            quoted = not quoted
        elif character == ";" and not quoted:
            return line[:at]
    return line


def _line(text: str) -> _Line:
    parts, values = _split(text, "=", 1), text
    key = ""
    if len(parts) == 2:
        key, values = _unquoted(parts[0]), parts[1]
    return _Line(key, tuple(_unquoted(value) for value in _split(values, ",", -1)))


def _split(text: str, mark: str, most: int) -> list[str]:
    """Split at a mark outside quotes."""
    parts: list[str] = []
    start, quoted = 0, False
    for at, character in enumerate(text):
        if character == '"':
            quoted = not quoted
        elif character == mark and not quoted and (most < 0 or len(parts) < most):
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def _unquoted(text: str) -> str:
    return text.strip().replace('""', '"') if text.strip() == '""' else text.strip().strip('"')


def _models(document: _Document) -> tuple[set[str], set[str]]:
    """Return the install sections and the hardware ids of all 64-bit models."""
    installs: set[str] = set()
    ids: set[str] = set()
    for maker in document.section("manufacturer"):
        if not maker.values:
            continue
        base, *decorations = [document.expand(value) for value in maker.values]
        wanted = [f"{base}.{d}" for d in decorations if d.lower().startswith(_AMD64)]
        for name in wanted or ([] if decorations else [base]):
            for model in document.section(name):
                if len(model.values) < 2:
                    continue
                installs.add(document.expand(model.values[0]).lower())
                ids.update(document.expand(value).upper() for value in model.values[1:] if value)
                if len(ids) > _MAX_IDS:
                    raise InputError(f"Bad driver INF: found more than {_MAX_IDS} hardware ids.")
    if not ids:
        raise InputError("Bad driver INF: found no device for 64-bit Windows, needed one.")
    return installs, ids


def _services(document: _Document, install: str) -> Iterator[InfService]:
    for suffix in (f".{_AMD64}", ".nt", ""):
        for line in document.section(f"{install}{suffix}.services"):
            if line.key.lower() == "addservice" and len(line.values) >= 3 and line.values[0]:
                section = document.expand(line.values[2])
                binary = document.first(section, "servicebinary").replace("/", "\\")
                yield InfService(document.expand(line.values[0]), binary.rpartition("\\")[2])


def _catalog(document: _Document) -> str:
    for key in (f"catalogfile.{_AMD64}", "catalogfile.nt", "catalogfile"):
        if found := document.first("version", key):
            return found
    return ""


def _source_files(document: _Document) -> set[str]:
    """Return the files that the INF copies from its own folder."""
    folders = {}
    for section in ("sourcedisksnames", "sourcedisksnames.amd64"):
        for line in document.section(section):
            path = document.expand(line.values[3]) if len(line.values) > 3 else ""
            folders[line.key] = path
    found = set()
    for section in ("sourcedisksfiles", "sourcedisksfiles.amd64"):
        for line in document.section(section):
            disk = line.values[0] if line.values else ""
            subfolder = document.expand(line.values[1]) if len(line.values) > 1 else ""
            parts = [folders.get(disk, ""), subfolder, document.expand(line.key)]
            path = "/".join(part.replace("\\", "/").strip("/") for part in parts if part)
            found.add(path.removeprefix("./"))
    return {path for path in found if path}
