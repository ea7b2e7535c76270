"""A source that is cheap to read, reads ahead as a share does, and counts; for shared readings."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator

from imageport.errors import SourceChanged
from imageport.formats.virtual_disk import PIECE_BYTES, VirtualDisk
from imageport.model import BLOCK_BYTES, Extent, ExtentState

_PERIOD = 1_048_573
"""A prime: no two blocks of a disk are alike."""
_NOISE = random.Random(11).randbytes(_PERIOD) * 3  # noqa: S311 - contents


class CountedSource(VirtualDisk):
    """All DATA; ``ahead`` pieces are asked for before the first is given."""

    location = "counted"
    format_name = "counted"
    sector_bytes = 512

    def __init__(self, blocks: int, *, ahead: int = 4, seconds_per_piece: float = 0.0) -> None:
        self.blocks = blocks
        self.reads: Counter[int] = Counter()
        """How often each block was read, in part or whole."""
        self.bytes_read = 0
        self.before_piece: Callable[[int], None] = lambda _offset: None
        self.checks = 0
        self.changed = False
        self._ahead = ahead
        self._seconds = seconds_per_piece
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        return self.blocks * BLOCK_BYTES

    def extents(self) -> Iterator[Extent]:
        yield Extent(0, self.size_bytes, ExtentState.DATA)

    def content(self, offset_bytes: int, length_bytes: int) -> bytes:
        start = offset_bytes % _PERIOD
        assert length_bytes <= PIECE_BYTES
        return _NOISE[start : start + length_bytes]

    def block(self, index: int) -> bytes:
        return self.content(index * BLOCK_BYTES, BLOCK_BYTES)

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        self.before_piece(offset_bytes)
        if self._seconds:
            time.sleep(self._seconds)
        with self._lock:
            self.bytes_read += length_bytes
            end = offset_bytes + length_bytes
            self.reads.update(range(offset_bytes // BLOCK_BYTES, -(-end // BLOCK_BYTES)))
        return self.content(offset_bytes, length_bytes)

    def read_many(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        under_way: deque[tuple[int, bytes]] = deque()
        last = 0
        for offset, length in ranges:
            assert offset >= last, "ranges ascend and do not overlap"
            last = offset + length
            for start in range(offset, last, PIECE_BYTES):
                count = min(PIECE_BYTES, last - start)
                under_way.append((start, self.read_at(start, count)))
                if len(under_way) > self._ahead:
                    yield under_way.popleft()
        yield from under_way

    def content_key(self) -> str:
        return f"counted-{self.blocks}"

    def check_unchanged(self) -> None:
        with self._lock:
            self.checks += 1
        time.sleep(self._seconds)
        if self.changed:
            raise SourceChanged(f"Cannot read '{self.location}': it changed.")

    def close(self) -> None:
        return
