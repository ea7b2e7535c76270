# References: NTFS boot sector; $Volume ($MFT record 3), attribute $VOLUME_INFORMATION (0x70).
"""What a volume's first bytes tell before anything mounts it: NTFS and its dirty flag."""

from __future__ import annotations

import struct
from collections.abc import Callable

from imageport.errors import BadDisk

ReadAt = Callable[[int, int], bytes]
"""Reads (offset, length) of the volume."""

_VOLUME_INFORMATION = 0x70
_END_OF_ATTRIBUTES = 0xFFFFFFFF
_DIRTY = 0x0001
_VOLUME_RECORD = 3
_FIXUP_SECTOR_BYTES = 512


def is_ntfs(boot_sector: bytes) -> bool:
    """Say whether the volume is NTFS."""
    return boot_sector[3:11] == b"NTFS    " and boot_sector[510:512] == b"\x55\xaa"


def is_marked_dirty(boot_sector: bytes, read_at: ReadAt) -> bool:
    """Say whether NTFS' own dirty flag is set; an unreadable $Volume counts as dirty."""
    places = _volume_records(boot_sector)
    if not places:
        return True
    record = read_at(*places[0])
    flags_at = _flags_place(_without_fixups(record))
    return flags_at is None or bool(_flags(record, flags_at) & _DIRTY)


def cleared_dirty_flags(boot_sector: bytes, read_at: ReadAt) -> list[tuple[int, bytes]]:
    """Return the writes (offset, bytes) that clear the dirty flag, in $MFT and its mirror.

    Raises:
        BadDisk: $Volume cannot be read.
    """
    writes = []
    for place, length in _volume_records(boot_sector):
        record = read_at(place, length)
        flags_at = _flags_place(_without_fixups(record))
        if flags_at is None:
            raise BadDisk("Bad NTFS $Volume: found no volume information, needed its flags.")
        flags = _flags(record, flags_at) & ~_DIRTY
        writes.append((place + flags_at, struct.pack("<H", flags)))
    if not writes:
        raise BadDisk("Bad NTFS boot sector: found no sensible sizes, needed those of a volume.")
    return writes


def _volume_records(boot_sector: bytes) -> list[tuple[int, int]]:
    """Return (offset, length) of $Volume in $MFT and in its mirror; none for senseless sizes."""
    sector_bytes, sectors_per_cluster = struct.unpack_from("<HB", boot_sector, 11)
    if sectors_per_cluster > 0x80:  # from 64 KiB up it is a negative power of two
        sectors_per_cluster = 1 << (256 - sectors_per_cluster)
    mft_clusters = struct.unpack_from("<QQ", boot_sector, 48)
    (clusters_per_record,) = struct.unpack_from("<b", boot_sector, 64)
    cluster_bytes = sector_bytes * sectors_per_cluster
    if clusters_per_record > 0:
        record_bytes = clusters_per_record * cluster_bytes
    else:
        record_bytes = 1 << -clusters_per_record
    if not (512 <= record_bytes <= 65536 and 0 < cluster_bytes <= 2 * 1024 * 1024):
        return []
    return [
        (cluster * cluster_bytes + _VOLUME_RECORD * record_bytes, record_bytes)
        for cluster in mft_clusters
    ]


def _without_fixups(record: bytes) -> bytes:
    """Put back the two bytes that NTFS keeps aside at the end of every sector."""
    if len(record) < 48 or record[:4] != b"FILE":
        return b""
    array_at, count = struct.unpack_from("<HH", record, 4)
    whole = bytearray(record)
    if array_at + 2 * count > len(record) or (count - 1) * _FIXUP_SECTOR_BYTES > len(record):
        return b""
    for number in range(1, count):
        end = number * _FIXUP_SECTOR_BYTES
        whole[end - 2 : end] = record[array_at + 2 * number : array_at + 2 * number + 2]
    return bytes(whole)


def _flags(record: bytes, flags_at: int) -> int:
    return int(struct.unpack_from("<H", record, flags_at)[0])


def _flags_place(record: bytes) -> int | None:
    """Return where in the record the volume's flags lie."""
    if not record:
        return None
    (at,) = struct.unpack_from("<H", record, 20)
    while at + 24 <= len(record):
        kind, length = struct.unpack_from("<II", record, at)
        if kind == _END_OF_ATTRIBUTES or length < 24:
            return None
        if kind == _VOLUME_INFORMATION:
            (value_at,) = struct.unpack_from("<H", record, at + 20)
            flags_at = at + value_at + 10
            # Never in the two bytes that NTFS keeps aside, the last ones of a sector.
            is_whole = flags_at % _FIXUP_SECTOR_BYTES < _FIXUP_SECTOR_BYTES - 3
            return flags_at if flags_at + 2 <= len(record) and is_whole else None
        at += length
    return None
