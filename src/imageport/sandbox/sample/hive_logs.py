"""Transaction logs of hives as Windows writes them, in the old format and in the new one.

References: the regf format (transaction log files); Marvin32 as Microsoft's SymCrypt has it.
Written from the description: our engine, which reads such logs, has no part in it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from imageport.sandbox.sample.hives import base_block_checksum

PAGE = 4096
SECTOR = 512
_OLD_LOG, _NEW_LOG = 1, 6
_ENTRY_HEAD_BYTES = 40
_SEED = (0x7A4E55C5, 0x82EF4D88)
"""Windows' own for log entries, low half first."""
_WORD = 0xFFFFFFFF


def changed_pages(before: bytes, after: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the 4 KiB pages of the bins that differ, by offset from the first bin."""
    for at in range(PAGE, len(after), PAGE):
        if before[at : at + PAGE] != after[at : at + PAGE]:
            yield at - PAGE, after[at : at + PAGE]


def log_entry(sequence: int, bins_bytes: int, pages: Iterable[tuple[int, bytes]]) -> bytes:
    """Return an entry of the new format; ``pages`` are offsets from the first bin, and bytes."""
    written = list(pages)
    body = b"".join(struct.pack("<II", at, len(data)) for at, data in written)
    body += b"".join(data for _, data in written)
    size = -(-(_ENTRY_HEAD_BYTES + len(body)) // SECTOR) * SECTOR
    body = body.ljust(size - _ENTRY_HEAD_BYTES, b"\0")
    head = struct.pack("<4sIIIII", b"HvLE", size, 1, sequence, bins_bytes, len(written))
    head += struct.pack("<Q", _hash(body))
    return head + struct.pack("<Q", _hash(head)) + body


def new_log(entries: Iterable[bytes], *, sequence: int, like: bytes) -> bytes:
    """Return a log of the new format; its base block is a copy of that of the hive ``like``."""
    return _base_block(like, _NEW_LOG, sequence) + b"".join(entries)


def old_log(before: bytes, after: bytes, *, sequence: int) -> bytes:
    """Return a log of the old format that leads from one state of a hive to another."""
    bits = bytearray((len(after) - PAGE) // SECTOR // 8)
    pages = b""
    for at, data in changed_pages(before, after):
        bits[at // PAGE] = 0xFF  # Windows marks all eight sectors of a page
        pages += data
    vector = b"DIRT" + bytes(bits)
    padded = vector.ljust(-(-len(vector) // SECTOR) * SECTOR, b"\0")
    return _base_block(after, _OLD_LOG, sequence) + padded + pages


def with_sequences(hive: bytes, first: int, second: int) -> bytes:
    """Return the hive, or the log, with other sequence numbers and a right checksum."""
    block = bytearray(hive[:SECTOR])
    struct.pack_into("<II", block, 4, first, second)
    struct.pack_into("<I", block, 508, base_block_checksum(bytes(block)))
    return bytes(block) + hive[SECTOR:]


def _base_block(like: bytes, kind: int, sequence: int) -> bytes:
    block = bytearray(like[:SECTOR])
    struct.pack_into("<I", block, 28, kind)
    return with_sequences(bytes(block), sequence, sequence)


def _hash(data: bytes) -> int:
    low, high = _SEED
    whole = len(data) - len(data) % 4
    words = [*struct.unpack(f"<{whole // 4}I", data[:whole])]
    for word in [*words, int.from_bytes(data[whole:] + b"\x80", "little"), 0]:
        low = (low + word) & _WORD
        for sum_by, mix_by in ((20, 9), (27, 19)):
            high ^= low
            low = (_turned(low, sum_by) + high) & _WORD
            high = _turned(high, mix_by)
    return high << 32 | low


def _turned(word: int, bits: int) -> int:
    return (word << bits | word >> (32 - bits)) & _WORD
