"""What becomes of blocks that were read: left alone, taken from the parent, or put."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial

from imageport.errors import CloudThrottled, ImageportError, LeaseLost, TransferCancelled
from imageport.model import BLOCK_BYTES, ZERO_BLOCK, ZERO_DIGEST
from imageport.transfer.block_groups import Group
from imageport.transfer.block_target import BlockTarget
from imageport.transfer.journal import Journal
from imageport.transfer.manifest import Manifest
from imageport.transfer.pacing import Pacer
from imageport.transfer.progress_count import ProgressCount
from imageport.transfer.retrying import Stop, retried


class Need(Enum):
    """What a block needs so that the target holds it."""

    NOTHING = auto()
    PARENT = auto()
    PUT = auto()


@dataclass(frozen=True, slots=True)
class Line:
    """What the threads of one transfer share."""

    target: BlockTarget
    journal: Journal
    parent: Manifest | None
    progress: ProgressCount
    stop: Stop
    pacer: Pacer
    doubted: frozenset[int] = frozenset()
    """Blocks that are put whatever the target seems to hold."""
    parent_gone: threading.Event = field(default_factory=threading.Event)
    """Set when the target could not take blocks from the parent; they are put from then on."""


@dataclass(slots=True)
class Run:
    """Adjacent blocks with the same need."""

    need: Need
    first_index: int
    digests: list[bytes]
    pieces: list[bytes]


class Sender:
    """One thread's way of bringing groups of blocks to the target."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._waited_seconds = 0.0
        base = line.parent if line.target.traits.starts_from_parent else None
        self._shown = base
        """What the target shows where nothing is put; None if it starts empty."""
        self._copyable = line.parent if base is None else None

    def send(self, group: Group) -> None:
        """Bring one group to the target and the journal; the group is empty afterwards."""
        run: Run | None = None
        for index, data in group:
            if data is None or data == ZERO_BLOCK:
                piece, digest = ZERO_BLOCK, ZERO_DIGEST
            else:
                piece, digest = data, hashlib.sha256(data).digest()
            need = self._need(index, digest)
            if run is not None and run.need is not need:
                self._carry_out(run)
                run = None
            if run is None:
                run = Run(need, index, [], [])
            run.digests.append(digest)
            run.pieces.append(piece)
        group.clear()
        if run is not None:
            self._carry_out(run)

    def _need(self, index: int, digest: bytes) -> Need:
        if index in self._line.doubted:
            return Need.PUT
        if digest == self._already_there(index):
            return Need.NOTHING
        # Zeros are as cheap to put as to take, and the parent may never have written them.
        if self._copyable is None or digest == ZERO_DIGEST or self._line.parent_gone.is_set():
            return Need.PUT
        return Need.PARENT if self._copyable.digest(index) == digest else Need.PUT

    def _already_there(self, index: int) -> bytes | None:
        """Return the digest of what the block reads as if it is not put; None if unknown."""
        if self._shown is not None:
            return self._shown.digest(index)
        return ZERO_DIGEST if self._line.target.traits.unwritten_reads_zero else None

    def _carry_out(self, run: Run) -> None:
        if run.need is Need.NOTHING:
            for number, digest in enumerate(run.digests):
                self._line.journal.add(run.first_index + number, digest, put=False)
                self._line.progress.done()
        elif run.need is Need.PUT or not self._took_from_parent(run):
            self._put(run)

    def _took_from_parent(self, run: Run) -> bool:
        if self._line.parent_gone.is_set():
            return False
        count = len(run.digests)
        try:
            self._repeated(
                partial(
                    self._in_turn,
                    0,
                    lambda _none: self._line.target.take_from_parent(run.first_index, count),
                )
            )
        except ImageportError as error:
            if error.retryable or isinstance(error, (TransferCancelled, LeaseLost)):
                raise
            # The source has it all: without the parent the transfer only takes longer.
            if not self._line.parent_gone.is_set():
                self._line.parent_gone.set()
                self._line.progress.note(f"unchanged blocks are sent, not copied: {error}")
            return False
        self._note_done(run.first_index, run.digests, copied=True)
        return True

    def _put(self, run: Run) -> None:
        data = run.pieces[0] if len(run.pieces) == 1 else b"".join(run.pieces)
        run.pieces.clear()
        done = 0
        while done < len(run.digests):
            count = self._repeated(partial(self._put_once, run, data, done))
            self._note_done(run.first_index + done, run.digests[done : done + count])
            done += count

    def _put_once(self, run: Run, data: bytes, done: int) -> int:
        """Put as many blocks behind the first ``done`` as the pacer allows; return how many."""

        def put(count: int) -> None:
            first, digests = run.first_index + done, run.digests[done : done + count]
            whole = count == len(run.digests)
            start = done * BLOCK_BYTES
            part = data if whole else memoryview(data)[start : start + count * BLOCK_BYTES]
            if count == 1:
                self._line.target.put(first, part, digests[0])
            else:
                self._line.target.put_run(first, part, digests)

        return self._in_turn(len(run.digests) - done, put)

    def _in_turn(self, blocks: int, request: Callable[[int], None]) -> int:
        """Make one request when the pacer lets it; return the blocks that it was allowed."""
        line = self._line
        throttled = succeeded = False
        turn = line.pacer.enter(blocks)
        self._waited_seconds += turn.waited_seconds
        try:
            if line.stop.is_set():
                raise TransferCancelled("Cannot put a block: the transfer was ended.")
            line.progress.requested()
            request(turn.blocks)
            succeeded = True
        except CloudThrottled:
            throttled = True
            raise
        finally:
            line.pacer.leave(turn, throttled=throttled, succeeded=succeeded)
        return turn.blocks

    def _repeated(self, call: Callable[[], int]) -> int:
        return retried(
            call,
            self._line.stop,
            on_retry=lambda _error: self._line.progress.retried(),
            waited=lambda: self._waited_seconds,
        )

    def _note_done(self, first_index: int, digests: list[bytes], *, copied: bool = False) -> None:
        for number, digest in enumerate(digests):
            self._line.journal.add(first_index + number, digest)
            self._line.progress.done(sent=not copied, copied=copied)
