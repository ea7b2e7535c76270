"""Disks for transfer tests: any layout of extents, contents by formula, counts what is read."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence

from imageport.errors import SourceChanged
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import BLOCK_BYTES, Extent, ExtentState

HOLE, ZERO, DATA = ExtentState.HOLE, ExtentState.ZERO, ExtentState.DATA
PIECE = 4096


class SyntheticDisk(VirtualDisk):
    """``layout`` is (length in bytes, state, seed); DATA of seed 0 reads as zeros."""

    location = "synthetic"
    format_name = "synthetic"
    sector_bytes = 512

    def __init__(
        self, layout: Sequence[tuple[int, ExtentState, int]], *, version: str = "1"
    ) -> None:
        self.layout = list(layout)
        self.version = version
        self.bytes_read = 0
        self.changed = False
        self.closed = False

    @property
    def size_bytes(self) -> int:
        return sum(length for length, _state, _seed in self.layout)

    def extents(self) -> Iterator[Extent]:
        offset = 0
        pending: Extent | None = None
        for length, state, _seed in self.layout:
            if pending is not None and pending.state is state:
                pending = Extent(pending.offset_bytes, pending.length_bytes + length, state)
            else:
                if pending is not None:
                    yield pending
                pending = Extent(offset, length, state)
            offset += length
        if pending is not None:
            yield pending

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        self.bytes_read += length_bytes
        return self.content(offset_bytes, length_bytes)

    def content(self, offset_bytes: int, length_bytes: int) -> bytes:
        """What the guest sees."""
        parts, start = [], 0
        for length, state, seed in self.layout:
            first, end = max(offset_bytes, start), min(offset_bytes + length_bytes, start + length)
            if first < end:
                parts.append(
                    _pattern(seed, first - start, end - first)
                    if state is DATA and seed
                    else bytes(end - first)
                )
            start += length
        return b"".join(parts)

    def block(self, index: int) -> bytes:
        count = min(BLOCK_BYTES, self.size_bytes - index * BLOCK_BYTES)
        return self.content(index * BLOCK_BYTES, count).ljust(BLOCK_BYTES, b"\0")

    def states(self, index: int) -> set[ExtentState]:
        start, end = index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES
        return {
            extent.state
            for extent in self.extents()
            if extent.offset_bytes < end and extent.end_bytes > start
        }

    def content_key(self) -> str:
        facts = repr((self.version, self.layout))
        return hashlib.sha256(facts.encode()).hexdigest()

    def check_unchanged(self) -> None:
        if self.changed:
            raise SourceChanged(f"Cannot read '{self.location}': it changed.")

    def close(self) -> None:
        self.closed = True


def _pattern(seed: int, offset: int, length: int) -> bytes:
    first, last = offset // PIECE, (offset + length - 1) // PIECE
    pieces = [
        random.Random(seed * 1_000_003 + number).randbytes(64) * (PIECE // 64)  # noqa: S311
        for number in range(first, last + 1)
    ]
    return b"".join(pieces)[offset - first * PIECE :][:length]
