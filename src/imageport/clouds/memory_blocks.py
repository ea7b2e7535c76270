"""Snapshots and volumes of the memory cloud: blocks in dictionaries, strict as a real cloud is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from imageport.errors import InputError, ResourceGone
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import BLOCK_BYTES, Extent, ExtentState

GARBAGE_BLOCK = bytes(range(256)) * (BLOCK_BYTES // 256)
"""What a volume of an encrypted cloud holds where its snapshot has no block."""


@dataclass
class MemoryVolume:
    """A working disk; engine and boot callables read and edit it."""

    id: str
    size_bytes: int
    blocks: dict[int, bytes] = field(default_factory=dict)
    unwritten: bytes = GARBAGE_BLOCK
    tags: dict[str, str] = field(default_factory=dict)

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return exactly ``length_bytes``."""
        pieces = [
            self.blocks.get(index, self.unwritten)[start:stop]
            for index, start, stop in _pieces(offset_bytes, length_bytes, self.size_bytes)
        ]
        return b"".join(pieces)

    def write_at(self, offset_bytes: int, data: bytes) -> None:
        """Write all of ``data``."""
        place = 0
        for index, start, stop in _pieces(offset_bytes, len(data), self.size_bytes):
            old = self.blocks.get(index, self.unwritten)
            part = data[place : place + stop - start]
            self.blocks[index] = old[:start] + part + old[stop:]
            place += stop - start


@dataclass
class MemorySnapshot:
    """Sealed or being written; a child holds its parent's blocks too."""

    id: str
    size_bytes: int
    blocks: dict[int, bytes] = field(default_factory=dict)
    put: set[int] = field(default_factory=set)
    completed: bool = False
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class MemoryAccount:
    """What exists in the memory cloud; outlives the `MemoryCloud` of one run."""

    snapshots: dict[str, MemorySnapshot] = field(default_factory=dict)
    volumes: dict[str, MemoryVolume] = field(default_factory=dict)
    by_client_token: dict[str, str] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    made: int = 0

    def new_id(self, prefix: str) -> str:
        """Return an id that was never used."""
        with self.lock:
            self.made += 1
            return f"{prefix}-{self.made:017x}"

    def snapshot(self, reference: str) -> MemorySnapshot:
        """Return a snapshot or raise `ResourceGone`."""
        with self.lock:
            found = self.snapshots.get(reference)
        if found is None:
            raise ResourceGone(f"Cannot use '{reference}': the memory cloud has no such snapshot.")
        return found

    def completed(self, reference: str) -> MemorySnapshot:
        """Return a completed snapshot or raise `ResourceGone`."""
        found = self.snapshot(reference)
        if not found.completed:
            raise ResourceGone(f"Bad snapshot '{reference}': found pending, needed completed.")
        return found


class MemorySnapshotDisk(VirtualDisk):
    """A completed snapshot for reading: stored blocks are DATA, the rest HOLE."""

    format_name = "memory-snapshot"
    sector_bytes = 512

    def __init__(self, account: MemoryAccount, reference: str) -> None:
        self._account = account
        self._snapshot = account.completed(reference)
        self.location = f"memory:{reference}"

    @property
    def size_bytes(self) -> int:
        """Return the size of the volume it was made of."""
        return self._snapshot.size_bytes

    def extents(self) -> Iterator[Extent]:
        """Yield DATA and HOLE in turns."""
        start, state = 0, ExtentState.HOLE
        for index in range(-(-self.size_bytes // BLOCK_BYTES)):
            stored = index in self._snapshot.blocks
            now = ExtentState.DATA if stored else ExtentState.HOLE
            offset = index * BLOCK_BYTES
            if now is not state:
                if offset > start:
                    yield Extent(start, offset - start, state)
                start, state = offset, now
        if self.size_bytes > start:
            yield Extent(start, self.size_bytes - start, state)

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return exactly ``length_bytes``."""
        zero = bytes(BLOCK_BYTES)
        pieces = _pieces(offset_bytes, length_bytes, self.size_bytes)
        blocks = self._snapshot.blocks
        return b"".join(blocks.get(index, zero)[start:stop] for index, start, stop in pieces)

    def content_key(self) -> str:
        """Return the snapshot's id."""
        return self.location

    def check_unchanged(self) -> None:
        """Raise `ResourceGone` if the snapshot was deleted."""
        self._account.completed(self._snapshot.id)

    def close(self) -> None:
        """Nothing is open."""


def _pieces(offset: int, length: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Yield (block, start, stop inside it) of a range."""
    if offset < 0 or length < 0 or offset + length > size:
        raise InputError(f"Bad range: found {offset}+{length}, needed one inside {size} bytes.")
    end = offset + length
    while offset < end:
        index, start = divmod(offset, BLOCK_BYTES)
        stop = min(BLOCK_BYTES, start + end - offset)
        yield index, start, stop
        offset += stop - start
