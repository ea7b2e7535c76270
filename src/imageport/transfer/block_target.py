"""The interface of a place that disk blocks are written to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from imageport.model import BLOCK_BYTES


@dataclass(frozen=True, slots=True)
class TargetTraits:
    """What a target is like; declared, never probed.

    ``unwritten_reads_zero``: a block never put reads back as zeros (a new VHDX). False on cloud
    volumes that are or may become encrypted, where it reads as garbage: there ZERO blocks are
    written. ``fills_holes``: a target known to be encrypted gets zeros for HOLE blocks inside a
    partition too; on one that only may become so they are left out, because no guest ever wrote
    there and writing them would multiply a sparse image.
    ``starts_from_parent``: a target made with a parent shows the parent's blocks where nothing is
    put. False where every target starts empty and `BlockTarget.take_from_parent` brings over what
    did not change, without sending it.
    ``put_blocks``: most blocks of one put; runs are aligned to it.
    ``keeps_parent_zeros``: what no ancestor ever wrote still reads as zeros here if it did so on
    the parent. False where this target is or may become encrypted, whatever the parent was.
    """

    name: str
    unwritten_reads_zero: bool
    fills_holes: bool = True
    keeps_parent_zeros: bool = True
    starts_from_parent: bool = True
    put_blocks: int = 1
    initial_in_flight: int = 4
    max_in_flight: int = 16
    max_requests_per_second: float = 0.0
    """0 = no limit known."""
    max_bytes_per_second: float = 0.0
    """0 = no limit known."""
    verify_by_read_back: bool = True
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TransferPlan:
    """What will be put, in blocks of `imageport.model.BLOCK_BYTES`; every sequence ascends.

    ``data_blocks`` are read and hashed; ``zero_blocks`` are written as zeros without reading;
    a block in neither is left alone. The last block is padded with zeros.
    """

    size_bytes: int
    data_blocks: Sequence[int]
    zero_blocks: Sequence[int]
    bytes_to_read: int


class BlockTarget(ABC):
    """Receives blocks in any order from several threads.

    Life: ``begin`` (or ``resume``) → ``put``… → ``commit`` → ``read_back`` → ``close``; ``abort``
    instead of ``commit`` leaves nothing behind. One retry layer lies above: a target tries once
    and raises `CloudThrottled`, `CloudUnavailable` or `ShareUnreachable` for what may be tried
    again, anything else for what may not.
    """

    traits: TargetTraits

    @abstractmethod
    def begin(self, plan: TransferPlan, token: str) -> str:
        """Create the target and return its handle (an id or a file name).

        Idempotent: the same ``token`` finds what an earlier, killed call created. The caller
        journals the handle before the first ``put``.
        """

    @abstractmethod
    def resume(self, plan: TransferPlan, handle: str) -> None:
        """Take up a target from its handle; `ResourceGone` when it can no longer be written."""

    @abstractmethod
    def put(self, index: int, data: bytes | memoryview, digest: bytes) -> None:
        """Write one block of exactly BLOCK_BYTES with its SHA-256; putting again is harmless."""

    def put_run(self, first_index: int, data: bytes | memoryview, digests: Sequence[bytes]) -> None:
        """Write adjacent blocks in one request, at most ``traits.put_blocks`` of them.

        ``digests`` has the SHA-256 of each. Only asked of targets with ``put_blocks`` > 1.
        """
        view = memoryview(data)
        for number, digest in enumerate(digests):
            start = number * BLOCK_BYTES
            self.put(first_index + number, view[start : start + BLOCK_BYTES], digest)

    def take_from_parent(self, first_index: int, count: int) -> None:
        """Let adjacent blocks hold what the parent holds there, without sending it.

        Only asked where ``traits.starts_from_parent`` is false; at most ``put_blocks`` at once.
        """
        raise NotImplementedError(f"{type(self).__name__} starts from its parent")

    def lost(self, indexes: Collection[int]) -> set[int]:
        """Return which of these blocks, put by an earlier call, the target does not hold.

        Asked once after `resume`. A target that cannot be asked trusts the journal. Whoever knows
        the digests gives a mapping to them: some targets know blocks by nothing else.
        """
        return set[int]().intersection(indexes)

    def flush(self) -> None:
        """Make every block put so far durable; called before the journal counts them.

        Cloud targets are durable per put and need nothing here.
        """
        return

    @abstractmethod
    def commit(self, digests: Mapping[int, bytes]) -> str:
        """Seal the target; ``digests`` are all blocks ever put. Returns the final reference.

        May be called again after a crash between commit and record.
        """

    @abstractmethod
    def abort(self) -> None:
        """Remove what was begun; may be called twice, never removes a committed target."""

    def remarks(self) -> tuple[str, ...]:
        """Return sentences that whoever reads about the transfer should see, after `commit`."""
        return ()

    @abstractmethod
    def read_back(self, indexes: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Yield (index, BLOCK_BYTES of data) from the committed target.

        By another path than the one that wrote, where there is one.
        """

    @abstractmethod
    def close(self) -> None:
        """Release connections; may be called twice."""
