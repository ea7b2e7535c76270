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
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

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
    seed: int = 0
    before_put: Callable[[int], None] = lambda _index: None
    """Called with the index of every put; may raise, or end the process."""


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
        self.refusals = 0
        self.lock = threading.RLock()
        self._random = random.Random(self.faults.seed)  # noqa: S311 - repeatable faults, no secret
        self._tokens = 1.0
        self._refilled = time.monotonic()

    def admit(self, index: int) -> bool:
        """Raise this put's fault, if any; True means: store it, then fail."""
        self.faults.before_put(index)
        with self.lock:
            dice = self._random.random()
            late = self._random.random() < 1 / 2
            throttled = self._is_too_fast()
        if self.faults.seconds_per_put:
            time.sleep(self.faults.seconds_per_put)
        if throttled:
            raise CloudThrottled(f"Cannot put block {index}: slow down.")
        if dice < self.faults.hang_share:
            time.sleep(self.faults.hang_seconds)
            raise CloudUnavailable(f"Cannot put block {index}: no answer in time.")
        if dice < self.faults.hang_share + self.faults.unavailable_share:
            if not late:
                raise CloudUnavailable(f"Cannot put block {index}: internal error.")
            return True
        return False

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
    garbage. ``parent`` is the handle of a committed disk.
    """

    def __init__(
        self,
        shelf: Shelf | None = None,
        *,
        unwritten_reads_zero: bool = True,
        parent: str = "",
        max_in_flight: int = 16,
    ) -> None:
        self.shelf = shelf or Shelf()
        self.traits = TargetTraits(
            name="memory",
            unwritten_reads_zero=unwritten_reads_zero,
            keeps_parent_zeros=unwritten_reads_zero,
            max_in_flight=max_in_flight,
        )
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
            parent = self.shelf.disks[self._parent] if self._parent else None
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
        disk = self._begun()
        if disk.state != "pending":
            raise ResourceGone(f"Cannot put into '{disk.handle}': it is {disk.state}.")
        if len(data) != BLOCK_BYTES or not 0 <= index < block_count(disk.size_bytes):
            raise CloudRefused(f"Bad block {index}: found {len(data)} bytes for {disk.handle}.")
        if hashlib.sha256(data).digest() != digest:
            raise CloudRefused(f"Bad block {index}: found another checksum than announced.")
        fails_after = self.shelf.admit(index)
        with self.shelf.lock:
            disk.blocks[index] = ZERO_BLOCK if data == ZERO_BLOCK else bytes(data)
            self.shelf.puts.append(index)
        if fails_after:
            raise CloudUnavailable(f"Cannot put block {index}: the answer was lost.")

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

    def _begun(self) -> StoredDisk:
        if self._disk is None:
            raise ResourceGone("Cannot use the target: it was not begun.")
        return self._disk
