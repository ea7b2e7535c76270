"""Reads and judges the structures of a VHDX: headers, regions, metadata. Everything distrusted."""

# References: [MS-VHDX] 2.2 header section, 2.6 metadata.

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NoReturn

from imageport.errors import UnsupportedDisk
from imageport.formats import _vhdx_layout as layout
from imageport.formats._vhdx_faults import bad, cut_short, read
from imageport.formats._vhdx_locator import ParentLocator, unpack_locator
from imageport.model import MIB
from imageport.storage.byte_file import ByteFile


@dataclass(frozen=True, slots=True)
class Structure:
    """What the structures of a valid VHDX say."""

    header: layout.Header
    regions: tuple[layout.Region, ...]
    geometry: layout.Geometry
    bat: layout.Region
    disk_id: uuid.UUID
    physical_sector_bytes: int
    parent: ParentLocator | None = None

    @property
    def reserved_ranges(self) -> list[tuple[int, int]]:
        """Return (start, end) of everything no payload block may touch, ascending."""
        log = (self.header.log_offset, self.header.log_offset + self.header.log_bytes)
        ranges = [(0, layout.HEADER_SECTION_BYTES), log]
        ranges += [(region.offset, region.end) for region in self.regions]
        return sorted(ranges)


def load(file: ByteFile, header: layout.Header) -> Structure:
    """Read and validate all structures but the headers and the BAT's entries.

    ``file`` is the file with its log replayed.

    Raises:
        BadDisk: The bytes contradict the specification, or the file is cut short.
        UnsupportedDisk: Sound, but with something required and unknown.
    """
    regions = _regions(file, header)
    by_kind = {region.kind: region for region in regions}
    for kind, name in ((layout.REGION_BAT, "BAT"), (layout.REGION_METADATA, "metadata")):
        if kind not in by_kind:
            bad(file, "region table", layout.REGION_TABLE_OFFSETS[0], f"no {name} region", "one")
    items = _items(file, by_kind[layout.REGION_METADATA])
    geometry = _geometry(items)
    bat = by_kind[layout.REGION_BAT]
    needed = geometry.entry_count * layout.BAT_ENTRY_BYTES
    if bat.length < needed:
        bad(file, "BAT region", bat.offset, f"{bat.length} bytes", f"at least {needed} bytes")
    disk_id = layout.guid(items.read(layout.ITEM_DISK_ID, "virtual disk id", 16))
    physical = items.number(layout.ITEM_PHYSICAL_SECTOR, "physical sector size", "<I")
    if physical not in {512, 4096}:
        items.bad(layout.ITEM_PHYSICAL_SECTOR, "physical sector size", physical, "512 or 4096")
    parent = items.parent() if geometry.has_parent else None
    return Structure(header, tuple(regions), geometry, bat, disk_id, physical, parent)


def load_header(file: ByteFile, *, signature: bytes = layout.SIGNATURE) -> layout.Header:
    """Read and validate the current header; the newer of two sound ones counts.

    Raises:
        BadDisk: No file with this signature, no sound header, or one that places the log wrongly.
    """
    found = read(file, "file type identifier", 0, 8)
    if found != signature:
        bad(file, "file type identifier", 0, found, signature)
    packed = [read(file, "header", at, layout.HEADER_BYTES) for at in layout.HEADER_OFFSETS]
    valid = [header for data in packed if (header := layout.Header.unpack(data))]
    at = layout.HEADER_OFFSETS[0]
    if not valid:
        bad(file, "both headers", at, "wrong signature or CRC-32C", "one valid header")
    header = max(valid, key=lambda one: one.sequence)
    if len(valid) == 2 and valid[0].sequence == valid[1].sequence and packed[0] != packed[1]:
        bad(file, "headers", at, f"two of sequence {header.sequence} that differ", "one newer")
    if header.version != 1:
        bad(file, "header version", at, header.version, 1)
    if header.log_bytes % MIB or header.log_offset % MIB:
        needed = "multiples of 1 MiB"
        bad(file, "log place", at, f"{header.log_offset} + {header.log_bytes}", needed)
    if header.log_bytes and header.log_offset < MIB:
        bad(file, "log place", at, header.log_offset, "1 MiB or more")
    return header


def _regions(file: ByteFile, header: layout.Header) -> list[layout.Region]:
    size = layout.REGION_TABLE_BYTES
    tables = [read(file, "region table", at, size) for at in layout.REGION_TABLE_OFFSETS]
    counted = [(layout.unpack_region_count(table), table) for table in tables]
    valid = [(count, table) for count, table in counted if count is not None]
    at = layout.REGION_TABLE_OFFSETS[0]
    if not valid:
        bad(file, "both region tables", at, "wrong signature or CRC-32C", "one valid table")
    if len(valid) == 2 and valid[0] != valid[1]:
        bad(file, "region tables", at, "two valid copies that differ", "equal copies")
    count, table = valid[0]
    if count > layout.MAX_REGIONS:
        bad(file, "region count", at, count, f"at most {layout.MAX_REGIONS}")
    regions = layout.unpack_regions(table, count)
    _check_regions(file, header, regions)
    return regions


def _check_regions(file: ByteFile, header: layout.Header, regions: list[layout.Region]) -> None:
    known = {layout.REGION_BAT, layout.REGION_METADATA}
    at = layout.REGION_TABLE_OFFSETS[0]
    if len({region.kind for region in regions}) != len(regions):
        bad(file, "region table", at, "a region twice", "each once")
    used = [(0, layout.HEADER_SECTION_BYTES, "header section")]
    if header.log_bytes:
        used.append((header.log_offset, header.log_offset + header.log_bytes, "log"))
    for region in regions:
        if region.kind not in known and region.required:
            raise UnsupportedDisk(
                f"Cannot read '{file.location}': it requires an unknown region {region.kind}.",
                hint="Convert the disk with the program that made it.",
                object=file.location,
            )
        name = f"region {region.kind}"
        if region.offset % MIB or region.length % MIB or not region.length:
            place = f"{region.offset} + {region.length}"
            bad(file, name, at, place, "multiples of 1 MiB, not empty")
        used.append((region.offset, region.end, name))
    used.sort()
    for (_, end, name), (start, _, next_name) in pairwise(used):
        if start < end:
            bad(file, next_name, start, f"an overlap with {name}", f"{end} or more")
    if used[-1][1] > file.size_bytes:
        cut_short(file, used[-1][2], used[-1][1])


class _Items:
    """The metadata items of one file, by id."""

    def __init__(
        self, file: ByteFile, region: layout.Region, entries: dict[uuid.UUID, layout.MetadataEntry]
    ) -> None:
        self._file = file
        self._region = region
        self._entries = entries

    def read(self, item: uuid.UUID, name: str, length: int) -> bytes:
        """Return an item of exactly ``length`` bytes."""
        entry = self._entries.get(item)
        if entry is None:
            bad(self._file, "metadata table", self._region.offset, f"no {name}", "one")
        if entry.length != length:
            self.bad(item, f"{name} item", f"{entry.length} bytes", f"{length} bytes")
        return self._file.read_at(self._region.offset + entry.offset, length)

    def number(self, item: uuid.UUID, name: str, code: str) -> int:
        """Return an item that is one number."""
        (value,) = struct.unpack(code, self.read(item, name, struct.calcsize(code)))
        return int(value)

    def parent(self) -> ParentLocator:
        """Return what the file says of its parent."""
        entry = self._entries.get(layout.ITEM_PARENT_LOCATOR)
        if entry is None:
            bad(self._file, "metadata table", self._region.offset, "no parent locator", "one")
        data = self._file.read_at(self._region.offset + entry.offset, entry.length)
        return unpack_locator(data, partial(self.bad, layout.ITEM_PARENT_LOCATOR))

    def bad(self, item: uuid.UUID, what: str, found: object, needed: object) -> NoReturn:
        """Raise `BadDisk` at the item's place."""
        bad(self._file, what, self._region.offset + self._entries[item].offset, found, needed)


def _items(file: ByteFile, region: layout.Region) -> _Items:
    table = file.read_at(region.offset, layout.METADATA_TABLE_BYTES)
    count = layout.unpack_metadata_count(table)
    if count is None:
        needed = layout.METADATA_SIGNATURE
        bad(file, "metadata table signature", region.offset, table[:8], needed)
    if count > layout.MAX_METADATA_ENTRIES:
        needed_count = f"at most {layout.MAX_METADATA_ENTRIES}"
        bad(file, "metadata entry count", region.offset, count, needed_count)
    entries = layout.unpack_metadata(table, count)
    _check_entries(file, region, entries)
    return _Items(file, region, {one.item: one for one in entries if not one.is_user})


_KNOWN_ITEMS = frozenset(
    {
        layout.ITEM_FILE_PARAMETERS,
        layout.ITEM_DISK_SIZE,
        layout.ITEM_DISK_ID,
        layout.ITEM_LOGICAL_SECTOR,
        layout.ITEM_PHYSICAL_SECTOR,
        layout.ITEM_PARENT_LOCATOR,
    }
)


def _check_entries(
    file: ByteFile, region: layout.Region, entries: list[layout.MetadataEntry]
) -> None:
    seen: set[tuple[bool, uuid.UUID]] = set()
    places = []
    for entry in entries:
        name = f"metadata item {entry.item}"
        if (entry.is_user, entry.item) in seen:
            bad(file, name, region.offset, "it twice", "it once")
        seen.add((entry.is_user, entry.item))
        if entry.required and (entry.is_user or entry.item not in _KNOWN_ITEMS):
            raise UnsupportedDisk(
                f"Cannot read '{file.location}': it requires unknown metadata {entry.item}.",
                hint="Convert the disk with the program that made it.",
                object=file.location,
            )
        if not entry.length:
            continue
        end = entry.offset + entry.length
        if entry.length > layout.MAX_METADATA_ITEM_BYTES:
            bad(file, name, region.offset, f"{entry.length} bytes", "at most 1 MiB")
        if entry.offset < layout.METADATA_TABLE_BYTES or end > region.length:
            needed = f"inside {layout.METADATA_TABLE_BYTES}..{region.length}"
            bad(file, name, region.offset, f"{entry.offset}..{end}", needed)
        places.append((entry.offset, end, name))
    places.sort()
    for (_, end, name), (start, _, next_name) in pairwise(places):
        if start < end:
            bad(file, next_name, region.offset + start, f"an overlap with {name}", "none")


_HAS_PARENT = 2
"""2.6.2.1 flag B."""


def _geometry(items: _Items) -> layout.Geometry:
    packed = items.read(layout.ITEM_FILE_PARAMETERS, "file parameters", 8)
    block_bytes, flags = struct.unpack("<II", packed)
    power_of_two = block_bytes & (block_bytes - 1) == 0
    if not (layout.MIN_BLOCK_BYTES <= block_bytes <= layout.MAX_BLOCK_BYTES and power_of_two):
        needed = "a power of two from 1 to 256 MiB"
        items.bad(layout.ITEM_FILE_PARAMETERS, "block size", block_bytes, needed)
    sector_bytes = items.number(layout.ITEM_LOGICAL_SECTOR, "logical sector size", "<I")
    if sector_bytes not in {512, 4096}:
        found = sector_bytes
        items.bad(layout.ITEM_LOGICAL_SECTOR, "logical sector size", found, "512 or 4096")
    disk_bytes = items.number(layout.ITEM_DISK_SIZE, "virtual disk size", "<Q")
    if not 0 < disk_bytes <= layout.MAX_DISK_BYTES or disk_bytes % sector_bytes:
        needed = f"1..64 TiB in sectors of {sector_bytes} bytes"
        items.bad(layout.ITEM_DISK_SIZE, "virtual disk size", disk_bytes, needed)
    return layout.Geometry(disk_bytes, block_bytes, sector_bytes, bool(flags & _HAS_PARENT))
