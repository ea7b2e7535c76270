"""The extents that a VMDK is made of: flat, sparse, zeros; each says where its bytes lie."""

# References: VMware Virtual Disk Format 5.0: extent descriptions, hosted sparse extents.

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator

from imageport.errors import BadDisk
from imageport.formats import _vmdk_layout as layout
from imageport.formats._vmdk_grain_map import GrainMap
from imageport.formats._vmdk_header import bad, unsupported
from imageport.formats._vmdk_tables import HOLE, GrainTables, from_either
from imageport.formats.disk_file import StoredFile
from imageport.formats.mapped_disk import Segment
from imageport.model import ExtentState

_CLEAN_HINT = (
    "Shut down the machine that uses the disk; if none does, open and close it once with a VMware "
    "tool, which mends it."
)


class VmdkExtent(ABC):
    """A part of a disk; offsets of segments count from the extent's start."""

    size_bytes: int

    @abstractmethod
    def segments(self, offset: int, length: int) -> Iterator[Segment]:
        """Yield segments that cover a range of the extent once, ascending."""


class ZeroExtent(VmdkExtent):
    """A part without a file."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    def segments(self, offset: int, length: int) -> Iterator[Segment]:
        """Yield zeros: the descriptor promises them."""
        yield Segment(offset, length, ExtentState.ZERO)


class FlatExtent(VmdkExtent):
    """A part whose bytes lie side by side in a file, from ``start_bytes`` on.

    Raises:
        BadDisk: The file is shorter than that.
    """

    def __init__(self, stored: StoredFile, size_bytes: int, start_bytes: int = 0) -> None:
        self.size_bytes = size_bytes
        self._stored = stored
        self._start = start_bytes
        needed = start_bytes + size_bytes
        if needed > stored.file.size_bytes:
            raise BadDisk(
                f"Bad VMDK '{stored.file.location}': cut short: its extent needs {needed} bytes, "
                f"found a file of {stored.file.size_bytes} bytes.",
                object=stored.file.location,
                offset_bytes=stored.file.size_bytes,
            )

    def segments(self, offset: int, length: int) -> Iterator[Segment]:
        """Yield the bytes."""
        yield Segment(offset, length, ExtentState.DATA, self._stored, self._start + offset)


class SparseExtent(VmdkExtent):
    """A part whose grains lie anywhere in a file, by a grain directory and tables.

    Reads all tables once and judges every entry; where they are damaged and the file has redundant
    ones that are sound, these are used.

    Raises:
        BadDisk: A grain lies outside the file, in its tables, or in another grain.
        UnsupportedDisk: The file was not closed by whoever wrote it.
    """

    def __init__(self, stored: StoredFile, header: layout.SparseHeader, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._stored = stored
        self._header = header
        location = stored.file.location
        if header.is_compressed:
            unsupported(
                location,
                "it is a compressed extent of a disk in several files, which no product writes",
                "Open that file alone if it is the whole disk.",
            )
        if header.unclean_shutdown:
            unsupported(location, "it was not closed after it was written", _CLEAN_HINT)
        self._tables = from_either(header, self._judged)

    def segments(self, offset: int, length: int) -> Iterator[Segment]:
        """Yield what the grain tables say; a grain marked as zeroed is ZERO, none is HOLE."""
        grain_bytes, end = self._header.grain_bytes, offset + length
        first, behind = offset // grain_bytes, -(-end // grain_bytes)
        for grain, count, place in self._tables.runs(first, behind):
            start, stop = max(offset, grain * grain_bytes), min(end, (grain + count) * grain_bytes)
            if place == HOLE:
                yield Segment(start, stop - start, ExtentState.HOLE)
            elif self._is_zeroed(place):
                yield Segment(start, stop - start, ExtentState.ZERO)
            else:
                at = place * layout.SECTOR_BYTES + start - grain * grain_bytes
                yield Segment(start, stop - start, ExtentState.DATA, self._stored, at)

    def _is_zeroed(self, place: int) -> bool:
        return place == layout.ZEROED_GRAIN and bool(self._header.flags & layout.FLAG_ZEROED_GRAINS)

    def _judged(self, directory: int) -> GrainTables:
        """Return the tables below a directory, once all of their entries are sound."""
        header, file = self._header, self._stored.file
        tables = GrainTables(file, header, directory)
        taken = self._metadata(tables)
        starts = [first for first, _ in taken]
        grains, size = GrainMap(header.grain_size), header.grain_size
        file_sectors = file.size_bytes // layout.SECTOR_BYTES
        for grain, count, place in tables.runs(0, -(-header.capacity // size)):
            if place == HOLE or self._is_zeroed(place):
                continue
            # Some writers end the file where the disk ends, in the middle of the last grain.
            kept = min(count * size, header.capacity - grain * size)
            before = bisect_right(starts, place + kept - 1) - 1
            what = f"grain {grain}"
            at = place * layout.SECTOR_BYTES
            if place + kept > file_sectors:
                needed = f"inside {file.size_bytes} bytes"
                bad(file.location, what, at, f"{kept} sectors behind the file's end", needed)
            if before >= 0 and taken[before][1] > place:
                bad(file.location, what, at, "a place inside header or tables", "one of its own")
            if not grains.take(place, count):
                bad(file.location, what, at, "a place inside another grain", "one of its own")
        return tables

    def _metadata(self, tables: GrainTables) -> list[tuple[int, int]]:
        """Return (first, behind) of the sectors that no grain may touch, ascending, disjoint."""
        header = self._header
        descriptor = (header.descriptor_offset, header.descriptor_offset + header.descriptor_size)
        found: list[tuple[int, int]] = []
        for first, behind in sorted([(0, 1), descriptor, *tables.table_ranges()]):
            if found and found[-1][1] >= first:
                found[-1] = (found[-1][0], max(found[-1][1], behind))
            else:
                found.append((first, behind))
        return found
