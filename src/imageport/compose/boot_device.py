# References: ReactOS boot/environ (device identifiers); layouts as read from real stores: 16
# bytes of options object, then an identifier (type, flags, size, 0; of a partition: its identity,
# kind and style of its disk, the disk's identity).
"""Device elements of a boot store: which disk and partition they name, read and written."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

from imageport.compose.volumes.partition_table import Partition, PartitionTable
from imageport.errors import BadDisk

_OPTIONS_BYTES = 16
_HEADER = struct.Struct("<IIII")
"""Type, flags, size of the whole identifier, 0."""
_PARTITION_BYTES = 72
_BOOT_DEVICE, _PARTITION_DEVICE = 5, 6
_GPT_STYLE, _MBR_STYLE = 0, 1
_LOCAL_DISK = 0
WHERE_IT_STARTED = "boot"
"""The volume that the boot manager itself was started from, whichever that is."""
_MAX_BYTES = 4096
"""A RAM disk's element, the largest in real stores, has 206 bytes and a path."""
_MBR_PREFIX, _OFFSET_PREFIX = "mbr:", "offset:"


class BootPartition(NamedTuple):
    """A partition as a boot store names it."""

    disk: str
    """As `PartitionTable.disk_guid`: a GPT disk's GUID, or ``mbr:`` and a signature's digits."""
    partition: str
    """A GPT partition's GUID, or ``offset:`` and the first byte of an MBR partition."""


def boot_partition(table: PartitionTable, partition: Partition) -> BootPartition:
    """Return what a boot store must say to name this partition."""
    if table.scheme == "gpt":
        return BootPartition(table.disk_guid, partition.guid)
    return BootPartition(table.disk_guid, f"{_OFFSET_PREFIX}{partition.first_byte}")


def read_device(data: bytes) -> BootPartition | str:
    """Return the partition that an element names; ``missing``, ``boot`` or ``type N`` if none.

    ``boot`` is `WHERE_IT_STARTED`.
    """
    if len(data) < _OPTIONS_BYTES + _HEADER.size:
        return "missing"
    kind, _, _, _ = _HEADER.unpack_from(data, _OPTIONS_BYTES)
    if kind == _BOOT_DEVICE:
        return WHERE_IT_STARTED
    if kind != _PARTITION_DEVICE:
        return f"type {kind}"
    return _partition_at(data, _OPTIONS_BYTES) or "a partition of an unknown kind"


def partition_device(where: BootPartition) -> bytes:
    """Return the element's data for a partition, 88 bytes.

    Raises:
        BadDisk: the two names are not of one partition scheme.
    """
    return bytes(_OPTIONS_BYTES) + _identifier(where)


def with_moved_partitions(data: bytes, moves: Mapping[BootPartition, BootPartition]) -> bytes:
    """Return an element in which partitions are named anew, also below a RAM disk's file."""
    moved = bytearray(data)
    for at in range(_OPTIONS_BYTES, min(len(data), _MAX_BYTES) - _PARTITION_BYTES + 1):
        where = _partition_at(data, at)
        if where is not None and where in moves:
            moved[at : at + _PARTITION_BYTES] = _identifier(moves[where])
    return bytes(moved)


def _partition_at(data: bytes, at: int) -> BootPartition | None:
    """Return the partition that an identifier at this offset names, None when there is none."""
    if len(data) < at + _PARTITION_BYTES:
        return None
    kind, flags, size, zero = _HEADER.unpack_from(data, at)
    if (kind, flags, size, zero) != (_PARTITION_DEVICE, 0, _PARTITION_BYTES, 0):
        return None
    identity = data[at + 16 : at + 32]
    disk_kind, style = struct.unpack_from("<II", data, at + 32)
    if disk_kind == _LOCAL_DISK and style == _GPT_STYLE:
        disk = str(UUID(bytes_le=data[at + 40 : at + 56]))
        return BootPartition(disk, str(UUID(bytes_le=identity)))
    if disk_kind == _LOCAL_DISK and style == _MBR_STYLE:
        (offset,) = struct.unpack_from("<Q", identity)
        (signature,) = struct.unpack_from("<I", data, at + 40)
        return BootPartition(f"{_MBR_PREFIX}{signature:08x}", f"{_OFFSET_PREFIX}{offset}")
    return None


def _identifier(where: BootPartition) -> bytes:
    head = _HEADER.pack(_PARTITION_DEVICE, 0, _PARTITION_BYTES, 0)
    try:
        if where.disk.startswith(_MBR_PREFIX):
            offset = int(where.partition.removeprefix(_OFFSET_PREFIX))
            identity = struct.pack("<QQ", offset, 0)
            style, disk = _MBR_STYLE, struct.pack("<I", int(where.disk[len(_MBR_PREFIX) :], 16))
        else:
            identity = UUID(where.partition).bytes_le
            style, disk = _GPT_STYLE, UUID(where.disk).bytes_le
    except (ValueError, struct.error) as error:
        raise BadDisk(f"Bad boot partition: found {tuple(where)}: {error}.") from error
    body = head + identity + struct.pack("<II", _LOCAL_DISK, style) + disk
    return body.ljust(_PARTITION_BYTES, b"\0")
