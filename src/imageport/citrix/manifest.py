# References: the version manifest that Citrix Provisioning exports beside a vDisk (name.xml).
"""The manifest of a vDisk's versions: read with suspicion, written as PVS writes it.

It comes from a share that others write to, so size, depth and counts are bounded and a document
type (with it entities) is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from xml.parsers import expat
from xml.sax.saxutils import escape

from imageport.errors import BadDisk, InputError

LIMIT_BYTES = 1024 * 1024
_MOST_VERSIONS = 1000
_LONGEST_TEXT = 4096
_ROOT, _VERSION, _STARTING = "versionManifest", "version", "startingVersion"
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class VersionType(IntEnum):
    """How a version came to be."""

    BASE = 0
    MANUAL = 1
    AUTOMATIC = 2
    MERGE = 3
    MERGE_BASE = 4
    """A version that is a whole disk again; what we publish as a new version."""


class Access(IntEnum):
    """Who gets a version."""

    PRODUCTION = 0
    MAINTENANCE = 1
    MAINTENANCE_HIGHEST = 2
    OVERRIDE = 3
    MERGE = 4
    MERGE_MAINTENANCE = 5
    MERGE_TEST = 6
    TEST = 7

    @property
    def is_fixed(self) -> bool:
        """Tell whether devices boot it read-only, so that its content stays as it is."""
        return self in {Access.PRODUCTION, Access.OVERRIDE}

    @property
    def is_merging(self) -> bool:
        """Tell whether a merge writes it, or was stopped halfway."""
        return self in {Access.MERGE, Access.MERGE_MAINTENANCE, Access.MERGE_TEST}


@dataclass(frozen=True, slots=True)
class VersionEntry:
    """One version; ``last_write_seconds`` is UTC since 1970, dates are kept as PVS wrote them."""

    number: int
    disk_file_name: str
    size_bytes: int
    last_write_seconds: int
    kind: VersionType = VersionType.BASE
    access: Access = Access.PRODUCTION
    create_date: str = ""
    scheduled_date: str = ""
    delete_when_free: bool = False
    description: str = ""
    others: tuple[tuple[str, str], ...] = ()
    """Elements this release does not know, kept for writing."""

    def is_due(self, now_seconds: int, source: str) -> bool:
        """Tell whether its scheduled time has come; `BadDisk` for one that is no time.

        A manifest with a date that nobody understands can be read and written; only whoever
        chooses a version must know.
        """
        if not self.scheduled_date.strip():
            return True
        return _seconds(self.scheduled_date, "scheduledDate", source) <= now_seconds


@dataclass(frozen=True, slots=True)
class VersionManifest:
    """All versions of a vDisk, ascending by number."""

    versions: tuple[VersionEntry, ...]
    starting_version: int = 0

    def entry(self, number: int) -> VersionEntry | None:
        """Return the version with a number, or None."""
        return next((entry for entry in self.versions if entry.number == number), None)

    def with_version(self, entry: VersionEntry) -> VersionManifest:
        """Return a manifest that holds this version too; one of its number is replaced."""
        others = [old for old in self.versions if old.number != entry.number]
        return VersionManifest(_sorted([*others, entry]), self.starting_version)


def parse_manifest(data: bytes, source: str) -> VersionManifest:
    """Read a manifest; `BadDisk` says what is wrong in ``source``."""
    if len(data) > LIMIT_BYTES:
        raise _bad(source, f"found {len(data)} bytes, needed at most {LIMIT_BYTES}")
    reader = _Reader(source)
    reader.read(data)
    versions = [_entry(fields, source) for fields in reader.versions]
    numbers = [entry.number for entry in versions]
    if len(set(numbers)) != len(numbers):
        raise _bad(source, "found a version number twice")
    files = [entry.disk_file_name.casefold() for entry in versions]
    if len(set(files)) != len(files):
        raise _bad(source, "found one file as two versions")
    if not versions:
        raise _bad(source, "found no version, needed at least one")
    start = _number({_STARTING: reader.starting or "0"}, _STARTING, source)
    return VersionManifest(_sorted(versions), start)


def render_manifest(manifest: VersionManifest) -> bytes:
    """Return the manifest as PVS writes it: UTF-8, versions ascending, times in whole seconds."""
    lines = ['<?xml version="1.0" encoding="utf-8"?>', f"<{_ROOT}>"]
    lines.append(f"  <{_STARTING}>{manifest.starting_version}</{_STARTING}>")
    for entry in _sorted(manifest.versions):
        lines += [f"  <{_VERSION}>", *_rendered(entry), f"  </{_VERSION}>"]
    return "\r\n".join([*lines, f"</{_ROOT}>", ""]).encode()


def date_text(seconds: int) -> str:
    """Return a time as ``createDate`` has it, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


@dataclass
class _Reader:
    """Collects the leaves of the document; everything outside the known shape is refused."""

    source: str
    starting: str = ""
    versions: list[dict[str, str]] = field(default_factory=list)
    _path: list[str] = field(default_factory=list)
    _text: str = ""

    def read(self, data: bytes) -> None:
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        try:
            parser.Parse(data, True)  # noqa: FBT003 - expat names no keyword
        except expat.ExpatError as error:
            raise _bad(self.source, f"it is no XML ({error})") from None
        except (ValueError, LookupError) as error:
            if isinstance(error, BadDisk):
                raise
            raise _bad(self.source, f"its encoding is unknown ({error})") from None

    def _refuse_doctype(self, *_declaration: object) -> None:
        raise _bad(self.source, "found a document type, needed none")

    def _start(self, name: str, _attributes: dict[str, str]) -> None:
        if not self._path and name != _ROOT:
            raise _bad(self.source, f"found <{name[:64]}>, needed <{_ROOT}>")
        if len(self._path) > 2 or (len(self._path) == 2 and self._path[1] != _VERSION):
            raise _bad(self.source, f"found <{name[:64]}> too deep inside")
        self._path.append(name)
        self._text = ""
        if self._path == [_ROOT, _VERSION]:
            if len(self.versions) == _MOST_VERSIONS:
                raise _bad(self.source, f"found more than {_MOST_VERSIONS} versions")
            self.versions.append({})

    def _characters(self, text: str) -> None:
        self._text += text
        if len(self._text) > _LONGEST_TEXT:
            raise _bad(self.source, f"found a text longer than {_LONGEST_TEXT} characters")

    def _end(self, name: str) -> None:
        if self._path == [_ROOT, _STARTING]:
            self.starting = self._text
        elif len(self._path) == 3:
            if name in self.versions[-1]:
                raise _bad(self.source, f"found <{name[:64]}> twice in one version")
            self.versions[-1][name] = self._text
        self._path.pop()
        self._text = ""


def _entry(fields: dict[str, str], source: str) -> VersionEntry:
    rest = dict(fields)
    number = _number(rest, "versionNumber", source)
    kind, access = _number(rest, "type", source), _number(rest, "access", source)
    if kind not in set(VersionType) or access not in set(Access):
        raise _bad(source, f"found type {kind} and access {access} in version {number}")
    entry = VersionEntry(
        number=number,
        disk_file_name=_file_name(rest, source),
        size_bytes=_number(rest, "size", source),
        last_write_seconds=_seconds(rest.pop("lastWriteTime", ""), "lastWriteTime", source),
        kind=VersionType(kind),
        access=Access(access),
        create_date=rest.pop("createDate", ""),
        scheduled_date=rest.pop("scheduledDate", ""),
        delete_when_free=_number(rest, "deleteWhenFree", source, missing="0") != 0,
        description=rest.pop("description", ""),
        others=tuple(rest.items()),
    )
    for name, _ in entry.others:
        if not re.fullmatch(r"[A-Za-z_][\w.-]{0,63}", name):
            raise _bad(source, f"found an element named {name[:64]!r}")
    return entry


def _rendered(entry: VersionEntry) -> list[str]:
    written = datetime.fromtimestamp(entry.last_write_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    leaves = [
        ("versionNumber", str(entry.number)),
        ("description", entry.description),
        ("type", str(int(entry.kind))),
        ("access", str(int(entry.access))),
        ("createDate", entry.create_date),
        ("scheduledDate", entry.scheduled_date),
        ("deleteWhenFree", str(int(entry.delete_when_free))),
        ("diskFileName", entry.disk_file_name),
        ("size", str(entry.size_bytes)),
        ("lastWriteTime", written),
        *entry.others,
    ]
    return [f"    {_leaf(name, text)}" for name, text in leaves]


def _leaf(name: str, text: str) -> str:
    if _UNWRITABLE.search(text):
        raise InputError(f"Bad manifest field {name}: found characters that XML cannot hold.")
    # A parser turns a bare CR into LF; a reference survives.
    return f"<{name}>{escape(text, {chr(13): '&#13;'})}</{name}>" if text else f"<{name}/>"


def _number(fields: dict[str, str], name: str, source: str, missing: str = "") -> int:
    text = (fields.pop(name, "") or missing).strip()
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise _bad(source, f"found {text[:40]!r} as <{name}>, needed a number")
    return int(text)


def _file_name(fields: dict[str, str], source: str) -> str:
    name = fields.pop("diskFileName", "")
    if not name or len(name) > 255 or set(name) & set('/\\:*?"<>|\0') or name in {".", ".."}:
        raise _bad(source, f"found {name[:64]!r} as <diskFileName>, needed a file of the store")
    return name


def _seconds(text: str, name: str, source: str) -> int:
    found = re.fullmatch(r"\s*(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.\d{1,9})?Z?\s*", text)
    try:
        if found is None:
            raise ValueError(text)
        moment = datetime.fromisoformat(f"{found[1]}T{found[2]}+00:00")
        return int(moment.timestamp())
    except ValueError:
        raise _bad(source, f"found {text[:40]!r} as <{name}>, needed a UTC time") from None


def _sorted(versions: tuple[VersionEntry, ...] | list[VersionEntry]) -> tuple[VersionEntry, ...]:
    return tuple(sorted(versions, key=lambda entry: entry.number))


def _bad(source: str, cause: str) -> BadDisk:
    return BadDisk(
        f"Bad version manifest '{source}': {cause}.",
        hint="Export the vDisk's manifest again from the Provisioning console.",
    )
