"""The threads that hash and put blocks, and the one that makes the journal durable."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from imageport.model import BLOCK_BYTES
from imageport.transfer.block_groups import Block, BlockGroups, Group
from imageport.transfer.sending import Line, Sender

CHECKPOINT_SECONDS = 0.3
"""At most so much work is repeated after kill -9 (half a second is allowed)."""
END_SECONDS = 20.0
"""How long threads may take to end after a stop; requests of targets time out sooner."""
POLL_SECONDS = 0.2


class Workers:
    """Threads that take blocks; memory is bounded by the blocks that are let in at once."""

    def __init__(self, line: Line, memory_bytes: int) -> None:
        self._line = line
        traits = line.target.traits
        slots = max(2, memory_bytes // BLOCK_BYTES)
        # Half of the memory stays for blocks that are on their way while a group is still open.
        most_blocks = max(1, min(traits.put_blocks, slots // 2))
        self._slots = threading.Semaphore(slots)
        self._open = BlockGroups(traits.put_blocks, most_blocks)
        self._groups: queue.SimpleQueue[Group | None] = queue.SimpleQueue()
        count = max(traits.initial_in_flight, traits.max_in_flight, 1)
        self._threads = [
            threading.Thread(target=self._work, name=f"put-{number}", daemon=True)
            for number in range(min(count, max(2, slots // most_blocks)))
        ]
        self._checkpoints = threading.Thread(target=self._checkpoint, name="journal", daemon=True)
        self._finished = threading.Event()

    def start(self) -> None:
        """Start all threads."""
        for thread in (*self._threads, self._checkpoints):
            thread.start()

    def give(self, block: Block, poll: Callable[[], None]) -> None:
        """Hand over the next block; waits for room, calling ``poll``, which may raise."""
        while not self._slots.acquire(timeout=POLL_SECONDS):
            poll()
        for group in self._open.add(block):
            self._groups.put(group)

    def finish(self, poll: Callable[[], None]) -> None:
        """Wait until every block is put and journaled."""
        for group in self._open.close():
            self._groups.put(group)
        for _thread in self._threads:
            self._groups.put(None)
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
            self._groups.put(None)
        deadline = time.monotonic() + END_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        # Only now, so that the last journal records are of the last blocks.
        self._finished.set()
        self._checkpoints.join(max(0.0, deadline + END_SECONDS - time.monotonic()))

    def _work(self) -> None:
        sender = Sender(self._line)
        while (group := self._groups.get()) is not None:
            blocks = len(group)
            try:
                if not self._line.stop.is_set():
                    sender.send(group)
            # A thread's end has no caller: whatever it is stops the transfer and is raised there.
            except BaseException as error:
                self._line.stop.fail(error)
            finally:
                self._slots.release(blocks)

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
