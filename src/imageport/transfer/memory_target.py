"""A block target in memory, as strict as the contract and as unfriendly as told.

The shipped second implementation of `BlockTarget`: for tests of whatever moves blocks, and for
trying a run without a cloud. `Shelf` plays the service that outlives a process; each `MemoryTarget`
is one client of it.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from imageport.errors import CloudRefused, CloudThrottled, CloudUnavailable, ResourceGone
from imageport.model import BLOCK_BYTES, ZERO_BLOCK
from imageport.transfer.block_target import BlockTarget, TargetTraits, TransferPlan
from imageport.transfer.manifest import block_count

GARBAGE = bytes(range(1, 256)) * (BLOCK_BYTES // 255 + 1)


@dataclass(slots=True)
class Faults:
    """What goes wrong at the service; shares of all puts, decided by ``seed``."""

    throttle_per_second: float = 0.0
    """Puts above this rate are refused; 0 = never."""
    unavailable_share: float = 0.0
    """Share of puts answered with a server error, half of them after the block was stored."""
    hang_share: float = 0.0
    hang_seconds: float = 0.5
    """Puts that hang so long and then time out."""
    seconds_per_put: float = 0.0
    link_bytes_per_second: float = 0.0
    """What all puts in flight share; 0 = no limit."""
    answer_seconds: float = 0.0
    """A put that is under way for longer is answered with OperationTimedOut; 0 = never."""
    seed: int = 0
    before_put: Callable[[int], None] = lambda _index: None
    """Called with the first index of every put; may raise, or end the process."""
    before_take: Callable[[int], None] = lambda _index: None
    """Likewise before blocks are taken from the parent."""


@dataclass(slots=True)
class StoredDisk:
    """One disk at the service."""

    handle: str
    token: str
    size_bytes: int
    parent: StoredDisk | None
    blocks: dict[int, bytes] = field(default_factory=dict)
    state: str = "pending"

    def read(self, index: int, *, unwritten_reads_zero: bool) -> bytes:
        """Return what a volume made from this disk reads."""
        disk: StoredDisk | None = self
        while disk is not None:
            if index in disk.blocks:
                return disk.blocks[index]
            disk = disk.parent
        if unwritten_reads_zero:
            return ZERO_BLOCK
        start = index % 251
        return GARBAGE[start : start + BLOCK_BYTES]


class Shelf:
    """The service: disks by handle and by token, with faults."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.disks: dict[str, StoredDisk] = {}
        self.puts: list[int] = []
        """Index of every block that was stored, in order, repeated ones too."""
        self.requests: list[tuple[int, int]] = []
        """First index and count of every put that was stored."""
        self.taken: list[int] = []
        """Index of every block that was taken from a parent."""
        self.refusals = 0
        self.timeouts = 0
        self.lock = threading.RLock()
        self._random = random.Random(self.faults.seed)  # noqa: S311 - repeatable faults, no secret
        self._tokens = 1.0
        self._refilled = time.monotonic()
        self._crossing = 0

    def admit(self, index: int, size_bytes: int = BLOCK_BYTES) -> bool:
        """Raise this request's fault, if any; True means: carry it out, then fail."""
        with self.lock:
            dice = self._random.random()
            late = self._random.random() < 1 / 2
            throttled = self._is_too_fast()
        if self.faults.seconds_per_put:
            time.sleep(self.faults.seconds_per_put)
        if throttled:
            raise CloudThrottled(f"Cannot put block {index}: slow down.")
        if self.faults.link_bytes_per_second and size_bytes:
            self._cross_link(index, size_bytes)
        if dice < self.faults.hang_share:
            time.sleep(self.faults.hang_seconds)
            raise CloudUnavailable(f"Cannot put block {index}: no answer in time.")
        if dice < self.faults.hang_share + self.faults.unavailable_share:
            if not late:
                raise CloudUnavailable(f"Cannot put block {index}: internal error.")
            return True
        return False

    def _cross_link(self, index: int, size_bytes: int) -> None:
        """Take the time that the bytes need among all that are on their way."""
        started = before = time.monotonic()
        with self.lock:
            self._crossing += 1
        try:
            while size_bytes > 0:
                time.sleep(0.002)
                now = time.monotonic()
                share = self.faults.link_bytes_per_second / self._crossing
                size_bytes -= int((now - before) * share)
                before = now
                if 0 < self.faults.answer_seconds < now - started:
                    self.timeouts += 1
                    raise CloudThrottled(f"Cannot put block {index}: OperationTimedOut.")
        finally:
            with self.lock:
                self._crossing -= 1

    def _is_too_fast(self) -> bool:
        rate = self.faults.throttle_per_second
        if rate <= 0:
            return False
        now = time.monotonic()
        self._tokens = min(max(1.0, rate / 10), self._tokens + (now - self._refilled) * rate)
        self._refilled = now
        if self._tokens < 1:
            self.refusals += 1
            return True
        self._tokens -= 1
        return False


class MemoryTarget(BlockTarget):
    """One client of a `Shelf`.

    ``unwritten_reads_zero=False`` is the model of an encrypted volume: unwritten blocks are
    garbage. ``parent`` is the handle of a committed disk; with ``starts_from_parent=False`` it is
    only what `take_from_parent` takes from.
    """

    def __init__(
        self,
        shelf: Shelf | None = None,
        *,
        parent: str = "",
        unwritten_reads_zero: bool = True,
        **traits: Any,
    ) -> None:
        """``traits``: what else `TargetTraits` takes."""
        self.shelf = shelf or Shelf()
        traits.setdefault("keeps_parent_zeros", unwritten_reads_zero)
        self.traits = TargetTraits("memory", unwritten_reads_zero, **traits)
        self._parent = parent
        self._disk: StoredDisk | None = None

    def begin(self, plan: TransferPlan, token: str) -> str:
        """Create a disk, or find the pending one of this token."""
        with self.shelf.lock:
            for disk in self.shelf.disks.values():
                if disk.token == token and disk.state == "pending":
                    if disk.size_bytes != plan.size_bytes:
                        raise CloudRefused(f"Cannot begin with token '{token}': other size.")
                    self._disk = disk
                    return disk.handle
            shown = self._parent if self.traits.starts_from_parent else ""
            parent = self.shelf.disks[shown] if shown else None
            handle = f"memory-{len(self.shelf.disks):04}"
            self._disk = StoredDisk(handle, token, plan.size_bytes, parent)
            self.shelf.disks[handle] = self._disk
            return handle

    def resume(self, plan: TransferPlan, handle: str) -> None:
        """Take up a disk by its handle."""
        with self.shelf.lock:
            disk = self.shelf.disks.get(handle)
            if disk is None or disk.state == "deleted" or disk.size_bytes != plan.size_bytes:
                raise ResourceGone(f"Cannot resume '{handle}': it is gone.")
            self._disk = disk

    def put(self, index: int, data: bytes | memoryview, digest: bytes) -> None:
        """Store one block after checking everything about it."""
        self._store(index, data, [digest])

    def put_run(self, first_index: int, data: bytes | memoryview, digests: Sequence[bytes]) -> None:
        """Store adjacent blocks likewise, all or none."""
        if self.traits.put_blocks == 1:
            raise CloudRefused(f"Cannot put a run at {first_index}: the target takes no runs.")
        self._store(first_index, data, digests)

    def take_from_parent(self, first_index: int, count: int) -> None:
        """Store what the parent has stored there; `ResourceGone` when there is no parent."""
        if self.traits.starts_from_parent:
            raise CloudRefused("Cannot take from the parent: the target starts from it.")
        disk = self._writable(first_index, count)
        self.shelf.faults.before_take(first_index)
        fails_after = self.shelf.admit(first_index, 0)
        with self.shelf.lock:
            parent = self.shelf.disks.get(self._parent)
            if parent is None or parent.state != "committed":
                raise ResourceGone(f"Cannot take from '{self._parent}': it is gone.")
            for index in range(first_index, first_index + count):
                if index not in parent.blocks:
                    raise CloudRefused(f"Cannot take block {index}: the parent has none there.")
                disk.blocks[index] = parent.blocks[index]
                self.shelf.taken.append(index)
        if fails_after:
            raise CloudUnavailable(f"Cannot take block {first_index}: the answer was lost.")

    def lost(self, indexes: Collection[int]) -> set[int]:
        """Return which blocks are not stored."""
        disk = self._begun()
        return {index for index in indexes if index not in disk.blocks}

    def commit(self, digests: Mapping[int, bytes]) -> str:
        """Seal the disk; the caller must know exactly what was put."""
        disk = self._begun()
        with self.shelf.lock:
            if disk.state == "deleted":
                raise ResourceGone(f"Cannot commit '{disk.handle}': it is gone.")
            if set(digests) != set(disk.blocks):
                raise CloudRefused(
                    f"Bad commit of '{disk.handle}': found {len(digests)} digests, "
                    f"needed {len(disk.blocks)}."
                )
            for index, block in disk.blocks.items():
                if hashlib.sha256(block).digest() != digests[index]:
                    raise CloudRefused(f"Bad commit of '{disk.handle}': block {index} differs.")
            disk.state = "committed"
            return disk.handle

    def abort(self) -> None:
        """Delete the disk unless it is committed."""
        if self._disk is None:
            return
        with self.shelf.lock:
            if self._disk.state == "pending":
                self._disk.state = "deleted"
                self._disk.blocks.clear()

    def read_back(self, indexes: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Yield blocks as a volume would read them."""
        disk = self._begun()
        for index in indexes:
            yield (
                index,
                disk.read(index, unwritten_reads_zero=self.traits.unwritten_reads_zero),
            )

    def close(self) -> None:
        """Forget the disk."""
        self._disk = None

    def _store(self, first: int, data: bytes | memoryview, digests: Sequence[bytes]) -> None:
        disk = self._writable(first, len(digests))
        if len(data) != len(digests) * BLOCK_BYTES:
            raise CloudRefused(f"Bad block {first}: found {len(data)} bytes for {disk.handle}.")
        pieces = [data[start : start + BLOCK_BYTES] for start in range(0, len(data), BLOCK_BYTES)]
        if any(hashlib.sha256(p).digest() != d for p, d in zip(pieces, digests, strict=True)):
            raise CloudRefused(f"Bad block {first}: found another checksum than announced.")
        self.shelf.faults.before_put(first)
        fails_after = self.shelf.admit(first, len(data))
        with self.shelf.lock:
            self.shelf.requests.append((first, len(digests)))
            for index, piece in enumerate(pieces, start=first):
                disk.blocks[index] = ZERO_BLOCK if piece == ZERO_BLOCK else bytes(piece)
                self.shelf.puts.append(index)
        if fails_after:
            raise CloudUnavailable(f"Cannot put block {first}: the answer was lost.")

    def _writable(self, first: int, count: int) -> StoredDisk:
        """Return the disk if these blocks may be written in one request."""
        disk, most = self._begun(), self.traits.put_blocks
        if disk.state != "pending":
            raise ResourceGone(f"Cannot put into '{disk.handle}': it is {disk.state}.")
        if not 0 <= first < first + count <= block_count(disk.size_bytes):
            raise CloudRefused(f"Bad blocks {first}+{count}: they are outside of {disk.handle}.")
        if first // most != (first + count - 1) // most:
            raise CloudRefused(f"Bad run {first}+{count}: needed one aligned run of {most} blocks.")
        return disk

    def _begun(self) -> StoredDisk:
        if self._disk is None:
            raise ResourceGone("Cannot use the target: it was not begun.")
        return self._disk
