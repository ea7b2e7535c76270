"""Reads a disk's partition table: GPT with its checksums, or MBR."""

# References: UEFI 2.10 5.2 (MBR), 5.3 (GPT).

from __future__ import annotations

import struct
import uuid
import zlib
from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn

from imageport.errors import BadDisk
from imageport.formats._mbr import read_mbr_partitions
from imageport.formats.virtual_disk import VirtualDisk

_SIGNATURE = b"EFI PART"
_REVISION = 0x00010000
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")
_MAX_ENTRIES = 1024
"""The usual table has 128; more than 1024 is damage, and would cost memory before the CRC."""
_MAX_ENTRY_BYTES = 4096
_PROTECTIVE = 0xEE
_MBR_SIGNATURE_AT = 0x1B8


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition; GUIDs are upper case, as sgdisk and libguestfs print them.

    For MBR ``type_guid`` is the type byte as ``0x07`` and ``guid`` and ``name`` are empty.
    """

    number: int
    first_byte: int
    length_bytes: int
    type_guid: str
    guid: str
    name: str

    @property
    def end_byte(self) -> int:
        """Return the offset behind the partition."""
        return self.first_byte + self.length_bytes


@dataclass(frozen=True, slots=True)
class DiskLayout:
    """The partitions of a disk, by number; ``scheme`` is ``gpt``, ``mbr`` or ``none``.

    ``disk_guid`` of an MBR disk is ``mbr:`` and the eight digits of its signature.
    """

    disk_guid: str
    scheme: str
    partitions: tuple[Partition, ...]
    from_backup: bool = False
    """The first GPT is damaged and this is the one at the disk's end."""


@dataclass(frozen=True, slots=True)
class _Header:
    lba: int
    first_usable: int
    last_usable: int
    disk_guid: uuid.UUID
    entries_lba: int
    entry_count: int
    entry_bytes: int
    entries_crc: int


def read_layout(disk: VirtualDisk) -> DiskLayout:
    """Read and validate the partition table.

    A damaged first GPT is replaced by the second, as firmware does; both damaged is an error. A
    disk without any table (or a bare volume) has scheme ``none``.

    Raises:
        BadDisk: Wrong checksums, or partitions outside the disk or over each other.
    """
    sector = disk.sector_bytes
    if disk.size_bytes < 2 * sector:
        return DiskLayout("", "none", ())
    head = disk.read_at(0, sector)
    types = [head[446 + 16 * at + 4] for at in range(4)] if head[510:512] == b"\x55\xaa" else []
    last_lba = disk.size_bytes // sector - 1
    has_gpt = disk.read_at(sector, 8) == _SIGNATURE
    if _PROTECTIVE not in types and not (has_gpt and not any(types)):
        return _mbr_layout(disk, head)
    try:
        return _read_gpt(disk, 1)
    except BadDisk as first:
        try:
            layout = _read_gpt(disk, last_lba)
        except BadDisk as second:
            raise BadDisk(
                f"{first.message} The copy at the disk's end does not help: {second.message}",
                **first.fields,
            ) from second
    return DiskLayout(layout.disk_guid, "gpt", layout.partitions, from_backup=True)


def _mbr_layout(disk: VirtualDisk, head: bytes) -> DiskLayout:
    found = read_mbr_partitions(disk, head)
    if not found:
        return DiskLayout("", "none", ())
    partitions = tuple(
        Partition(one.number, one.first_byte, one.length_bytes, f"{one.kind:#04x}", "", "")
        for one in found
    )
    (signature,) = struct.unpack_from("<I", head, _MBR_SIGNATURE_AT)
    return DiskLayout(f"mbr:{signature:08x}", "mbr", partitions)


def _read_gpt(disk: VirtualDisk, lba: int) -> DiskLayout:
    header = _header(disk, lba)
    table = disk.read_at(
        header.entries_lba * disk.sector_bytes, header.entry_count * header.entry_bytes
    )
    if zlib.crc32(table) != header.entries_crc:
        found, needed = f"{zlib.crc32(table):#010x}", f"{header.entries_crc:#010x}"
        _bad(disk, "CRC-32 of the GPT entries", header.entries_lba, found, needed)
    partitions = []
    for index in range(header.entry_count):
        kind, own, first, last, _, name = _ENTRY.unpack_from(table, index * header.entry_bytes)
        if not any(kind):
            continue
        if not header.first_usable <= first <= last <= header.last_usable:
            needed = f"inside {header.first_usable}..{header.last_usable}"
            _bad(disk, f"GPT entry {index + 1}", header.entries_lba, f"{first}..{last}", needed)
        partitions.append(
            Partition(
                number=index + 1,
                first_byte=first * disk.sector_bytes,
                length_bytes=(last - first + 1) * disk.sector_bytes,
                type_guid=_guid(kind),
                guid=_guid(own),
                name=name.decode("utf-16-le", "replace").split("\0")[0],
            )
        )
    ordered = sorted(partitions, key=lambda one: one.first_byte)
    for one, other in pairwise(ordered):
        if one.end_byte > other.first_byte:
            found = f"partitions {one.number} and {other.number} over each other"
            _bad(disk, "GPT", header.entries_lba, found, "each in its own place")
    return DiskLayout(str(header.disk_guid).upper(), "gpt", tuple(partitions))


def _header(disk: VirtualDisk, lba: int) -> _Header:
    data = disk.read_at(lba * disk.sector_bytes, disk.sector_bytes)
    fields = _HEADER.unpack_from(data)
    signature, revision, size, crc, _, own_lba, _, first, last, guid, entries, *rest = fields
    count, entry_bytes, entries_crc = rest
    if signature != _SIGNATURE or revision != _REVISION:
        _bad(disk, "GPT header", lba, data[:12].hex(" "), f"{_SIGNATURE!r}, revision 1.0")
    if not _HEADER.size <= size <= disk.sector_bytes:
        _bad(disk, "GPT header size", lba, size, f"{_HEADER.size}..{disk.sector_bytes}")
    actual = zlib.crc32(data[:16] + bytes(4) + data[20:size])
    if actual != crc:
        _bad(disk, "CRC-32 of the GPT header", lba, f"{actual:#010x}", f"{crc:#010x}")
    if own_lba != lba:
        _bad(disk, "GPT header's own place", lba, own_lba, lba)
    last_lba = disk.size_bytes // disk.sector_bytes - 1
    if not 2 <= first <= last <= last_lba:
        _bad(disk, "GPT usable range", lba, f"{first}..{last}", f"inside 2..{last_lba}")
    power_of_two = entry_bytes & (entry_bytes - 1) == 0
    if not (_ENTRY.size <= entry_bytes <= _MAX_ENTRY_BYTES and power_of_two):
        needed = f"a power of two from {_ENTRY.size} to {_MAX_ENTRY_BYTES}"
        _bad(disk, "GPT entry size", lba, entry_bytes, needed)
    if not 0 < count <= _MAX_ENTRIES:
        _bad(disk, "GPT entry count", lba, count, f"1..{_MAX_ENTRIES}")
    entries_end = entries + -(-count * entry_bytes // disk.sector_bytes)
    if entries < 2 or entries_end > last_lba + 1 or (entries <= last and first < entries_end):
        _bad(disk, "place of the GPT entries", lba, entries, "outside the usable range")
    return _Header(
        own_lba, first, last, uuid.UUID(bytes_le=guid), entries, count, entry_bytes, entries_crc
    )


def _guid(data: bytes) -> str:
    return str(uuid.UUID(bytes_le=data)).upper()


def _bad(disk: VirtualDisk, what: str, lba: int, found: object, needed: object) -> NoReturn:
    raise BadDisk(
        f"Bad partition table of '{disk.location}': {what} at sector {lba}: "
        f"found {found}, needed {needed}.",
        hint="Check the disk on the machine that it comes from (for example with sgdisk -v).",
        object=disk.location,
        offset_bytes=lba * disk.sector_bytes,
    )
