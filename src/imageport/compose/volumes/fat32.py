# References: Microsoft "FAT32 File System Specification" 1.03 (boot sector, FSInfo, table of
# cluster sizes, computation of the FAT's size); UEFI 2.10 §13.3.1.1 (EFI partitions are FAT32).
"""An empty FAT32 file system as the bytes to write.

The appliance's ``mkfs`` chooses FAT16 at the size of an EFI system partition, and what it writes
depends on the time. These bytes depend on nothing but their arguments.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from imageport.compose.volumes.gpt_writer import DiskWrite
from imageport.compose.volumes.partition_table import SECTOR_BYTES
from imageport.errors import BadDisk

_RESERVED_SECTORS, _FATS = 32, 2
_INFO_SECTOR, _BACKUP_SECTOR = 1, 6
_ROOT_CLUSTER = 2
_MIN_CLUSTERS = 65525
"""With fewer it would be FAT16, whatever it says."""
_MAX_SECTORS = 0xFFFFFFFF
"""The boot sector counts them in 32 bits."""
_CLUSTER_SECTORS = ((532_480, 1), (16_777_216, 8), (33_554_432, 16), (67_108_864, 32))
"""(largest volume, sectors of a cluster), both in sectors of 512 bytes."""
_MEDIA_FIXED = 0xF8
_VOLUME_LABEL = 0x08
_PIECE_BYTES = 1024 * 1024
"""A message to the appliance holds less than 4 MiB."""


def fat32_writes(size_bytes: int, first_sector: int, serial: int, label: str) -> list[DiskWrite]:
    """Return the writes, relative to the volume, that make it an empty FAT32.

    Args:
        size_bytes: of the volume.
        first_sector: where the volume begins on its disk.
        serial: 32 bits that identify the volume.
        label: its name, at most 11 ASCII letters.

    Raises:
        BadDisk: the volume is too small or too large.
    """
    sectors = size_bytes // SECTOR_BYTES
    if sectors > _MAX_SECTORS:
        raise BadDisk(f"Bad FAT32 volume: found {sectors} sectors, needed {_MAX_SECTORS} at most.")
    cluster_sectors = next((per for most, per in _CLUSTER_SECTORS if sectors <= most), 64)
    fat_sectors = _fat_sectors(sectors, cluster_sectors)
    data_sector = _RESERVED_SECTORS + _FATS * fat_sectors
    clusters = (sectors - data_sector) // cluster_sectors
    if clusters < _MIN_CLUSTERS:
        raise BadDisk(f"Bad FAT32 volume: found {clusters} clusters, needed {_MIN_CLUSTERS}.")
    name = label.upper().encode("ascii")[:11].ljust(11)
    boot = _boot_sector(sectors, cluster_sectors, fat_sectors)
    boot = _with_identity(boot, first_sector, serial, name)
    reserved = bytearray(_RESERVED_SECTORS * SECTOR_BYTES)
    for at in (0, _BACKUP_SECTOR):
        start = at * SECTOR_BYTES
        reserved[start : start + 2 * SECTOR_BYTES] = boot + _info_sector(clusters - 1)
    fat = struct.pack("<III", 0x0FFFFF00 | _MEDIA_FIXED, 0x0FFFFFFF, 0x0FFFFFFF)
    fat = fat.ljust(fat_sectors * SECTOR_BYTES, b"\0")
    root = (name + bytes([_VOLUME_LABEL])).ljust(cluster_sectors * SECTOR_BYTES, b"\0")
    return list(_pieces(bytes(reserved) + fat * _FATS + root))


def _fat_sectors(sectors: int, cluster_sectors: int) -> int:
    """Return the size of one FAT by the specification's own formula, a little too large."""
    per_fat_sector = (256 * cluster_sectors + _FATS) // 2
    return -(-(sectors - _RESERVED_SECTORS) // per_fat_sector)


def _boot_sector(sectors: int, cluster_sectors: int, fat_sectors: int) -> bytes:
    start = b"\xeb\x58\x90IMGPORT " + struct.pack(
        "<HBHBHHBHHH", SECTOR_BYTES, cluster_sectors, _RESERVED_SECTORS, _FATS, 0, 0,
        _MEDIA_FIXED, 0, 63, 255,
    )  # fmt: skip
    start += struct.pack("<II", 0, sectors)
    start += struct.pack("<IHHIHH", fat_sectors, 0, 0, _ROOT_CLUSTER, _INFO_SECTOR, _BACKUP_SECTOR)
    return start.ljust(510, b"\0") + b"\x55\xaa"


def _with_identity(boot: bytes, first_sector: int, serial: int, name: bytes) -> bytes:
    sector = bytearray(boot)
    struct.pack_into("<I", sector, 28, first_sector)
    sector[64:67] = b"\x80\0\x29"  # first fixed disk; the next fields are there
    struct.pack_into("<I", sector, 67, serial)
    sector[71:90] = name + b"FAT32   "
    return bytes(sector)


def _info_sector(free_clusters: int) -> bytes:
    head = struct.pack("<I", 0x41615252).ljust(484, b"\0")
    return head + struct.pack("<III12xI", 0x61417272, free_clusters, _ROOT_CLUSTER + 1, 0xAA550000)


def _pieces(data: bytes) -> Iterator[DiskWrite]:
    for at in range(0, len(data), _PIECE_BYTES):
        yield DiskWrite(at, data[at : at + _PIECE_BYTES])
