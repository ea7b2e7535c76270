"""Reads MBR partition tables, with the chain of logical partitions."""

# References: UEFI 2.10 5.2.1 "Legacy MBR".

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn

from imageport.errors import BadDisk
from imageport.formats.virtual_disk import VirtualDisk

_ENTRY = struct.Struct("<B3sB3sII")
_EXTENDED = frozenset({0x05, 0x0F, 0x85})
_MAX_LOGICAL = 128
_BARE_VOLUMES = (b"NTFS    ", b"MSDOS5.0", b"EXFAT   ", b"mkfs.fat")


@dataclass(frozen=True, slots=True)
class MbrPartition:
    """One entry; ``kind`` is the type byte. Logical partitions count from 5."""

    number: int
    kind: int
    first_byte: int
    length_bytes: int


def read_mbr_partitions(disk: VirtualDisk, head: bytes) -> list[MbrPartition]:
    """Return the partitions of the MBR in ``head``; none when it is no partition table.

    Raises:
        BadDisk: Partitions outside the disk or over each other, a chain without an end.
    """
    if head[510:512] != b"\x55\xaa" or head[3:11] in _BARE_VOLUMES:
        return []
    entries = _entries(head)
    if any(status & 0x7F for status, *_ in entries):
        return []  # a bare volume's boot sector: code lies where a table would
    found: list[MbrPartition] = []
    for number, (_, kind, first, count) in enumerate(entries, start=1):
        if not kind or not count:
            continue
        one = _partition(disk, number, kind, first, count)
        if kind in _EXTENDED:
            found += _logical(disk, first, count)
        else:
            found.append(one)
    _check_overlaps(disk, found)
    return found


def _entries(sector: bytes) -> list[tuple[int, int, int, int]]:
    """Return (status, type, first sector, sectors) of the four entries."""
    unpacked = [_ENTRY.unpack_from(sector, 446 + 16 * at) for at in range(4)]
    return [(status, kind, first, count) for status, _, kind, _, first, count in unpacked]


def _logical(disk: VirtualDisk, start: int, count: int) -> list[MbrPartition]:
    found: list[MbrPartition] = []
    at = start
    number = 5
    while True:
        if number == 5 + _MAX_LOGICAL:
            _bad(disk, start, "a chain without an end", f"at most {_MAX_LOGICAL} partitions")
        sector = disk.read_at(at * disk.sector_bytes, disk.sector_bytes)
        if sector[510:512] != b"\x55\xaa":
            _bad(disk, at, "no signature 55 aa", "an extended boot record")
        (_, kind, first, length), (_, next_kind, next_first, _), *_ = _entries(sector)
        if kind and length:
            found.append(_partition(disk, number, kind, at + first, length))
        if next_kind not in _EXTENDED or not next_first:
            return found
        if next_first >= count:
            _bad(disk, at, f"a link to sector {start + next_first}", "one inside the partition")
        at = start + next_first
        number += 1


def _partition(disk: VirtualDisk, number: int, kind: int, first: int, count: int) -> MbrPartition:
    sectors = disk.size_bytes // disk.sector_bytes
    if not first or first + count > sectors:
        found = f"partition {number} at {first}..{first + count}"
        _bad(disk, 0, found, f"inside 1..{sectors}")
    return MbrPartition(number, kind, first * disk.sector_bytes, count * disk.sector_bytes)


def _check_overlaps(disk: VirtualDisk, found: list[MbrPartition]) -> None:
    ordered = sorted(found, key=lambda one: one.first_byte)
    for one, other in pairwise(ordered):
        if one.first_byte + one.length_bytes > other.first_byte:
            numbers = f"partitions {one.number} and {other.number} over each other"
            _bad(disk, 0, numbers, "each in its own place")


def _bad(disk: VirtualDisk, sector: int, found: str, needed: str) -> NoReturn:
    raise BadDisk(
        f"Bad partition table of '{disk.location}': MBR at sector {sector}: "
        f"found {found}, needed {needed}.",
        object=disk.location,
        offset_bytes=sector * disk.sector_bytes,
    )
