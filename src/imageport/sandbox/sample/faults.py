"""What makes an image one that must be refused: each fault as the real thing leaves it.

References: regf base block (sequence numbers at 4 and 8); NTFS $Volume, attribute
$VOLUME_INFORMATION (flag 1: check at next mount); BitLocker volume header of Windows 7 and later.
"""

from __future__ import annotations

import random
import struct
from pathlib import Path
from uuid import UUID

from imageport.errors import BadDisk
from imageport.sandbox.sample.hive_logs import (
    PAGE,
    changed_pages,
    log_entry,
    new_log,
    with_sequences,
)
from imageport.sandbox.sample.hives import base_block_checksum, merge_text
from imageport.sandbox.sample.recipe import MIB

_VOLUME_RECORD = 3
_VOLUME_INFORMATION = 0x70
_END_OF_ATTRIBUTES = 0xFFFFFFFF
_FLAGS_IN_VALUE = 10
_BITLOCKER_GUID = UUID("4967d63b-2e29-4ad8-8399-f6a339e3d001")
_BITLOCKER_METADATA_AT = (64 * MIB, 128 * MIB, 192 * MIB)


def hibernation_file() -> bytes:
    """Return a hibernation file whose first page says that a session waits to be resumed."""
    page = b"HIBR".ljust(4096, b"\x5a")
    return page.ljust(MIB, b"\0")


def leave_hive_dirty(hive: Path) -> None:
    """Make the hive one whose last write did not finish: sequence numbers differ, no log beside."""
    data = bytearray(hive.read_bytes())
    first, second = struct.unpack_from("<II", data, 4)
    struct.pack_into("<II", data, 4, max(first, second) + 1, second)
    struct.pack_into("<I", data, 508, base_block_checksum(bytes(data[:512])))
    hive.write_bytes(data)


def leave_hive_behind(hive: Path, change: str) -> None:
    """Leave a hive as a power cut does: what ``change``, a registry text, says is in its log only.

    Two entries in ``.LOG1`` and ``.LOG2``, the hive's own bins untouched.
    """
    before = hive.read_bytes()
    merge_text(hive, change)
    after = hive.read_bytes()
    first = struct.unpack_from("<I", before, 4)[0] + 1
    pages = list(changed_pages(before, after))
    half = -(-len(pages) // 2)
    for suffix, sequence, part in (
        (".LOG1", first, pages[:half]),
        (".LOG2", first + 1, pages[half:]),
    ):
        entry = log_entry(sequence, len(after) - PAGE, part)
        log = new_log([entry], sequence=sequence, like=after)
        hive.with_name(hive.name + suffix).write_bytes(log)
    hive.write_bytes(with_sequences(before, first, first - 1))


def set_dirty_flag(volume: Path, *, dirty: bool) -> None:
    """Set or clear the volume's dirty flag, in the file table and in its mirror."""
    with volume.open("r+b") as file:
        boot = file.read(512)
        cluster = struct.unpack_from("<H", boot, 11)[0] * boot[13]
        size = struct.unpack_from("<b", boot, 0x40)[0]
        record_bytes = 1 << -size if size < 0 else size * cluster
        for field in (0x30, 0x38):  # first cluster of $MFT and of $MFTMirr
            table = struct.unpack_from("<Q", boot, field)[0] * cluster
            at = table + _VOLUME_RECORD * record_bytes
            file.seek(at)
            flags_at = at + _flags_offset(file.read(record_bytes))
            file.seek(flags_at)
            flags = struct.unpack("<H", file.read(2))[0]
            file.seek(flags_at)
            file.write(struct.pack("<H", flags | 1 if dirty else flags & ~1))


def _flags_offset(record: bytes) -> int:
    at = struct.unpack_from("<H", record, 0x14)[0]
    while at + 24 <= len(record):
        kind, length = struct.unpack_from("<II", record, at)
        if kind == _VOLUME_INFORMATION:
            return int(at + struct.unpack_from("<H", record, at + 0x14)[0] + _FLAGS_IN_VALUE)
        if kind == _END_OF_ATTRIBUTES or length == 0:
            break
        at += length
    raise BadDisk("Bad $Volume record: found no $VOLUME_INFORMATION, needed one.")


def encrypt_as_bitlocker(volume: Path) -> None:
    """Replace the volume by what a BitLocker volume shows without its key.

    A header, three metadata blocks, and the rest unreadable; blkid and libguestfs see "BitLocker".
    """
    noise = random.Random(7).randbytes(4 * MIB)  # noqa: S311 - ciphertext of nothing
    header = bytearray(b"\xeb\x58\x90-FVE-FS-".ljust(512, b"\0"))
    struct.pack_into("<HB", header, 11, 512, 8)
    header[160:176] = _BITLOCKER_GUID.bytes_le
    struct.pack_into("<QQQ", header, 176, *_BITLOCKER_METADATA_AT)
    header[510:] = b"\x55\xaa"
    size = volume.stat().st_size
    with volume.open("wb") as file:
        file.truncate(size)
        file.write(header)
        file.seek(MIB)
        file.write(noise)
        for at in _BITLOCKER_METADATA_AT:
            file.seek(at)
            # signature, size, version 2, current and next state 4 (encrypted)
            file.write(b"-FVE-FS-" + struct.pack("<HHHH", 0x100, 2, 4, 4).ljust(64, b"\0"))
