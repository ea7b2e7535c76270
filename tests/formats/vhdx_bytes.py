"""Small VHDX files as bytes, and the means to damage them in one place and mend the checksums.

Recipe of `small_vhdx`: our writer, 5 MiB + 3 sectors in 1 MiB blocks; random bytes at 0 (100 KiB),
across the border of blocks 1 and 2, and in the last sector. Offsets below are those of our writer.
"""

from __future__ import annotations

import random
import struct
import uuid

from imageport.formats._crc32c import crc32c
from imageport.formats.vhdx_writer import VhdxWriter
from imageport.storage.memory import MemoryFolder

MIB = 1024 * 1024
KIB = 1024
SIZE = 5 * MIB + 3 * 512
HEADERS = (64 * KIB, 128 * KIB)
REGION_TABLES = (192 * KIB, 256 * KIB)
METADATA = 2 * MIB
BAT = 3 * MIB
PARAMETERS, DISK_SIZE, DISK_ID, LOGICAL, PHYSICAL = (
    METADATA + 64 * KIB + at for at in (0, 8, 16, 32, 36)
)
WRITES = {
    0: random.Random(1).randbytes(100 * KIB),  # noqa: S311
    2 * MIB - 700: random.Random(2).randbytes(1400),  # noqa: S311
    SIZE - 512: random.Random(3).randbytes(512),  # noqa: S311
}


def small_vhdx(*, block_bytes: int = MIB, size_bytes: int = SIZE) -> bytes:
    """Return the file."""
    store = MemoryFolder()
    with store.create("x") as file:
        writer = VhdxWriter(file, size_bytes, block_bytes=block_bytes)
        for offset, data in WRITES.items():
            writer.write_at(offset, data)
        writer.finish()
    return store.read_bytes("x", 1 << 30)


def expected() -> bytes:
    """Return what the guest reads from `small_vhdx`."""
    disk = bytearray(SIZE)
    for offset, data in WRITES.items():
        disk[offset : offset + len(data)] = data
    return bytes(disk)


def put(content: bytes, offset: int, code: str, *values: object) -> bytes:
    """Return ``content`` with a packed value at ``offset``."""
    data = bytearray(content)
    struct.pack_into(code, data, offset, *values)
    return bytes(data)


def sealed(content: bytes, offset: int, length: int) -> bytes:
    """Return ``content`` with the CRC-32C of the structure at ``offset`` made right."""
    structure = content[offset : offset + 4] + bytes(4) + content[offset + 8 : offset + length]
    return put(content, offset + 4, "<I", crc32c(structure))


def in_headers(content: bytes, at: int, code: str, *values: object) -> bytes:
    """Change a field of both headers, with right checksums."""
    for header in HEADERS:
        content = sealed(put(content, header + at, code, *values), header, 4 * KIB)
    return content


def in_region_tables(content: bytes, at: int, code: str, *values: object) -> bytes:
    """Change a field of both region tables, with right checksums."""
    for table in REGION_TABLES:
        content = sealed(put(content, table + at, code, *values), table, 64 * KIB)
    return content


def with_bat_entry(content: bytes, index: int, state: int, offset: int = 0) -> bytes:
    """Change one BAT entry."""
    return put(content, BAT + 8 * index, "<Q", offset | state)


def bat_entry(content: bytes, index: int) -> tuple[int, int]:
    """Return (state, offset) of one BAT entry."""
    (entry,) = struct.unpack_from("<Q", content, BAT + 8 * index)
    return entry & 7, entry & ~0xFFFFF


def guid_bytes(text: str) -> bytes:
    """Return a GUID as it lies in the file."""
    return uuid.UUID(text).bytes_le
