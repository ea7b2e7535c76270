# References: the regf format: transaction log files, old format (dirty vector) and new format (log
# entries); Marvin32 as in the published sources of Microsoft's SymCrypt.
"""The bytes of a hive's transaction logs: which pages each holds, and whether they are whole."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from imageport.compose.hives.base_block import (
    BASE_BLOCK_BYTES,
    HEADER_BYTES,
    MAX_HIVE_BYTES,
    NEW_LOG,
    OLD_LOG,
    HiveHeader,
)
from imageport.compose.hives.cell_layout import PAGE_BYTES

OLD_PAGE_BYTES = 512
"""What one bit of the old format's vector stands for, whatever the disk's sectors are."""
_ENTRY = struct.Struct("<4sIIIIIQQ")
"""Signature, size, flags, sequence, hive bins' size, count of pages, two hashes."""
_REFERENCE = struct.Struct("<II")
_HASHED_HEAD_BYTES = 32
"""The second hash covers the entry up to itself, the first what follows both."""
_SEED = 0x82EF4D887A4E55C5
"""Windows' own for log entries; found right on the logs of a real machine."""
_WORD = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Page:
    """One page: where it belongs, counted from the first hive bin, and its bytes."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class LogFile:
    """One log; ``problem`` says why it cannot be used."""

    name: str
    data: bytes
    header: HiveHeader
    problem: str

    @classmethod
    def parse(cls, name: str, data: bytes) -> LogFile:
        """Read a log's base block; anything at all may be handed in."""
        if not data:
            return cls(name, data, HiveHeader(0, 0, "empty"), "is empty")
        header = HiveHeader.parse(data[:HEADER_BYTES])
        problem = header.problem
        if not problem and header.file_type not in {OLD_LOG, NEW_LOG}:
            problem = f"found file type {header.file_type}, needed {OLD_LOG} or {NEW_LOG}"
        if not problem and header.is_dirty:
            problem = f"found sequence numbers {header.sequences}, needed equal ones"
        return cls(name, data, header, problem)

    @property
    def is_new(self) -> bool:
        """Say whether it holds log entries, not a dirty vector."""
        return self.header.file_type == NEW_LOG

    def entries(self) -> Iterator[LogEntry]:
        """Yield the entries from the log's begin to the first that is none."""
        at = self.header.sector_bytes
        while (entry := LogEntry.parse(self.data, at)) is not None:
            yield entry
            at += entry.size_bytes

    def highest_sequence(self) -> int:
        """Return the highest number anywhere in the log, also in what older writes left behind."""
        heads = (LogEntry.parse_head(self.data, at) for at in range(0, len(self.data), 512))
        return max([self.header.sequence1, *(head[3] for head in heads if head)])

    def dirty_pages(self) -> list[Page] | str:
        """Return the pages of a log of the old format, or what is wrong with it."""
        bins_bytes, sector = self.header.bins_bytes, self.header.sector_bytes
        problem = bins_problem(bins_bytes)
        if problem:
            return problem
        if self.data[sector : sector + 4] != b"DIRT":
            return f"found no dirty vector at offset {sector}, needed 'DIRT'"
        vector = self.data[sector + 4 : sector + 4 + bins_bytes // OLD_PAGE_BYTES // 8]
        at = -(-(sector + 4 + len(vector)) // sector) * sector
        numbers = [
            8 * place + bit
            for place, byte in enumerate(vector)
            if byte
            for bit in range(8)
            if byte >> bit & 1
        ]
        needed = at + len(numbers) * OLD_PAGE_BYTES
        if len(self.data) < needed or len(vector) * 8 * OLD_PAGE_BYTES != bins_bytes:
            return f"found {len(self.data)} bytes, needed {needed} for {len(numbers)} dirty pages"
        starts = range(at, needed, OLD_PAGE_BYTES)
        return [
            Page(number * OLD_PAGE_BYTES, self.data[start : start + OLD_PAGE_BYTES])
            for number, start in zip(numbers, starts, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One entry of the new format, its head found right; `pages` looks at the rest."""

    at: int
    size_bytes: int
    sequence: int
    bins_bytes: int
    count: int
    hash1: int
    _log: bytes

    @classmethod
    def parse(cls, log: bytes, at: int) -> LogEntry | None:
        """Return the entry at an offset, None when there is no whole one."""
        head = cls.parse_head(log, at)
        if head is None:
            return None
        _, size, _, sequence, bins_bytes, count, hash1, _ = head
        if size % HEADER_BYTES or at + size > len(log) or bins_problem(bins_bytes):
            return None
        if _ENTRY.size + count * _REFERENCE.size > size:
            return None
        return cls(at, size, sequence, bins_bytes, count, hash1, log)

    @staticmethod
    def parse_head(log: bytes, at: int) -> tuple[bytes, int, int, int, int, int, int, int] | None:
        """Return the fixed fields at an offset when their own hash is right."""
        if log[at : at + 4] != b"HvLE" or at + _ENTRY.size > len(log):
            return None
        head: tuple[bytes, int, int, int, int, int, int, int] = _ENTRY.unpack_from(log, at)
        if head[7] != marvin32(log[at : at + _HASHED_HEAD_BYTES]):
            return None
        return head

    def pages(self) -> list[Page] | str:
        """Return the entry's pages, or what is wrong with them."""
        body = self._log[self.at + _ENTRY.size : self.at + self.size_bytes]
        found = marvin32(body)
        if found != self.hash1:
            return f"found hash {found:#018x} at offset {self.at}, needed {self.hash1:#018x}"
        at = self.count * _REFERENCE.size
        pages = []
        for offset, length in _REFERENCE.iter_unpack(body[:at]):
            if offset % PAGE_BYTES or length % PAGE_BYTES or offset + length > self.bins_bytes:
                return f"found a page of {length} bytes for {offset}, outside the hive"
            if at + length > len(body):
                return f"found {len(body)} bytes of pages at offset {self.at}, needed more"
            pages.append(Page(offset, body[at : at + length]))
            at += length
        return pages


def bins_problem(bins_bytes: int) -> str:
    """Return what is wrong with a hive's length, "" when it may be."""
    if 0 < bins_bytes <= MAX_HIVE_BYTES - BASE_BLOCK_BYTES and not bins_bytes % PAGE_BYTES:
        return ""
    return f"found hive bins of {bins_bytes} bytes, needed a multiple of {PAGE_BYTES}"


def marvin32(data: bytes, seed: int = _SEED) -> int:
    """Return the 64-bit Marvin32 of ``data``; about 0.25 s for a MiB."""
    low, high = seed & _WORD, seed >> 32
    whole = len(data) & ~3
    ending = int.from_bytes(data[whole:] + b"\x80", "little")
    for (word,) in struct.iter_unpack("<I", data[:whole] + struct.pack("<II", ending, 0)):
        # The round is written out: a call for each word would double the time.
        low = (low + word) & _WORD
        high ^= low
        low = ((low << 20 | low >> 12) + high) & _WORD
        high = (high << 9 | high >> 23) & _WORD ^ low
        low = ((low << 27 | low >> 5) + high) & _WORD
        high = (high << 19 | high >> 13) & _WORD
    return high << 32 | low
