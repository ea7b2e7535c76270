"""What a caller wants of one transfer, and what it gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from imageport.errors import ImageportError, LeaseLost, TransferCancelled, VerificationFailed
from imageport.formats.gpt import Partition
from imageport.model import TransferStats
from imageport.progress import EventSink, silent
from imageport.transfer.journal import Journal
from imageport.transfer.manifest import Manifest
from imageport.transfer.verify import VerifyLevel


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
    journal, parent and known digests say. The source must show them as DATA."""
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
    known: Manifest | None = None
    """Digests of the source's own blocks, as far as they are known; as large as the source.

    A block whose digest is None is read and hashed. What is known is not hashed, and not even read
    where the target has it, or can take it from its parent. One known in part only is made with
    ``absent_reads_zero=False``. Whoever gives it answers for it: a wrong digest is found by targets
    that check what they are given, and by reading back."""
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
    received: str = ""
    """How far what arrived was checked against what was sent, in words; of streams only."""
