"""One transfer of one disk: plan, read, hash, put, commit, verify; resumable at any point.

::

    source ── reader ── byte budget ── workers (hash, compare, put) ── target
                                          └── journal, every 0.3 s
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from heapq import merge
from operator import attrgetter

from imageport.formats.gpt import read_layout
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import ZERO_DIGEST
from imageport.transfer.block_groups import Block
from imageport.transfer.block_target import BlockTarget, TransferPlan
from imageport.transfer.known_blocks import KnownBlocks, check_known
from imageport.transfer.needs import Need
from imageport.transfer.plan import make_plan
from imageport.transfer.reader import BlockReader
from imageport.transfer.request import NO_DOUBT, Doubt, TransferRequest, TransferResult
from imageport.transfer.running import Origin, RunningTransfer
from imageport.transfer.shared_reading import SharedView
from imageport.transfer.verify import VerifyLevel


def transfer(source: VirtualDisk, target: BlockTarget, request: TransferRequest) -> TransferResult:
    """Bring ``source`` to ``target``, going on where an earlier call with this journal ended.

    After success the journal is kept until the caller has recorded the result and deletes it;
    until then a repeated call finds the committed target. After an error ``request.may_go_on``
    decides: journal and target are kept for a next call, or both are removed. Never closes
    ``source`` or ``target``.
    """
    partitions = request.partitions
    if partitions is None:
        partitions = read_layout(source).partitions
    origin = Origin(
        source.location, source.size_bytes, source.content_key(), source.check_unchanged
    )
    running = RunningTransfer(origin, target, request)
    with running.cleaned_up(), _used(source, running):
        check_known(request.known, source.size_bytes, source.location)
        source.check_unchanged()
        parent = running.request.parent
        plan = make_plan(source, target.traits, parent=parent, partitions=partitions)
        running.open(plan, len(plan.data_blocks) + len(plan.zero_blocks))
        bytes_read = _Reading(source, running, plan).run()
        return running.seal(plan, bytes_read, partitions)


def _used(source: VirtualDisk, running: RunningTransfer) -> AbstractContextManager[None]:
    """Let a source that waits for other transfers ask this one whether it still wants to."""
    if isinstance(source, SharedView):
        return source.in_use(running.poll, running.note)
    return nullcontext()


class _Reading:
    """Gives the blocks of a disk to a running transfer."""

    def __init__(self, source: VirtualDisk, running: RunningTransfer, plan: TransferPlan) -> None:
        self._source = source
        self._running = running
        self._plan = plan
        self._journal = running.request.journal

    def run(self) -> int:
        """Put what the journal does not have, and what is in doubt; return the bytes read."""
        doubt, journal = self._running.request.doubt, self._journal
        if doubt.sealed == self._running.journal_seal():
            return 0  # an earlier call sealed it, and it lost nothing since
        if doubt.sealed:
            doubt.sealing("")
        journal.forget(n for n in sorted(doubt.blocks) if n in journal.put or n in journal.same)
        self._running.progress.resumed(len(journal.put), len(journal.same))
        bytes_read = self._give_all()
        if self._running.line.untaken.is_set():
            # The parent went away when blocks were to be taken from it that nobody had read.
            bytes_read += self._give_all()
        return bytes_read

    def _give_all(self) -> int:
        """Give what is not done yet; return the bytes read."""
        running = self._running
        copying = not running.line.parent_gone.is_set()
        known = KnownBlocks(running.request.known, running.needs, copying=copying)

        def is_skipped(index: int) -> bool:
            running.poll()
            return self._is_done(index) or known.unread(index) is not None

        reader = BlockReader(self._source, is_skipped)
        read = (Block(index, data, known.digest(index)) for index, data in reader.blocks())
        unread = self._unread(self._plan.data_blocks, known)
        with running.workers() as workers:
            for block in merge(read, unread, key=attrgetter("index")):
                running.poll()
                workers.give(block, running.poll)
            for index in self._plan.zero_blocks:
                running.poll()
                if not self._is_done(index):
                    workers.give(Block(index, None, ZERO_DIGEST), running.poll)
        return reader.bytes_read

    def _unread(self, data_blocks: Iterable[int], known: KnownBlocks) -> Iterator[Block]:
        """Note the blocks that need nothing, and yield those that need something but no reading."""
        for index in data_blocks:
            self._running.poll()
            if self._is_done(index) or (found := known.unread(index)) is None:
                continue
            need, digest = found
            if need is Need.NOTHING:
                self._journal.add(index, digest, put=False)
                self._running.progress.done()
            else:
                yield Block(index, None, digest)

    def _is_done(self, index: int) -> bool:
        return index in self._journal.put or index in self._journal.same


__all__ = [
    "NO_DOUBT",
    "Doubt",
    "TransferRequest",
    "TransferResult",
    "VerifyLevel",
    "transfer",
]
