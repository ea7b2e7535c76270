# References: the regf format: base block (signature, sequence numbers, XOR checksum).
"""The base block of a hive or of its transaction log: whether the file is whole, and its measures.

hivex silently makes a dirty hive look clean on commit, so whoever writes checks `HiveHeader` first.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

HEADER_BYTES = 512
"""What the checksum covers, and what a log holds of a base block."""
BASE_BLOCK_BYTES = 4096
"""The whole block; hive bins follow."""
MAX_HIVE_BYTES = 1024 * 1024 * 1024
"""Real SOFTWARE hives reach 200 MiB; what is larger is not one we should load."""
PRIMARY, OLD_LOG, NEW_LOG = 0, 1, 6
"""File types: a hive, a log of Windows 8 and before, one of Windows 8.1 and later."""
_SEQUENCES_AT, _TYPE_AT, _BINS_AT, _CHECKSUM_AT = 4, 28, 40, 508


@dataclass(frozen=True, slots=True)
class HiveHeader:
    """What the base block tells; ``problem`` is "" for a whole one, dirty or not.

    ``written`` is a FILETIME, ``root`` an offset from the first hive bin, ``sector_bytes`` the unit
    that the writer's disk had.
    """

    sequence1: int
    sequence2: int
    problem: str
    written: int = 0
    minor: int = 0
    file_type: int = 0
    root: int = 0
    bins_bytes: int = 0
    sector_bytes: int = HEADER_BYTES

    @property
    def is_dirty(self) -> bool:
        """Say whether changes still lie in the transaction logs."""
        return self.sequence1 != self.sequence2

    @property
    def sequences(self) -> str:
        """Return both numbers for people, like ``4317/4316``."""
        return f"{self.sequence1}/{self.sequence2}"

    @classmethod
    def parse(cls, block: bytes) -> HiveHeader:
        """Read the first 512 bytes of a hive or log; anything at all may be handed in."""
        if len(block) < HEADER_BYTES:
            return cls(0, 0, f"found {len(block)} bytes, needed {HEADER_BYTES} at least")
        if block[:4] != b"regf":
            return cls(0, 0, f"found signature {block[:4].hex()}, needed 'regf' at offset 0")
        sequence1, sequence2, written = struct.unpack_from("<IIQ", block, _SEQUENCES_AT)
        minor, kind, _, root, bins, cluster = struct.unpack_from("<IIIIII", block, 24)
        (found,) = struct.unpack_from("<I", block, _CHECKSUM_AT)
        needed = _checksum(block)
        problem = ""
        if found != needed:
            problem = f"found checksum {found:#010x} at offset 508, needed {needed:#010x}"
        sector = HEADER_BYTES * min(max(cluster, 1), BASE_BLOCK_BYTES // HEADER_BYTES)
        return cls(sequence1, sequence2, problem, written, minor, kind, root, bins, sector)


def sealed(block: bytes, *, sequence: int, bins_bytes: int) -> bytes:
    """Return the first 512 bytes of a base block as those of a clean hive of that length."""
    new = bytearray(block[:HEADER_BYTES])
    struct.pack_into("<II", new, _SEQUENCES_AT, sequence, sequence)
    struct.pack_into("<I", new, _TYPE_AT, PRIMARY)
    struct.pack_into("<I", new, _BINS_AT, bins_bytes)
    struct.pack_into("<I", new, _CHECKSUM_AT, _checksum(new))
    return bytes(new)


def _checksum(block: bytes | bytearray) -> int:
    value = 0
    for (word,) in struct.iter_unpack("<I", block[:_CHECKSUM_AT]):
        value ^= word
    return {0: 1, 0xFFFFFFFF: 0xFFFFFFFE}.get(value, value)
