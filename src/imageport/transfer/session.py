"""Beginning a transfer or taking it up again: journal and target brought to agree."""

from __future__ import annotations

import contextlib
import hashlib

from imageport.errors import FileLocked, ImageportError, LeaseHeld, ResourceGone
from imageport.transfer.block_target import BlockTarget, TargetTraits, TransferPlan
from imageport.transfer.journal import Journal, JournalHeader
from imageport.transfer.manifest import Manifest
from imageport.transfer.retrying import Stop, retried


def open_session(
    target: BlockTarget,
    journal: Journal,
    plan: TransferPlan,
    wanted: JournalHeader,
    stop: Stop,
) -> str:
    """Return what happened, in words; afterwards ``target`` takes puts and ``journal`` records.

    ``journal`` is loaded. `LeaseHeld` when another process still writes the target.
    A journal of another content of the source, or of another parent, belongs to a target that
    nobody will finish: it is removed and the transfer starts over.
    """
    found = journal.header
    if found is not None and same_transfer(found, wanted):
        try:
            retried(lambda: target.resume(plan, found.handle), stop)
            lost = retried(lambda: target.lost(journal.put), stop).intersection(journal.put)
        except ResourceGone:
            words = "the half-written target is gone; starting over"
        except FileLocked as error:
            raise LeaseHeld(
                f"Cannot resume '{found.handle}': another process is writing it."
            ) from error
        else:
            if not lost:
                return "resumed"
            journal.forget(sorted(lost))
            return f"resumed; the target lost {len(lost)} blocks, which are put again"
    elif found is not None:
        # What cannot be removed here is in the ledger and falls to the sweep.
        with contextlib.suppress(ImageportError):
            target.resume(plan, found.handle)
            target.abort()
        words = "the source changed since the last try; starting over"
    else:
        words = "started"
    handle = retried(lambda: target.begin(plan, wanted.token), stop)
    journal.start(
        JournalHeader(
            run_key=wanted.run_key,
            content_key=wanted.content_key,
            token=wanted.token,
            handle=handle,
            size_bytes=wanted.size_bytes,
            parent=wanted.parent,
        )
    )
    return words


def header_for(
    run_key: str,
    content_key: str,
    size_bytes: int,
    parent: Manifest | None,
    traits: TargetTraits,
) -> JournalHeader:
    """Return the header of a transfer that has no handle yet.

    The token covers the content, so that another content never lands in the same target, and the
    traits that decide which blocks are put: a journal of other traits has other gaps.
    """
    parent_digest = parent.image_digest() if parent else ""
    gaps = (
        traits.starts_from_parent,
        traits.unwritten_reads_zero,
        traits.fills_holes,
        traits.keeps_parent_zeros,
    )
    facts = [run_key, content_key, str(size_bytes), parent_digest]
    facts += ["".join("ny"[trait] for trait in gaps), traits.attributes.get("encrypted", "")]
    return JournalHeader(
        run_key=run_key,
        content_key=content_key,
        token=hashlib.sha256("\0".join(facts).encode()).hexdigest()[:40],
        handle="",
        size_bytes=size_bytes,
        parent=parent_digest,
    )


def same_transfer(found: JournalHeader, wanted: JournalHeader) -> bool:
    """Tell whether a journal belongs to exactly this transfer."""
    return (found.token, found.content_key, found.size_bytes, found.parent) == (
        wanted.token,
        wanted.content_key,
        wanted.size_bytes,
        wanted.parent,
    )
