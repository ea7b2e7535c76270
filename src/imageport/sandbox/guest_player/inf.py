"""Driver packages as Windows' setup reads them: what one INF installs for which device.

Reference: "INF file sections and directives" (Microsoft): names without regard to case, ``;``
starts a comment, ``%name%`` comes from [Strings], the best TargetOS decoration wins.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field

BUILD = (10, 0, 22631)
"""The system that plays; decorations with a newer build do not apply to it."""


class InfError(ValueError):
    """The INF cannot be installed; ``code`` is what pnputil returns."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


NO_CATALOG, WRONG_STYLE, BAD_SECTION = "0x800F022F", "0xE0000100", "0xE0000101"
Section = list[tuple[str, list[str]]]
"""Lines as (key, fields); a line without ``=`` has the key ""."""


@dataclass(frozen=True, slots=True)
class InfModel:
    """One device that the package serves."""

    hardware_id: str
    description: str
    install: str
    place: int = 0
    """In its line: 0 is the hardware id, what follows are compatible ids."""


@dataclass(slots=True)
class Inf:
    """A parsed INF."""

    sections: dict[str, Section]
    strings: dict[str, str] = field(default_factory=dict)

    def section(self, name: str) -> Section:
        """Return a section's lines, none when it is not there."""
        return self.sections.get(name.lower(), [])

    def value(self, section: str, key: str) -> str:
        """Return the first field of a key, "" when it is not there."""
        for name, fields in self.section(section):
            if name.lower() == key.lower():
                return fields[0] if fields else ""
        return ""

    def models(self) -> list[InfModel]:
        """Return the devices for 64-bit x86 systems of this build."""
        found = []
        for maker, (base, *decorations) in self.section("Manufacturer"):
            name = _best_section(base, decorations)
            if name is None:
                continue
            for text, (install, *ids) in self.section(name):
                found += [
                    InfModel(one.upper(), text or maker, install, place)
                    for place, one in enumerate(ids)
                    if one
                ]
        return found

    def install_section(self, base: str, suffix: str = "") -> Section:
        """Return an install section with the most special decoration that exists."""
        for decoration in (".ntamd64", ".nt", ""):
            lines = self.sections.get(f"{base}{decoration}{suffix}".lower())
            if lines is not None:
                return lines
        return []

    def service(self, base: str) -> tuple[str, str] | None:
        """Return (service name, its install section) of the device's own function driver."""
        for key, fields in self.install_section(base, ".services"):
            if key.lower() == "addservice" and len(fields) >= 3:
                flags = int(fields[1] or "0", 0)
                if flags & 2:  # SPSVCINST_ASSOCSERVICE
                    return fields[0], fields[2]
        return None

    def catalog(self) -> str:
        """Return the signature's file, "" when the package is not signed."""
        names = ("CatalogFile.NTamd64", "CatalogFile.NT", "CatalogFile")
        return next((found for name in names if (found := self.value("Version", name))), "")

    def files(self) -> list[str]:
        """Return every file that [SourceDisksFiles] names, with its folder in the package."""
        names = []
        for decoration in ("", ".amd64"):
            disks = dict(self.section(f"SourceDisksNames{decoration}"))
            for key, fields in self.section(f"SourceDisksFiles{decoration}"):
                disk = [*disks.get(fields[0], []), "", "", "", ""][3]
                below = [*fields, ""][1]
                parts = [part.strip("\\") for part in (disk, below, key)]
                names.append("\\".join(part for part in parts if part))
        return names


def parse_inf(data: bytes) -> Inf:
    """Read an INF; `InfError` when setup would not take it for a device package."""
    inf = Inf({})
    current: Section | None = None
    for line in _lines(data):
        if line.startswith("["):
            current = inf.sections.setdefault(line[1 : line.index("]")].strip().lower(), [])
        elif current is not None:
            key, equals, rest = _split(line)
            current.append((key, _fields(rest)) if equals else ("", _fields(line)))
    inf.strings = {key.lower(): fields[0] for key, fields in inf.section("Strings") if fields}
    for name, lines in inf.sections.items():
        if name != "strings":
            inf.sections[name] = [(_expand(inf, k), [_expand(inf, f) for f in v]) for k, v in lines]
    if inf.value("Version", "Signature").lower() not in {"$windows nt$", "$chicago$"}:
        raise InfError(WRONG_STYLE, "no valid Signature in [Version]")
    if not inf.section("Manufacturer") or not inf.models():
        raise InfError(BAD_SECTION, "no model for a 64-bit system of this build")
    return inf


def _lines(data: bytes) -> list[str]:
    encoding = "utf-16" if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"
    text = data.decode(encoding, "replace").replace("\r", "")
    text = re.sub(r"\\\n\s*", "", text)
    return [line for raw in text.split("\n") if (line := _without_comment(raw).strip())]


def _without_comment(line: str) -> str:
    quoted = False
    for at, character in enumerate(line):
        if character == '"':
            quoted = not quoted
        elif character == ";" and not quoted:
            return line[:at]
    return line


def _split(line: str) -> tuple[str, str, str]:
    quoted = False
    for at, character in enumerate(line):
        if character == '"':
            quoted = not quoted
        elif character == "=" and not quoted:
            return line[:at].strip().strip('"'), "=", line[at + 1 :]
    return line, "", ""


def _fields(text: str) -> list[str]:
    row = next(csv.reader([text.strip()], skipinitialspace=True), [])
    return [part.strip() for part in row] or [""]


def _expand(inf: Inf, text: str) -> str:
    return re.sub(r"%([^%\s]+)%", lambda m: inf.strings.get(m[1].lower(), m[0]), text)


def _best_section(base: str, decorations: list[str]) -> str | None:
    """Return the models section for amd64 with the newest build that this system has."""
    best: tuple[tuple[int, ...], str] | None = None
    for decoration in [part for part in decorations if part]:
        kind, *numbers = decoration.split(".")
        if kind.lower() not in {"ntamd64", "nt"}:
            continue
        major, minor, build = ([*numbers, "", "", "", "", ""][index] for index in (0, 1, 4))
        needed = tuple(int(part or "0") for part in (major, minor, build))
        if needed <= BUILD and (best is None or needed > best[0]):
            best = needed, f"{base}.{decoration}"
    if best is not None:
        return best[1]
    return base if not any(decorations) else None
