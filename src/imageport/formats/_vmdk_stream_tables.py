"""Compares the grains that a stream brought with the tables that it brought, in little memory."""

# References: VMware Virtual Disk Format 5.0: grain directory, grain tables, markers, footer.

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from typing import Protocol

from imageport.errors import ExportInterrupted
from imageport.formats import _vmdk_layout as layout
from imageport.formats._vmdk_header import bad, check_header, unsupported

_DIGEST_BYTES = 16
_MOST_EXTRA_SECTORS = 128
"""Directories are padded; we have seen up to a grain."""
_MOST_PLACE = 2**32 - 1
_EMPTY_TABLE = bytes(layout.TABLE_BYTES)


class SectorSource(Protocol):
    """What the tables are read from: the stream, in order."""

    position: int

    def take(self, length: int, what: str) -> memoryview:
        """Return the next bytes."""

    def skip_to(self, sector: int, what: str) -> None:
        """Drop what precedes a sector."""


class StreamTables:
    """What came against what the tables say.

    Tables may come long after their grains, and a disk may have millions of grains. So a table's
    worth of grains is kept as a digest of the table that it ought to have: 20 bytes for 512 grains.
    """

    def __init__(self, location: str, header: layout.SparseHeader) -> None:
        self._location = location
        self._header = header
        self._number = -1
        self._table = array("I")
        self._numbers = array("I")
        self._digests = bytearray()
        """Of the tables that the grains imply, ascending by `_numbers`."""
        self._places = array("I")
        self._claims = bytearray()
        """Of the tables that came, ascending by `_places`."""
        self._directory: array[int] | None = None
        self._directory_place = 0
        self._last_place = 0
        self._has_footer = False

    def grain_came(self, grain: int, place: int) -> None:
        """Note that a grain's marker lies at a sector; grains ascend."""
        if self._header.directory == layout.DIRECTORY_AT_END and self._directory is not None:
            at = place * layout.SECTOR_BYTES
            bad(self._location, "marker", at, "a grain behind the directory", "the footer")
        if place > _MOST_PLACE:
            unsupported(
                self._location,
                "its stream is longer than 2 TiB, which grain tables cannot address",
                "Export the disk through its datastore instead.",
            )
        number, inside = divmod(grain, layout.ENTRIES_PER_TABLE)
        if number != self._number:
            self._seal()
            self._number, self._table = number, array("I", _EMPTY_TABLE)
        self._table[inside] = place

    def read(self, source: SectorSource, value: int, kind: int) -> None:
        """Take what a marker without data announces; ``value`` is its sectors."""
        at = source.position - layout.SECTOR_BYTES
        if self._header.directory != layout.DIRECTORY_AT_END:
            bad(self._location, "marker", at, f"kind {kind} with tables in front", "a grain")
        if kind == layout.MarkerKind.GRAIN_TABLE and self._directory is None:
            self._read_table(source, value)
        elif kind == layout.MarkerKind.GRAIN_DIRECTORY and self._directory is None:
            self._read_directory(source, value)
        elif kind == layout.MarkerKind.FOOTER and self._directory is not None:
            self._read_footer(source, value)
        elif kind != layout.MarkerKind.UNDOCUMENTED:
            found = f"kind {kind} with value {value}"
            bad(
                self._location, "marker", at, found, "the next of grains, tables, directory, footer"
            )

    def read_front(self, source: SectorSource) -> None:
        """Take directory and tables that precede the grains; the redundant ones are skipped."""
        header = self._header
        length = header.table_count * layout.ENTRY_BYTES
        if header.directory * layout.SECTOR_BYTES < source.position:
            needed = "a place behind header and descriptor"
            bad(self._location, "grain directory's sector", 56, header.directory, needed)
        source.skip_to(header.directory, "the grain directory")
        padded = layout.sectors(length) * layout.SECTOR_BYTES
        directory = layout.unpack_entries(source.take(padded, "the grain directory")[:length])
        for place in directory:
            if not place:
                continue
            if place * layout.SECTOR_BYTES < source.position or place > header.overhead:
                needed = f"ascending, from {source.position // layout.SECTOR_BYTES} to the grains"
                at = header.directory * layout.SECTOR_BYTES
                bad(self._location, "grain directory", at, f"a table at sector {place}", needed)
            source.skip_to(place, "a grain table")
            self._read_table(source, layout.TABLE_SECTORS)
        self._directory = directory

    def check_end(self, source: SectorSource, *, marked: bool) -> None:
        """Judge all of it, where the stream has its end; ``marked``: by its marker.

        Raises:
            ExportInterrupted: Something is still to come.
            BadDisk: A grain is missing, or not where its table says.
        """
        self._seal()
        at_end = self._header.directory == layout.DIRECTORY_AT_END
        behind_last = self._last_place * layout.SECTOR_BYTES < source.position
        if not marked and (at_end or not behind_last):
            raise ExportInterrupted(
                f"Cannot read '{self._location}': the stream ended after {source.position} bytes, "
                f"before its {'end marker' if at_end else 'last grain'}.",
                object=self._location,
            )
        if at_end and not self._has_footer:
            at = source.position - layout.SECTOR_BYTES
            bad(self._location, "end marker", at, "the end", "directory and footer before it")
        empty = _digest(_EMPTY_TABLE)
        for number, place in enumerate(self._directory or ()):
            came = _find(self._numbers, self._digests, number) or empty
            said = _find(self._places, self._claims, place) if place else empty
            if said is None:
                at = self._directory_place * layout.SECTOR_BYTES
                needed = "one of the grain tables that came"
                bad(self._location, f"grain directory's entry {number}", at, place, needed)
            if came != said:
                found = "other grains than those that came"
                at = place * layout.SECTOR_BYTES
                bad(self._location, f"grain table {number}", at, found, "the same")

    def _seal(self) -> None:
        if self._number >= 0:
            self._numbers.append(self._number)
            self._digests += _digest(layout.pack_entries(self._table))
            self._number = -1

    def _read_table(self, source: SectorSource, value: int) -> None:
        at, place = source.position, source.position // layout.SECTOR_BYTES
        if value != layout.TABLE_SECTORS:
            bad(self._location, "grain table's sectors", at, value, layout.TABLE_SECTORS)
        if len(self._places) >= self._header.table_count or place > _MOST_PLACE:
            needed = f"at most {self._header.table_count}"
            bad(self._location, "grain tables", at, "one more", needed)
        data = bytes(source.take(layout.TABLE_BYTES, "a grain table"))
        entries = layout.unpack_entries(data)
        if self._header.flags & layout.FLAG_ZEROED_GRAINS and layout.ZEROED_GRAIN in entries:
            data = layout.pack_entries(
                array("I", [0 if e == layout.ZEROED_GRAIN else e for e in entries])
            )
        self._last_place = max(self._last_place, *entries)
        self._places.append(place)
        self._claims += _digest(data)

    def _read_directory(self, source: SectorSource, value: int) -> None:
        at = source.position
        length = self._header.table_count * layout.ENTRY_BYTES
        needed = layout.sectors(length)
        if not needed <= value <= needed + _MOST_EXTRA_SECTORS:
            wanted = f"{needed} to {needed + _MOST_EXTRA_SECTORS}"
            bad(self._location, "grain directory's sectors", at, value, wanted)
        data = source.take(value * layout.SECTOR_BYTES, "the grain directory")
        if any(data[length:]):
            bad(self._location, "grain directory", at + length, "more entries", "zeros")
        self._directory = layout.unpack_entries(data[:length])
        self._directory_place = at // layout.SECTOR_BYTES

    def _read_footer(self, source: SectorSource, value: int) -> None:
        at = source.position
        if value != 1:
            bad(self._location, "footer's sectors", at, value, 1)
        footer = layout.SparseHeader.unpack(source.take(layout.SECTOR_BYTES, "the footer"))
        check_header(self._location, footer, at)
        for name in ("capacity", "grain_size", "compression"):
            found, needed = getattr(footer, name), getattr(self._header, name)
            if found != needed:
                bad(self._location, f"footer's {name}", at, found, f"{needed} as in the header")
        if footer.directory != self._directory_place:
            needed = self._directory_place
            bad(self._location, "footer's directory sector", at, footer.directory, needed)
        self._has_footer = True


def _digest(table: bytes) -> bytes:
    return hashlib.blake2b(table, digest_size=_DIGEST_BYTES).digest()


def _find(keys: array[int], digests: bytearray, key: int) -> bytes | None:
    index = bisect_left(keys, key)
    if index == len(keys) or keys[index] != key:
        return None
    return bytes(digests[index * _DIGEST_BYTES : (index + 1) * _DIGEST_BYTES])
