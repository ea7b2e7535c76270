"""A transfer under way: what is the same whether its disk is read or arrives.

::

    blocks ── byte budget ── workers (hash, compare, put) ── target
                                └── journal, every 0.3 s
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from imageport.errors import ImageportError, TransferCancelled
from imageport.formats.gpt import Partition
from imageport.model import BLOCK_BYTES, MIB
from imageport.transfer.block_target import BlockTarget, TargetTraits, TransferPlan
from imageport.transfer.manifest import Manifest
from imageport.transfer.needs import Needs
from imageport.transfer.pacing import Pacer
from imageport.transfer.plan import start_manifest
from imageport.transfer.progress_count import ProgressCount
from imageport.transfer.request import TransferRequest, TransferResult
from imageport.transfer.retrying import Stop, retried
from imageport.transfer.sending import Line
from imageport.transfer.session import header_for, open_session
from imageport.transfer.verify import verify
from imageport.transfer.workers import Workers

MEMORY_BYTES = 64 * MIB
"""Least memory for blocks: 128, enough for 64 puts of one block and the reads ahead of them."""
MOST_MEMORY_BYTES = 128 * MIB
"""32 puts of 4 MiB: more than that in flight gains less than the memory costs a small worker."""
CHECK_SOURCE_SECONDS = 30.0
POLL_SECONDS = 0.2
EFI_PARTITION = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"


@dataclass(frozen=True, slots=True)
class Origin:
    """What the blocks of a transfer come from."""

    location: str
    size_bytes: int
    content_key: str
    check_unchanged: Callable[[], None] = lambda: None
    """Raises when it is no longer what it was; asked at the start, at intervals, at the end."""


class RunningTransfer:
    """Opens, polls, seals and verifies; whoever uses it gives the blocks.

    Life: inside `cleaned_up`, `open` → `workers`, as often as needed → `seal`.
    """

    def __init__(self, origin: Origin, target: BlockTarget, request: TransferRequest) -> None:
        if request.parent is not None and not target.traits.keeps_parent_zeros:
            request = replace(request, parent=request.parent.doubting_absent())
        self.origin = origin
        self.target = target
        self.request = request
        self.needs = Needs(
            target.traits, request.parent, request.journal, doubted=request.doubt.blocks
        )
        self.progress: ProgressCount
        self.line: Line
        self._stop = Stop()
        self._opened = False  # before that, journal and target may be another process's
        self._polled = -math.inf  # the first block asks: who cancelled early waits for nothing
        self._checked = time.monotonic()

    @contextlib.contextmanager
    def cleaned_up(self) -> Iterator[None]:
        """Leave after an error what ``request.may_go_on`` wants to be left; close the journal."""
        request = self.request
        try:
            yield
        except BaseException as error:
            if self._opened and not request.may_go_on(error):
                # The first error is the one to report; the sweep takes what cannot be removed now.
                with contextlib.suppress(ImageportError):
                    self.target.abort()
                with contextlib.suppress(ImageportError):
                    request.journal.delete()
                    request.doubt.settled()
            raise
        finally:
            request.journal.close()

    def open(self, plan: TransferPlan, blocks_planned: int) -> None:
        """Begin or take up journal and target; afterwards ``line`` and ``progress`` are there."""
        request, origin = self.request, self.origin
        header = header_for(
            request.token,
            origin.content_key,
            origin.size_bytes,
            request.parent,
            self.target.traits,
        )
        self.progress = ProgressCount(request.stage, request.events, blocks_planned)
        request.journal.load()
        self._opened = True
        self.progress.note(open_session(self.target, request.journal, plan, header, self._stop))
        self.line = Line(
            self.target,
            request.journal,
            self.needs,
            self.progress,
            self._stop,
            Pacer(self.target.traits, self._stop),
        )

    @contextlib.contextmanager
    def workers(self) -> Iterator[Workers]:
        """Run the threads that take blocks; when it ends well, all of them are journaled."""
        memory_bytes = self.request.memory_bytes or memory_for(self.target.traits)
        workers = Workers(self.line, memory_bytes)
        workers.start()
        try:
            yield workers
            workers.finish(self.poll)
        except BaseException:
            # Not after a good end: what follows, another round or the commit, has the same stop.
            workers.end()
            raise

    def poll(self) -> None:
        """Raise what ended the transfer, if anything did; cheap enough for every block."""
        if self._stop.error is not None:
            raise self._stop.error
        now = time.monotonic()
        if now - self._polled >= POLL_SECONDS:
            self._polled = now
            if self.request.cancelled():
                raise TransferCancelled(
                    f"Cannot finish the {self.request.stage} of '{self.origin.location}': "
                    "it was cancelled.",
                    hint="Start it again when it is wanted.",
                )
        if now - self._checked >= CHECK_SOURCE_SECONDS:
            self._checked = now
            self.origin.check_unchanged()

    def note(self, sentence: str) -> None:
        """Say one sentence, once it is open."""
        self.progress.note(sentence)

    def journal_seal(self) -> str:
        """Return which target the journal is of, and how many blocks it says were put there."""
        journal = self.request.journal
        return f"{journal.header.handle if journal.header else ''} {len(journal.put)}"

    def seal(
        self, plan: TransferPlan, bytes_read: int, partitions: Sequence[Partition]
    ) -> TransferResult:
        """Commit what was put, and verify it."""
        request, progress = self.request, self.progress
        self.origin.check_unchanged()
        request.doubt.sealing(self.journal_seal())
        reference = retried(lambda: self.target.commit(request.journal.put), self._stop)
        for sentence in self.target.remarks():
            progress.note(sentence)
        manifest = self._manifest(plan)
        stats = progress.stats(self.origin.size_bytes, bytes_read)
        progress.finish(f"{reference}: {stats.bytes_sent} bytes sent")
        words = verify(
            self.target,
            manifest,
            request.verify,
            always=[part for part in partitions if part.type_guid == EFI_PARTITION],
            poll=self.poll,
            events=request.events,
        )
        return TransferResult(reference, manifest, stats, words)

    def _manifest(self, plan: TransferPlan) -> Manifest:
        journal, parent = self.request.journal, self.request.parent
        manifest = start_manifest(self.origin.size_bytes, self.target.traits, plan, parent)
        for index, digest in journal.put.items():
            manifest.set(index, digest)
        if parent is not None and self.target.traits.starts_from_parent:
            for index, digest in journal.same.items():
                if parent.is_written(index):
                    manifest.set(index, digest)
        return manifest


def memory_for(traits: TargetTraits) -> int:
    """Return the bytes of blocks that keep the target's declared puts in flight."""
    in_flight = max(traits.initial_in_flight, traits.max_in_flight)
    wanted = in_flight * traits.put_blocks * BLOCK_BYTES
    return max(MEMORY_BYTES, min(MOST_MEMORY_BYTES, wanted))
