"""Snapshots and volumes of the memory cloud: blocks in dictionaries, strict as a real cloud is."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from imageport.clouds.intents import Intents
from imageport.clouds.tags import ROLE_UPLOADED
from imageport.errors import CloudRefused, InputError, ResourceGone
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import BLOCK_BYTES, Extent, ExtentState
from imageport.transfer.block_target import BlockTarget, TargetTraits, TransferPlan

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


class MemorySnapshotTarget(BlockTarget):
    """Receives blocks into a new snapshot; checks digests, block size and bounds as AWS does."""

    def __init__(
        self, account: MemoryAccount, intents: Intents, image: str, *, parent: str = ""
    ) -> None:
        self.traits = TargetTraits(
            name="memory-snapshot",
            unwritten_reads_zero=False,
            attributes={"encrypted": "maybe", "parent": parent},
        )
        self._account = account
        self._intents = intents
        self._image = image
        self._parent = parent
        self._id = ""

    def begin(self, plan: TransferPlan, token: str) -> str:
        """Start a snapshot, or find the one of this token."""
        intent = self._intents.intend("snapshot", ROLE_UPLOADED, token, name=self._image)
        earlier = self._account.snapshots.get(intent.entry.resource_id)
        if earlier is not None and earlier.completed:
            # A finished upload that the caller has no record of: the sweep's to judge.
            intent = self._intents.intend("snapshot", ROLE_UPLOADED, token, fresh=True)
        with self._account.lock:
            by_token = self._account.by_client_token.get(intent.client_token, "")
            found = intent.entry.resource_id or by_token
            if found not in self._account.snapshots:
                parent = self._account.completed(self._parent) if self._parent else None
                found = self._account.new_id("snap")
                blocks = dict(parent.blocks) if parent is not None else {}
                made = MemorySnapshot(found, plan.size_bytes, blocks, tags=dict(intent.tags))
                self._account.snapshots[found] = made
                self._account.by_client_token[intent.client_token] = found
        self._intents.record(intent, found)
        self._id = found
        return found

    def resume(self, plan: TransferPlan, handle: str) -> None:
        """Take up a snapshot, pending or just completed."""
        found = self._account.snapshot(handle)
        if found.size_bytes != plan.size_bytes:
            raise ResourceGone(
                f"Cannot resume '{handle}': found {found.size_bytes} bytes, "
                f"needed {plan.size_bytes}."
            )
        self._id = handle

    def put(self, index: int, data: bytes | memoryview, digest: bytes) -> None:
        """Keep one block."""
        block = bytes(data)
        snapshot = self._account.snapshot(self._id)
        if snapshot.completed:
            raise ResourceGone(f"Cannot put block '{self._id}/{index}': it is complete.")
        if len(block) != BLOCK_BYTES or not 0 <= index * BLOCK_BYTES < snapshot.size_bytes:
            raise CloudRefused(
                f"Bad block '{self._id}/{index}': found {len(block)} bytes, needed {BLOCK_BYTES} "
                f"inside {snapshot.size_bytes}."
            )
        if hashlib.sha256(block).digest() != digest:
            raise CloudRefused(f"Bad block '{self._id}/{index}': its SHA-256 is another.")
        self._intents.live()
        with self._account.lock:
            snapshot.blocks[index] = block
            snapshot.put.add(index)

    def commit(self, digests: Mapping[int, bytes]) -> str:
        """Seal; refuses a count or a digest that differs from what was put."""
        snapshot = self._account.snapshot(self._id)
        with self._account.lock:
            if snapshot.completed:
                return self._id
            if set(digests) != snapshot.put:
                raise CloudRefused(
                    f"Cannot complete '{self._id}': found {len(digests)} blocks, "
                    f"needed {len(snapshot.put)}."
                )
            for index, digest in digests.items():
                if hashlib.sha256(snapshot.blocks[index]).digest() != digest:
                    raise CloudRefused(f"Cannot complete '{self._id}': block {index} differs.")
            snapshot.completed = True
        return self._id

    def abort(self) -> None:
        """Delete the snapshot unless it is complete."""
        with self._account.lock:
            found = self._account.snapshots.get(self._id)
            if found is None or found.completed:
                return
            del self._account.snapshots[self._id]
        self._intents.mark(self._id, "deleted")

    def read_back(self, indexes: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Yield blocks; one that is not stored reads as zeros."""
        snapshot = self._account.completed(self._id)
        for index in indexes:
            yield index, snapshot.blocks.get(index, bytes(BLOCK_BYTES))

    def close(self) -> None:
        """Nothing is open."""


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
