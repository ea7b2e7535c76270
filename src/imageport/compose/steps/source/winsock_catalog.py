# References: ws2spi.h (WSAPROTOCOL_INFOW, WSAPROTOCOLCHAIN); real hives of Windows 10.
r"""Winsock's catalogues: a provider whose library is gone breaks every socket of the machine.

Below ``Services\WinSock2\Parameters`` a catalogue lists its entries under twelve-digit ordinals
without gaps, for 32-bit and for 64-bit programs, and says how many there are. Entries can be taken
out and the others moved up; where a catalogue is not so, or where another protocol is layered on
one that goes, nothing is touched and first boot lets Windows write it anew (``netsh winsock
reset``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from imageport.compose.hives.hive import Key
from imageport.compose.hives.registry import Registry, service_path
from imageport.compose.hives.registry_value import Value
from imageport.compose.recorder import Recorder
from imageport.compose.steps.source.source_platform import volume_path

_CATALOGUES = ("Protocol_Catalog9", "NameSpace_Catalog5")
_WIDTHS = ("", "64")
_PATH_BYTES = 260
"""MAX_PATH characters in front of a protocol's record."""
_ID_AT = _PATH_BYTES + 36
"""Behind five flag words and the provider's GUID."""
_CHAIN = struct.Struct("<I7I")
_CHAIN_AT = _ID_AT + 4
_RECORD_BYTES = 888


@dataclass(frozen=True, slots=True)
class WinsockEntry:
    """One provider: where it stands and its library's file name in lower case."""

    control_set: str
    catalogue: str
    width: str
    """"" for 32-bit programs, ``64`` for 64-bit ones."""
    name: str
    library: str

    @property
    def path(self) -> str:
        """Return its key."""
        return f"{_list_path(self.control_set, self.catalogue, self.width)}\\{self.name}"


def winsock_entries(registry: Registry, control_set: str) -> Iterator[WinsockEntry]:
    """Yield every provider of one control set, in the catalogues' order."""
    for catalogue in _CATALOGUES:
        for width in _WIDTHS:
            yield from _entries(registry, control_set, catalogue, width)


def remove_providers(
    registry: Registry, recorder: Recorder, control_set: str, libraries: frozenset[str]
) -> bool:
    """Take out the providers of libraries (file names in lower case).

    Returns:
        False where that cannot be done safely; then nothing was changed in that catalogue.
    """
    done = True
    for catalogue in _CATALOGUES:
        for width in _WIDTHS:
            entries = _entries(registry, control_set, catalogue, width)
            kept = [entry for entry in entries if entry.library not in libraries]
            if len(kept) == len(entries):
                continue
            if _is_sound(registry, entries, kept):
                _renumber(registry, recorder, entries, kept)
            else:
                done = False
    return done


def _entries(
    registry: Registry, control_set: str, catalogue: str, width: str
) -> list[WinsockEntry]:
    key = registry.key("SYSTEM", _list_path(control_set, catalogue, width))
    return [
        WinsockEntry(control_set, catalogue, width, child.name, _library(child).rpartition("/")[2])
        for child in sorted(key.children() if key else [], key=lambda child: child.name)
    ]


def _is_sound(registry: Registry, entries: list[WinsockEntry], kept: list[WinsockEntry]) -> bool:
    """Say whether the list is as Windows writes it and nothing kept is layered on what goes."""
    if [entry.name for entry in entries] != [f"{n:012d}" for n in range(1, len(entries) + 1)]:
        return False
    first = entries[0]
    place = _catalogue_path(first.control_set, first.catalogue)
    if registry.number("SYSTEM", place, f"Num_Catalog_Entries{first.width}") != len(entries):
        return False
    if first.catalogue != _CATALOGUES[0]:
        return True
    records = {entry: _record(registry, entry) for entry in entries}
    if any(len(record) != _RECORD_BYTES for record in records.values()):
        return False
    going = {_identifier(records[entry]) for entry in entries if entry not in kept}
    return not any(going & set(_layers(records[entry])) for entry in kept)


def _renumber(
    registry: Registry, recorder: Recorder, entries: list[WinsockEntry], kept: list[WinsockEntry]
) -> None:
    """Move what stays up to the first ordinals, delete the last ones, correct the count."""
    contents = [_values(registry, entry) for entry in kept]
    for entry, content in zip(entries, contents, strict=False):
        for name in _values(registry, entry):
            if name not in content:
                recorder.delete_value("SYSTEM", entry.path, name)
        for name, value in content.items():
            recorder.set_value("SYSTEM", entry.path, name, value)
    first = entries[0]
    place = _catalogue_path(first.control_set, first.catalogue)
    count = Value.dword(len(kept))
    recorder.set_value("SYSTEM", place, f"Num_Catalog_Entries{first.width}", count)
    for entry in entries[len(kept) :]:
        recorder.delete_key("SYSTEM", entry.path)


def _values(registry: Registry, entry: WinsockEntry) -> dict[str, Value]:
    key = registry.key("SYSTEM", entry.path)
    return key.values() if key else {}


def _record(registry: Registry, entry: WinsockEntry) -> bytes:
    value = registry.value("SYSTEM", entry.path, "PackedCatalogItem")
    return value.data if value else b""


def _identifier(record: bytes) -> int:
    return int(struct.unpack_from("<I", record, _ID_AT)[0])


def _layers(record: bytes) -> tuple[int, ...]:
    """Return the identifiers of the protocols that one is layered on, itself among them."""
    length, *chain = _CHAIN.unpack_from(record, _CHAIN_AT)
    return tuple(chain[:length])


def _library(entry: Key) -> str:
    packed, path = entry.value("PackedCatalogItem"), entry.value("LibraryPath")
    if packed is not None:
        text = packed.data[:_PATH_BYTES].split(b"\0", 1)[0].decode("latin-1")
        return volume_path(text)
    return volume_path(path.as_text()) if path else ""


def _catalogue_path(control_set: str, catalogue: str) -> str:
    return f"{service_path(control_set, 'WinSock2')}\\Parameters\\{catalogue}"


def _list_path(control_set: str, catalogue: str, width: str) -> str:
    return f"{_catalogue_path(control_set, catalogue)}\\Catalog_Entries{width}"
