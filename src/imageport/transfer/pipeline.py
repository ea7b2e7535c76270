"""One transfer of one disk: plan, read, hash, put, commit, verify; resumable at any point.

::

    source ── reader ── byte budget ── workers (hash, compare, put) ── target
                                          └── journal, every 0.3 s
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from imageport.errors import (
    ImageportError,
    LeaseLost,
    TransferCancelled,
    VerificationFailed,
)
from imageport.formats.gpt import Partition, read_layout
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import BLOCK_BYTES, MIB, TransferStats
from imageport.progress import EventSink, silent
from imageport.transfer.block_target import BlockTarget, TargetTraits, TransferPlan
from imageport.transfer.journal import Journal
from imageport.transfer.manifest import Manifest
from imageport.transfer.pacing import Pacer
from imageport.transfer.plan import make_plan, start_manifest
from imageport.transfer.progress_count import ProgressCount
from imageport.transfer.reader import BlockReader
from imageport.transfer.retrying import Stop, retried
from imageport.transfer.sending import Line
from imageport.transfer.session import header_for, open_session
from imageport.transfer.verify import VerifyLevel, verify
from imageport.transfer.workers import Workers

MEMORY_BYTES = 64 * MIB
"""Least memory for blocks: 128, enough for 64 puts of one block and the reads ahead of them."""
MOST_MEMORY_BYTES = 128 * MIB
"""32 puts of 4 MiB: more than that in flight gains less than the memory costs a small worker."""
CHECK_SOURCE_SECONDS = 30.0
POLL_SECONDS = 0.2
EFI_PARTITION = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"


def may_go_on_unless_refused(error: BaseException) -> bool:
    """Tell whether a later call may finish what this error ended.

    It may after a cancel, a lost lease, anything retryable, and anything that is no error of ours.
    """
    if not isinstance(error, ImageportError):
        return True
    return error.retryable or isinstance(error, (TransferCancelled, LeaseLost, VerificationFailed))


@dataclass(frozen=True, slots=True)
class Doubt:
    """What a call must know of earlier ones when the source was made anew in between.

    A disk that is composed again is the same but for a few blocks. All else that was put stands.
    """

    blocks: frozenset[int] = frozenset()
    """They may have been put with other content than they have now: they are put again whatever
    journal and parent say. The source must show them as DATA."""
    sealed: str = ""
    """What ``sealing`` was last called with. If it still is what the journal says, an earlier call
    had put everything: the target may be committed, and is whole as it is; nothing is put any
    more."""
    sealing: Callable[[str], None] = lambda _seal: None
    """Called when everything is put, before the target is committed; and with "" before anything
    is put to a target that an earlier seal does not fit. Durable when it returns."""
    settled: Callable[[], None] = lambda: None
    """Called when an ended transfer left no journal: nothing of it is in doubt any more."""


NO_DOUBT = Doubt()


@dataclass(frozen=True, slots=True)
class TransferRequest:
    """What the caller wants of one transfer."""

    journal: Journal
    token: str
    """Names the transfer: the same after a crash, another one for another target."""
    parent: Manifest | None = None
    """Manifest of the parent that ``target`` was made with."""
    verify: VerifyLevel = VerifyLevel.SAMPLE
    events: EventSink = silent
    stage: str = "upload"
    cancelled: Callable[[], bool] = lambda: False
    """Asked several times a second; may raise, which ends the transfer with that error."""
    memory_bytes: int = 0
    """For blocks; 0 = what keeps the target's declared puts in flight."""
    partitions: tuple[Partition, ...] | None = None
    """None = read them from the disk."""
    doubt: Doubt = NO_DOUBT
    may_go_on: Callable[[BaseException], bool] = may_go_on_unless_refused
    """The one rule on what an ended transfer leaves: false = target and journal are removed."""


@dataclass(frozen=True, slots=True)
class TransferResult:
    """What a transfer made."""

    reference: str
    manifest: Manifest
    stats: TransferStats
    verified: str
    """How far the copy was checked, in words."""


def transfer(source: VirtualDisk, target: BlockTarget, request: TransferRequest) -> TransferResult:
    """Bring ``source`` to ``target``, going on where an earlier call with this journal ended.

    After success the journal is kept until the caller has recorded the result and deletes it;
    until then a repeated call finds the committed target. After an error ``request.may_go_on``
    decides: journal and target are kept for a next call, or both are removed. Never closes
    ``source`` or ``target``.
    """
    running = _Transfer(source, target, request)
    try:
        return running.run()
    except BaseException as error:
        if running.opened and not request.may_go_on(error):
            # The first error is the one to report; the sweep takes what cannot be removed now.
            with contextlib.suppress(ImageportError):
                target.abort()
            with contextlib.suppress(ImageportError):
                request.journal.delete()
                request.doubt.settled()
        raise
    finally:
        request.journal.close()


def memory_for(traits: TargetTraits) -> int:
    """Return the bytes of blocks that keep the target's declared puts in flight."""
    in_flight = max(traits.initial_in_flight, traits.max_in_flight)
    wanted = in_flight * traits.put_blocks * BLOCK_BYTES
    return max(MEMORY_BYTES, min(MOST_MEMORY_BYTES, wanted))


class _Transfer:
    """The steps of one transfer and what they share."""

    def __init__(self, source: VirtualDisk, target: BlockTarget, request: TransferRequest) -> None:
        parent = request.parent
        if parent is not None and not target.traits.keeps_parent_zeros:
            request = replace(request, parent=parent.doubting_absent())
        self._source = source
        self._target = target
        self._request = request
        self._stop = Stop()
        self.opened = False
        """Journal and target are ours; before that they may be another process's."""
        self._polled = -math.inf  # the first block asks: who cancelled early waits for nothing
        self._checked = time.monotonic()
        self._partitions = request.partitions
        if self._partitions is None:
            self._partitions = read_layout(source).partitions

    def run(self) -> TransferResult:
        request, source = self._request, self._source
        source.check_unchanged()
        plan = make_plan(
            source, self._target.traits, parent=request.parent, partitions=self._partitions or ()
        )
        header = header_for(
            request.token,
            source.content_key(),
            source.size_bytes,
            request.parent,
            self._target.traits,
        )
        progress = ProgressCount(
            request.stage, request.events, len(plan.data_blocks) + len(plan.zero_blocks)
        )
        request.journal.load()
        self.opened = True
        progress.note(open_session(self._target, request.journal, plan, header, self._stop))
        bytes_read = 0 if self._is_whole() else self._put_all(plan, progress)
        source.check_unchanged()
        request.doubt.sealing(self._seal())
        reference = retried(lambda: self._target.commit(request.journal.put), self._stop)
        for sentence in self._target.remarks():
            progress.note(sentence)
        manifest = self._manifest(plan)
        stats = progress.stats(source.size_bytes, bytes_read)
        progress.finish(f"{reference}: {stats.bytes_sent} bytes sent")
        words = verify(
            self._target,
            manifest,
            request.verify,
            always=[part for part in self._partitions or () if part.type_guid == EFI_PARTITION],
            poll=self._poll,
            events=request.events,
        )
        return TransferResult(reference, manifest, stats, words)

    def _seal(self) -> str:
        """Return which target the journal is of, and how many blocks it says were put there."""
        journal = self._request.journal
        return f"{journal.header.handle if journal.header else ''} {len(journal.put)}"

    def _is_whole(self) -> bool:
        """Tell whether the target is what an earlier call sealed: it lost nothing since."""
        return self._request.doubt.sealed == self._seal()

    def _put_all(self, plan: TransferPlan, progress: ProgressCount) -> int:
        """Put what the journal does not have, and what is in doubt; return the bytes read."""
        journal, doubted = self._request.journal, self._request.doubt.blocks
        if self._request.doubt.sealed:
            self._request.doubt.sealing("")
        journal.forget(n for n in sorted(doubted) if n in journal.put or n in journal.same)
        progress.resumed(len(journal.put), len(journal.same))
        return self._move(plan, progress)

    def _move(self, plan: TransferPlan, progress: ProgressCount) -> int:
        journal = self._request.journal

        def is_done(index: int) -> bool:
            return index in journal.put or index in journal.same

        reader = BlockReader(self._source, is_done)
        line = Line(
            self._target,
            journal,
            self._request.parent,
            progress,
            self._stop,
            Pacer(self._target.traits, self._stop),
            doubted=self._request.doubt.blocks,
        )
        memory_bytes = self._request.memory_bytes or memory_for(self._target.traits)
        workers = Workers(line, memory_bytes)
        workers.start()
        try:
            for index, data in reader.blocks():
                self._poll()
                workers.give(index, data, self._poll)
            for index in plan.zero_blocks:
                self._poll()
                if not is_done(index):
                    workers.give(index, None, self._poll)
            workers.finish(self._poll)
        finally:
            workers.end()
        return reader.bytes_read

    def _poll(self) -> None:
        """Raise what ended the transfer, if anything did; cheap enough for every block."""
        if self._stop.error is not None:
            raise self._stop.error
        now = time.monotonic()
        if now - self._polled >= POLL_SECONDS:
            self._polled = now
            if self._request.cancelled():
                raise TransferCancelled(
                    f"Cannot finish the {self._request.stage} of '{self._source.location}': "
                    "it was cancelled.",
                    hint="Start it again when it is wanted.",
                )
        if now - self._checked >= CHECK_SOURCE_SECONDS:
            self._checked = now
            self._source.check_unchanged()

    def _manifest(self, plan: TransferPlan) -> Manifest:
        journal, parent = self._request.journal, self._request.parent
        manifest = start_manifest(self._source.size_bytes, self._target.traits, plan, parent)
        for index, digest in journal.put.items():
            manifest.set(index, digest)
        if parent is not None and self._target.traits.starts_from_parent:
            for index, digest in journal.same.items():
                if parent.is_written(index):
                    manifest.set(index, digest)
        return manifest


__all__ = ["TransferRequest", "TransferResult", "VerifyLevel", "transfer"]
