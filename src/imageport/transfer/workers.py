"""The threads that hash and put blocks, and the one that makes the journal durable."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from imageport.errors import CloudThrottled, ImageportError, TransferCancelled
from imageport.model import BLOCK_BYTES, ZERO_BLOCK, ZERO_DIGEST
from imageport.transfer.block_target import BlockTarget
from imageport.transfer.journal import Journal
from imageport.transfer.manifest import Manifest
from imageport.transfer.pacing import Pacer
from imageport.transfer.progress_count import ProgressCount
from imageport.transfer.retrying import Stop, retried

CHECKPOINT_SECONDS = 0.3
"""At most so much work is repeated after kill -9 (half a second is allowed)."""
END_SECONDS = 20.0
"""How long threads may take to end after a stop; requests of targets time out sooner."""
POLL_SECONDS = 0.2

Block = tuple[int, bytes | None]
"""Index and data; None stands for zeros that need no memory."""


@dataclass(frozen=True, slots=True)
class Line:
    """What the threads of one transfer share."""

    target: BlockTarget
    journal: Journal
    parent: Manifest | None
    progress: ProgressCount
    stop: Stop
    pacer: Pacer


class Workers:
    """Threads that take blocks; memory is bounded by the blocks that are let in at once."""

    def __init__(self, line: Line, memory_bytes: int) -> None:
        self._line = line
        self._slots = threading.Semaphore(max(2, memory_bytes // BLOCK_BYTES))
        self._blocks: queue.SimpleQueue[Block | None] = queue.SimpleQueue()
        count = max(line.target.traits.initial_in_flight, line.target.traits.max_in_flight, 1)
        self._threads = [
            threading.Thread(target=self._work, name=f"put-{number}", daemon=True)
            for number in range(min(count, max(2, memory_bytes // BLOCK_BYTES)))
        ]
        self._checkpoints = threading.Thread(target=self._checkpoint, name="journal", daemon=True)
        self._finished = threading.Event()

    def start(self) -> None:
        """Start all threads."""
        for thread in (*self._threads, self._checkpoints):
            thread.start()

    def give(self, index: int, data: bytes | None, poll: Callable[[], None]) -> None:
        """Hand over one block; waits for room. ``poll`` is called while waiting and may raise."""
        while not self._slots.acquire(timeout=POLL_SECONDS):
            poll()
        self._blocks.put((index, data))

    def finish(self, poll: Callable[[], None]) -> None:
        """Wait until every block is put and journaled."""
        for _thread in self._threads:
            self._blocks.put(None)
        for thread in self._threads:
            while thread.is_alive():
                thread.join(POLL_SECONDS)
                poll()
        self._finished.set()
        while self._checkpoints.is_alive():
            self._checkpoints.join(POLL_SECONDS)
            poll()
        poll()

    def end(self) -> None:
        """Stop all threads; keeps what the target has in the journal where that is possible."""
        self._line.stop.end()
        for _thread in self._threads:
            self._blocks.put(None)
        deadline = time.monotonic() + END_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        # Only now, so that the last journal records are of the last blocks.
        self._finished.set()
        self._checkpoints.join(max(0.0, deadline + END_SECONDS - time.monotonic()))

    def _work(self) -> None:
        while (block := self._blocks.get()) is not None:
            try:
                if not self._line.stop.is_set():
                    self._handle(*block)
            # A thread's end has no caller: whatever it is stops the transfer and is raised there.
            except BaseException as error:
                self._line.stop.fail(error)
            finally:
                self._slots.release()

    def _handle(self, index: int, data: bytes | None) -> None:
        line = self._line
        if data is None or data == ZERO_BLOCK:
            data, digest = ZERO_BLOCK, ZERO_DIGEST
        else:
            digest = hashlib.sha256(data).digest()
        needed = digest != self._already_there(index)
        if needed:
            retried(lambda: self._put(index, data, digest), line.stop, on_retry=self._note_retry)
        line.journal.add(index, digest, put=needed)
        line.progress.done(sent=needed)

    def _already_there(self, index: int) -> bytes | None:
        """Return the digest of what the block reads as if it is not put; None if unknown."""
        if self._line.parent is not None:
            return self._line.parent.digest(index)
        return ZERO_DIGEST if self._line.target.traits.unwritten_reads_zero else None

    def _put(self, index: int, data: bytes, digest: bytes) -> None:
        line = self._line
        throttled = succeeded = False
        line.pacer.enter()
        try:
            if line.stop.is_set():
                raise TransferCancelled("Cannot put a block: the transfer was ended.")
            line.progress.requested()
            line.target.put(index, data, digest)
            succeeded = True
        except CloudThrottled:
            throttled = True
            raise
        finally:
            line.pacer.leave(throttled=throttled, succeeded=succeeded)

    def _note_retry(self, _error: ImageportError) -> None:
        self._line.progress.retried()

    def _checkpoint(self) -> None:
        try:
            while not self._finished.wait(CHECKPOINT_SECONDS):
                self._make_durable()
            self._make_durable()
        # As in _work: a journal that cannot be written ends the transfer.
        except BaseException as error:
            self._line.stop.fail(error)

    def _make_durable(self) -> None:
        records = self._line.journal.take()
        if records:
            # First the blocks, then the records that say so.
            self._line.target.flush()
            self._line.journal.write(records)
