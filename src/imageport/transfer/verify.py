"""Reading back what was written, and saying in words how far that went.

Levels: what the server checked per block (L0), the aggregate at commit (L1), a sample read back
(L2), everything read back (L3). Only L2 and L3 may be called verified.
"""

from __future__ import annotations

import hashlib
import random
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum

from imageport.errors import VerificationFailed
from imageport.model import BLOCK_BYTES, MIB, ZERO_BLOCK, ZERO_DIGEST
from imageport.progress import EventSink, Stage, silent
from imageport.transfer.block_target import BlockTarget
from imageport.transfer.manifest import Manifest
from imageport.transfer.plan import PartitionRange
from imageport.transfer.retrying import RetryPolicy, Stop, retried

SAMPLE_BLOCKS = 4603
"""Damage to one block in a thousand then stays unseen once in a hundred: ln(0.01)/ln(0.999)."""
BATCH_BLOCKS = 256
_MOST_BATCH_BLOCKS = 16384
"""8 GiB. What is open of a batch is kept as a set, here of 1.5 MiB."""
_BATCH_SECONDS = 1.0
"""Batches grow until they take as long: each opens the target anew, which for a VHD of 2040 GiB
takes 0.3 s, and between them ``poll`` is called."""


class VerifyLevel(StrEnum):
    """How far a transfer is verified."""

    SERVER_CHECKSUM = "L0"
    AGGREGATE = "L1"
    SAMPLE = "L2"
    FULL = "L3"


_WORDS = {
    VerifyLevel.SERVER_CHECKSUM: "not read back; the target checked each block's checksum (L0)",
    VerifyLevel.AGGREGATE: "not read back; the target checked each block and their sum (L1)",
}


def verify(
    target: BlockTarget,
    manifest: Manifest,
    level: VerifyLevel,
    *,
    always: Sequence[PartitionRange] = (),
    poll: Callable[[], None] = lambda: None,
    events: EventSink = silent,
) -> str:
    """Read back what ``level`` asks for and return what was done, in words.

    ``always`` are ranges that no sample may miss (the EFI partition). `VerificationFailed` names
    the blocks that differ. ``poll`` is called between batches and may raise.
    """
    if level in _WORDS or not target.traits.verify_by_read_back:
        return _WORDS.get(level, _WORDS[VerifyLevel.AGGREGATE])
    known = _readable(manifest)
    chosen = known if level is VerifyLevel.FULL else _sample(manifest, always)
    stage = Stage("verify", events, total=len(chosen) * BLOCK_BYTES)
    for batch in _batches(chosen):
        poll()
        check_blocks(target.read_back, manifest, batch)
        stage.advance(len(batch) * BLOCK_BYTES)
    words = _describe(level, len(chosen), len(known))
    stage.finish(words)
    return words


def check_blocks(
    read_back: Callable[[Iterable[int]], Iterable[tuple[int, bytes]]],
    manifest: Manifest,
    indexes: Sequence[int],
    *,
    policy: RetryPolicy | None = None,
) -> None:
    """Compare blocks with the manifest; `VerificationFailed` names those that differ."""
    open_blocks = set(indexes)

    def attempt() -> None:
        for index, data in read_back(sorted(open_blocks)):
            if _digest(data) == manifest.digest(index):
                open_blocks.discard(index)

    retried(attempt, Stop(), policy=policy)
    if wrong := sorted(open_blocks):
        some = ", ".join(str(index) for index in wrong[:8])
        raise VerificationFailed(
            f"Bad copy: found {len(wrong)} of {len(indexes)} blocks that differ from what was "
            f"sent (blocks of {BLOCK_BYTES} bytes: {some}), needed none.",
            blocks=wrong[:100],
        )


def _digest(data: bytes) -> bytes:
    # Comparing costs a fiftieth of hashing, and much of every disk is zeros.
    return ZERO_DIGEST if data == ZERO_BLOCK else hashlib.sha256(data).digest()


def _batches(chosen: Sequence[int]) -> Iterator[Sequence[int]]:
    """Cut into batches that take about a second."""
    start, count = 0, BATCH_BLOCKS
    while start < len(chosen):
        began = time.monotonic()
        yield chosen[start : start + count]
        start += count
        was_quick = time.monotonic() - began < _BATCH_SECONDS / 2
        if was_quick:
            count = min(2 * count, _MOST_BATCH_BLOCKS)
        elif time.monotonic() - began > 2 * _BATCH_SECONDS:
            count = max(count // 2, BATCH_BLOCKS)


def _readable(manifest: Manifest) -> Sequence[int]:
    """Return the blocks whose content is determined."""
    if manifest.absent_reads_zero:
        return range(manifest.block_count)
    return array("L", manifest.written())


def _sample(manifest: Manifest, always: Sequence[PartitionRange]) -> list[int]:
    edge = MIB // BLOCK_BYTES
    must = set(range(edge)) | set(range(manifest.block_count - edge, manifest.block_count))
    for part in always:
        end = -(-(part.first_byte + part.length_bytes) // BLOCK_BYTES)
        # Absent blocks of a partition hold nothing that could have been damaged on the way.
        must |= {
            index
            for index in range(part.first_byte // BLOCK_BYTES, end)
            if manifest.is_written(index)
        }
    written = array("L", manifest.written())
    count = min(SAMPLE_BLOCKS, len(written))
    must |= set(random.sample(written, count))
    return sorted(index for index in must if index >= 0 and manifest.digest(index) is not None)


def _describe(level: VerifyLevel, checked: int, known: int) -> str:
    if level is VerifyLevel.FULL or checked == known:
        return f"read back in full: {checked:,} blocks compared (L3)"
    return (
        f"sample read back: {checked:,} of {known:,} blocks compared, among them the first and "
        "last MiB, the partition tables and the EFI partition (L2)"
    )
