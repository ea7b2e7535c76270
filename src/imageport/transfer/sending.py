"""What becomes of blocks that were read: left alone, taken from the parent, or put."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from imageport.errors import CloudThrottled, ImageportError, LeaseLost, TransferCancelled
from imageport.model import BLOCK_BYTES, ZERO_BLOCK, ZERO_DIGEST
from imageport.transfer.block_groups import Block, Group
from imageport.transfer.block_target import BlockTarget
from imageport.transfer.hashed_once import HashedOnce
from imageport.transfer.journal import Journal
from imageport.transfer.needs import Need, Needs
from imageport.transfer.pacing import Pacer
from imageport.transfer.progress_count import ProgressCount
from imageport.transfer.retrying import Stop, retried


@dataclass(frozen=True, slots=True)
class Line:
    """What the threads of one transfer share."""

    target: BlockTarget
    journal: Journal
    needs: Needs
    progress: ProgressCount
    stop: Stop
    pacer: Pacer
    parent_gone: threading.Event = field(default_factory=threading.Event)
    """Set when the target could not take blocks from the parent; they are put from then on."""
    untaken: threading.Event = field(default_factory=threading.Event)
    """Set when such blocks had not been read: they are not done, and have to be read after all."""


@dataclass(slots=True)
class Run:
    """Adjacent blocks with the same need."""

    need: Need
    first_index: int
    digests: list[bytes]
    pieces: list[bytes | None]
    """None: not read."""


class Sender:
    """One thread's way of bringing groups of blocks to the target."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._waited_seconds = 0.0

    def send(self, group: Group) -> None:
        """Bring one group to the target and the journal; the group is empty afterwards."""
        run: Run | None = None
        for block in group:
            piece, digest = _content(block)
            need = self._need(block.index, piece, digest)
            if run is not None and run.need is not need:
                self._carry_out(run)
                run = None
            if run is None:
                run = Run(need, block.index, [], [])
            run.digests.append(digest)
            run.pieces.append(piece)
        group.clear()
        if run is not None:
            self._carry_out(run)

    def _need(self, index: int, piece: bytes | None, digest: bytes) -> Need:
        if piece is None:
            return Need.PARENT  # what else it could need was known before it was left unread
        copying = not self._line.parent_gone.is_set()
        return self._line.needs.of(index, digest, copying=copying)

    def _carry_out(self, run: Run) -> None:
        if run.need is Need.NOTHING:
            for number, digest in enumerate(run.digests):
                self._line.journal.add(run.first_index + number, digest, put=False)
                self._line.progress.done()
        elif run.need is Need.HELD:
            for _digest in run.digests:
                self._line.progress.done(resumed=True)
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
        pieces = [piece for piece in run.pieces if piece is not None]
        if len(pieces) < len(run.pieces):
            self._line.untaken.set()
            return
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
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


def _content(block: Block) -> tuple[bytes | None, bytes]:
    """Return what a block holds, None if that was not read, and its digest."""
    if block.data is None:
        if block.digest is None:
            raise ValueError(f"Bad block {block.index}: neither data nor digest are known.")
        return (ZERO_BLOCK if block.digest == ZERO_DIGEST else None), block.digest
    if block.digest is not None:
        return block.data, block.digest
    if isinstance(block.data, HashedOnce):
        digest = block.data.digest()
        return (ZERO_BLOCK if digest == ZERO_DIGEST else block.data), digest
    # Comparing costs a fiftieth of hashing, and much of every disk is zeros.
    if block.data == ZERO_BLOCK:
        return ZERO_BLOCK, ZERO_DIGEST
    return block.data, hashlib.sha256(block.data).digest()
