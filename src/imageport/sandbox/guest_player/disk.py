"""The disk as the firmware hands it over: its GPT, files of the EFI partition, the Windows volume.

Reference: UEFI 2.10, 5.3 GUID Partition Table. The Windows partition is worked on as a sparse copy
beside the disk, since loop devices are not everywhere; what changed is written back.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from imageport.sandbox.guest_player.programs import PlayerError, run

ESP_TYPE = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
DATA_TYPE = UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")
_SECTOR = 512
_CHUNK_BYTES = 1024 * 1024
_COMPARED_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Partition:
    """One entry of the table; ``first`` and ``length`` in bytes."""

    kind: UUID
    guid: UUID
    first: int
    length: int


@dataclass(frozen=True, slots=True)
class Table:
    """The disk's identity and partitions."""

    disk_guid: UUID
    partitions: tuple[Partition, ...]

    def esp(self) -> Partition | None:
        """Return the EFI system partition."""
        return next((part for part in self.partitions if part.kind == ESP_TYPE), None)


def read_table(disk: Path) -> Table | None:
    """Return the GPT, None when the disk has none."""
    with disk.open("rb") as file:
        header = os.pread(file.fileno(), 92, _SECTOR)
        if header[:8] != b"EFI PART":
            return None
        first_entry, count, size = struct.unpack_from("<QII", header, 72)
        if not (128 <= size <= 4096 and count <= 1024):
            return None
        entries = os.pread(file.fileno(), count * size, first_entry * _SECTOR)
    parts = []
    for at in range(0, len(entries) - size + 1, size):
        kind, guid = (UUID(bytes_le=entries[at + n : at + n + 16]) for n in (0, 16))
        first, last = struct.unpack_from("<QQ", entries, at + 32)
        if kind.int:
            parts.append(Partition(kind, guid, first * _SECTOR, (last - first + 1) * _SECTOR))
    return Table(UUID(bytes_le=header[56:72]), tuple(parts))


def read_esp_file(disk: Path, esp: Partition, path: str, target: Path) -> bool:
    """Copy a file of the EFI partition out; False when there is none."""
    try:
        run("mcopy", "-n", "-i", f"{disk}@@{esp.first}", f"::/{path}", target)
    except PlayerError:
        return False
    return True


def write_esp_file(disk: Path, esp: Partition, path: str, source: Path) -> None:
    """Put new content into a file of the EFI partition."""
    run("mcopy", "-o", "-i", f"{disk}@@{esp.first}", source, f"::/{path}")


def extract(disk: Path, part: Partition, target: Path) -> None:
    """Copy one partition into a sparse file."""
    with disk.open("rb") as reader, target.open("wb") as writer:
        writer.truncate(part.length)
        for at, length in _data_ranges(reader.fileno(), part.first, part.first + part.length):
            position, rest = at, length
            while rest:
                copied = os.copy_file_range(
                    reader.fileno(), writer.fileno(), rest, position, position - part.first
                )
                if copied == 0:
                    raise PlayerError(f"Cannot copy '{disk}': it ends at {position} bytes.")
                position, rest = position + copied, rest - copied


def write_back(volume: Path, disk: Path, part: Partition) -> int:
    """Write every changed 4 KiB of the copy into the disk; returns how many bytes changed."""
    changed = 0
    with volume.open("rb") as reader, disk.open("r+b") as writer:
        for at, length in _data_ranges(reader.fileno(), 0, part.length):
            for start in range(at, at + length, _CHUNK_BYTES):
                size = min(_CHUNK_BYTES, at + length - start)
                new = os.pread(reader.fileno(), size, start)
                old = os.pread(writer.fileno(), size, part.first + start)
                if new != old:
                    changed += _write_changed(writer.fileno(), part.first + start, old, new)
        os.fsync(writer.fileno())
    return changed


def _write_changed(target: int, offset: int, old: bytes, new: bytes) -> int:
    changed = 0
    for at in range(0, len(new), _COMPARED_BYTES):
        piece = new[at : at + _COMPARED_BYTES]
        if piece != old[at : at + _COMPARED_BYTES]:
            os.pwrite(target, piece, offset + at)
            changed += len(piece)
    return changed


def _data_ranges(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    at = start
    while at < end:
        try:
            at = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole is left
            return
        if at >= end:
            return
        stop = min(os.lseek(descriptor, at, os.SEEK_HOLE), end)
        yield at, stop - at
        at = stop
