# References: UEFI 2.10 §5 (GPT); Microsoft: GPT partition types of the Logical Disk Manager.
"""The partition table as the engine must judge it: identity, ESP, and what it refuses to touch.

The first 34 sectors come in one read, so that deciding costs no further call into the appliance.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from uuid import UUID

from imageport.errors import BadDisk

SECTOR_BYTES = 512
HEAD_BYTES = 64 * SECTOR_BYTES
"""Enough for the protective MBR, the header and 128 entries of 128 bytes."""

ESP_TYPE = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
BASIC_DATA_TYPE = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"
RECOVERY_TYPE = "de94bba4-06d1-4d40-a16a-bfd50179d6ac"
LDM_TYPES = {"5808c8aa-7e8f-42e0-85d2-e1e90434cfb3", "af9b60a0-1431-4f62-bc68-3311714a69ad"}
_LDM_MBR_TYPE = 0x42
_NTFS_MBR_TYPES = {0x07, 0x27}
_EXTENDED_MBR_TYPES = {0x05, 0x0F, 0x85}
_GPT_PROTECTIVE = 0xEE
_MBR_SIGNATURE_AT, _MBR_ACTIVE = 0x1B8, 0x80
_MAX_ENTRIES = 256


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition; ``number`` counts from 1 as the kernel names it."""

    number: int
    type_id: str
    """Lower-case GUID, or ``0x07`` for MBR."""
    guid: str
    name: str
    first_byte: int
    length_bytes: int
    is_active: bool = False
    """MBR only: what BIOS starts from."""
    attributes: int = 0
    """GPT only, 64 bits."""

    @property
    def end_byte(self) -> int:
        """Return the offset behind the partition."""
        return self.first_byte + self.length_bytes

    @property
    def is_extended(self) -> bool:
        """Say whether this is MBR's container of logical partitions."""
        return self.type_id in {f"{kind:#04x}" for kind in _EXTENDED_MBR_TYPES}

    @property
    def may_hold_ntfs(self) -> bool:
        """Say whether Windows itself may lie here."""
        return self.type_id in {BASIC_DATA_TYPE, *(f"{kind:#04x}" for kind in _NTFS_MBR_TYPES)}


@dataclass(frozen=True, slots=True)
class PartitionTable:
    """``scheme`` is ``gpt``, ``mbr`` or ``none``."""

    scheme: str
    disk_guid: str
    """Lower-case GUID of a GPT disk; ``mbr:`` and the signature's eight digits of an MBR disk."""
    partitions: tuple[Partition, ...]

    @property
    def is_dynamic(self) -> bool:
        """Say whether the Logical Disk Manager owns the disk."""
        ldm = LDM_TYPES | {f"{_LDM_MBR_TYPE:#04x}"}
        return any(partition.type_id in ldm for partition in self.partitions)

    @property
    def firmware(self) -> str:
        """Return what starts the disk: ``uefi``, or ``bios`` without an EFI system partition."""
        return "uefi" if self.scheme == "gpt" and self.esp else "bios"

    @property
    def boot_partition(self) -> Partition | None:
        """Return what firmware starts from: the EFI system partition, or MBR's active one."""
        if self.scheme == "gpt":
            return self.esp
        return next((p for p in self.partitions if p.is_active), None)

    @property
    def esp(self) -> Partition | None:
        """Return the EFI system partition."""
        return next((p for p in self.partitions if p.type_id == ESP_TYPE), None)


def parse_partition_table(head: bytes, disk_bytes: int) -> PartitionTable:
    """Read the table from the disk's first `HEAD_BYTES`.

    Raises:
        BadDisk: the header's or the entries' checksum or bounds are wrong.
    """
    if len(head) < 2 * SECTOR_BYTES or head[510:512] != b"\x55\xaa":
        return PartitionTable("none", "", ())
    kinds = [head[446 + 16 * at + 4] for at in range(4)]
    if _GPT_PROTECTIVE not in kinds:
        (signature,) = struct.unpack_from("<I", head, _MBR_SIGNATURE_AT)
        return PartitionTable("mbr", f"mbr:{signature:08x}", tuple(_mbr_partitions(head)))
    return _gpt(head, disk_bytes)


def _mbr_partitions(head: bytes) -> list[Partition]:
    found = []
    for at in range(4):
        kind = head[446 + 16 * at + 4]
        first, count = struct.unpack_from("<II", head, 446 + 16 * at + 8)
        if kind and count:
            type_id = f"{kind:#04x}"
            start, length = first * SECTOR_BYTES, count * SECTOR_BYTES
            is_active = head[446 + 16 * at] == _MBR_ACTIVE
            found.append(Partition(at + 1, type_id, "", "", start, length, is_active))
    return found


def _gpt(head: bytes, disk_bytes: int) -> PartitionTable:
    header = head[SECTOR_BYTES : 2 * SECTOR_BYTES]
    if header[:8] != b"EFI PART":
        raise BadDisk(f"Bad GPT header: found {header[:8].hex()}, needed 'EFI PART' at sector 1.")
    size, checksum = struct.unpack_from("<II", header, 12)
    if not 92 <= size <= SECTOR_BYTES:
        raise BadDisk(f"Bad GPT header size: found {size}, needed 92 to 512 bytes.")
    body = header[:16] + bytes(4) + header[20:size]
    if zlib.crc32(body) != checksum:
        raise BadDisk(f"Bad GPT header checksum: found {checksum:#x}, needed {zlib.crc32(body):#x}")
    entries_at, count, entry_bytes, entries_checksum = struct.unpack_from("<QIII", header, 72)
    start, end = entries_at * SECTOR_BYTES, entries_at * SECTOR_BYTES + count * entry_bytes
    if count > _MAX_ENTRIES or entry_bytes < 128 or end > len(head):
        raise BadDisk(
            f"Bad GPT: found {count} entries of {entry_bytes} bytes at sector {entries_at}, "
            f"needed them within the first {len(head) // SECTOR_BYTES} sectors."
        )
    entries = head[start:end]
    if zlib.crc32(entries) != entries_checksum:
        raise BadDisk(f"Bad GPT entries checksum: found {entries_checksum:#x}, needed another.")
    partitions = [
        _gpt_partition(number + 1, entries[number * entry_bytes :][:128], disk_bytes)
        for number in range(count)
        if any(entries[number * entry_bytes :][:16])
    ]
    disk_guid = str(UUID(bytes_le=header[56:72]))
    return PartitionTable("gpt", disk_guid, tuple(partitions))


def _gpt_partition(number: int, entry: bytes, disk_bytes: int) -> Partition:
    first, last, attributes = struct.unpack_from("<QQQ", entry, 32)
    if first > last or (last + 1) * SECTOR_BYTES > disk_bytes:
        raise BadDisk(
            f"Bad GPT partition {number}: found sectors {first} to {last}, "
            f"needed them within {disk_bytes} bytes."
        )
    return Partition(
        number,
        str(UUID(bytes_le=entry[:16])),
        str(UUID(bytes_le=entry[16:32])),
        entry[56:128].decode("utf-16-le", "replace").rstrip("\0"),
        first * SECTOR_BYTES,
        (last - first + 1) * SECTOR_BYTES,
        attributes=attributes,
    )
