"""Reads grain directory and grain tables of a VMDK as they are needed, in bounded memory."""

# References: VMware Virtual Disk Format 5.0: grain directory, grain tables, zeroed-grain entries.

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

from imageport.errors import BadDisk
from imageport.formats import _vmdk_layout as layout
from imageport.formats._vmdk_header import bad
from imageport.storage.byte_file import ByteFile

_READ_TABLES = 128
"""Tables that are read at once where they lie side by side (256 KiB, 4 GiB of a usual disk)."""
_KEPT_TABLES = 1024
"""2 MiB of tables, the most that one disk keeps."""
HOLE = 0
"""`GrainRun.place` of grains that were never allocated."""
_PER_TABLE = layout.ENTRIES_PER_TABLE


class GrainRun(NamedTuple):
    """Grains that follow each other on the disk, and in the file if they are in it.

    ``place`` is the sector of the first, `HOLE`, or ``_vmdk_layout.ZEROED_GRAIN``.
    """

    grain: int
    grains: int
    place: int


class GrainTables:
    """One grain directory and its tables.

    Raises:
        BadDisk: The directory lies outside the file, or its tables do, or two of them overlap.
    """

    def __init__(self, file: ByteFile, header: layout.SparseHeader, directory: int) -> None:
        self._file = file
        self._grain_size = header.grain_size
        self._grains = -(-header.capacity // header.grain_size)
        self._zeroed = bool(header.flags & layout.FLAG_ZEROED_GRAINS)
        self._compressed = header.is_compressed
        self.directory_place = directory
        self._directory = self._read_directory(header.table_count)
        self._kept: OrderedDict[int, array[int]] = OrderedDict()
        self._lock = threading.Lock()

    def table_ranges(self) -> list[tuple[int, int]]:
        """Return (first, behind) sectors of directory and tables, ascending, neighbours merged."""
        directory_sectors = layout.sectors(len(self._directory) * layout.ENTRY_BYTES)
        starts = [(place, place + layout.TABLE_SECTORS) for place in self._directory if place]
        starts.append((self.directory_place, self.directory_place + directory_sectors))
        found: list[tuple[int, int]] = []
        for first, behind in sorted(starts):
            if found and found[-1][1] >= first:
                found[-1] = (found[-1][0], max(found[-1][1], behind))
            else:
                found.append((first, behind))
        return found

    def runs(self, first: int, behind: int) -> Iterator[GrainRun]:
        """Yield runs that cover the grains once; long where nothing is allocated.

        Raises:
            BadDisk: An entry points outside the file.
        """
        grain = first
        while grain < behind:
            number = grain // _PER_TABLE
            if not self._directory[number]:
                number = self._next_table(number)
                stop = min(behind, number * _PER_TABLE)
                yield GrainRun(grain, stop - grain, HOLE)
            else:
                stop = min(behind, (number + 1) * _PER_TABLE)
                entries = self._table(number)[grain % _PER_TABLE :][: stop - grain]
                yield from self._table_runs(grain, entries)
            grain = stop

    def _next_table(self, number: int) -> int:
        while number < len(self._directory) and not self._directory[number]:
            number += 1
        return number

    def _table_runs(self, grain: int, entries: array[int]) -> Iterator[GrainRun]:
        count, step = len(entries), self._grain_size
        start = 0
        while start < count:
            place = entries[start]
            stop = start + 1
            if place == HOLE or (place == layout.ZEROED_GRAIN and self._zeroed):
                while stop < count and entries[stop] == place:
                    stop += 1
            elif not self._compressed:
                while stop < count and entries[stop] == place + (stop - start) * step:
                    stop += 1
            yield GrainRun(grain + start, stop - start, place)
            start = stop

    def _table(self, number: int) -> array[int]:
        with self._lock:
            if number not in self._kept:
                self._read_tables(number)
            self._kept.move_to_end(number)
            return self._kept[number]

    def _read_tables(self, number: int) -> None:
        """Read a table and those that follow it in the directory and in the file."""
        start = self._directory[number]
        stop = number + 1
        most = min(len(self._directory), number + _READ_TABLES)
        while (
            stop < most and self._directory[stop] == start + (stop - number) * layout.TABLE_SECTORS
        ):
            stop += 1
        length = (stop - number) * layout.TABLE_BYTES
        data = memoryview(self._file.read_at(start * layout.SECTOR_BYTES, length))
        for index in range(stop - number):
            at = index * layout.TABLE_BYTES
            self._kept[number + index] = layout.unpack_entries(data[at : at + layout.TABLE_BYTES])
        self._kept.move_to_end(number)
        while len(self._kept) > _KEPT_TABLES:
            self._kept.popitem(last=False)

    def _read_directory(self, count: int) -> array[int]:
        location, place = self._file.location, self.directory_place
        at, length = place * layout.SECTOR_BYTES, count * layout.ENTRY_BYTES
        if not place or at + length > self._file.size_bytes:
            found = f"sectors {place} to {place + layout.sectors(length)}"
            bad(location, "grain directory", at, found, f"inside {self._file.size_bytes} bytes")
        entries = layout.unpack_entries(self._file.read_at(at, length))
        tables = sorted(entry for entry in entries if entry)
        if tables and (tables[-1] + layout.TABLE_SECTORS) * layout.SECTOR_BYTES > (
            self._file.size_bytes
        ):
            needed = f"inside {self._file.size_bytes} bytes"
            bad(location, "grain directory", at, f"a table at sector {tables[-1]}", needed)
        for one, other in pairwise(tables):
            if other - one < layout.TABLE_SECTORS:
                found = f"tables at sectors {one} and {other}"
                bad(location, "grain directory", at, found, "no overlap")
        return entries


def from_either(header: layout.SparseHeader, load: Callable[[int], GrainTables]) -> GrainTables:
    """Load the tables below the grain directory, or the redundant ones where those are damaged.

    Raises:
        BadDisk: What is wrong with the first ones, when there are no others or they are no better.
    """
    try:
        return load(header.directory)
    except BadDisk as error:
        if not header.flags & layout.FLAG_REDUNDANT_TABLES:
            raise
        try:
            return load(header.redundant_directory)
        except BadDisk:
            raise error from None
