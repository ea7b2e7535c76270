"""What has to be put: extents, the parent's manifest and the target's traits, block by block.

HOLE (never allocated), ZERO (the guest relies on zeros) and DATA stay three things until here:

=====  ============================================  ==========================================
state  without a parent                              with a parent
=====  ============================================  ==========================================
HOLE   put zeros inside a partition, only where the  put zeros where the parent holds data (its
       target fills holes (it is encrypted)          old data would show) or garbage as before
ZERO   put zeros where an unwritten block may read   put zeros unless the parent holds zeros
       as garbage
DATA   read; put unless the target has it anyway     read; put if the digest differs
=====  ============================================  ==========================================

A block that holds several states counts as the strongest: DATA, then ZERO, then HOLE.
A target that does not start from its parent is planned as one without: what it can take from there
shows when the data is read.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Protocol

from imageport.errors import InputError
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import BLOCK_BYTES, ZERO_DIGEST, ExtentState
from imageport.transfer.block_target import TargetTraits, TransferPlan
from imageport.transfer.manifest import Manifest

_STRENGTH = {ExtentState.HOLE: 0, ExtentState.ZERO: 1, ExtentState.DATA: 2}
_STATES = (ExtentState.HOLE, ExtentState.ZERO, ExtentState.DATA)


class PartitionRange(Protocol):
    """Where a partition lies."""

    @property
    def first_byte(self) -> int:
        """Return its first byte."""

    @property
    def length_bytes(self) -> int:
        """Return its length."""


def make_plan(
    disk: VirtualDisk,
    traits: TargetTraits,
    *,
    parent: Manifest | None = None,
    partitions: Sequence[PartitionRange] = (),
) -> TransferPlan:
    """Return what to read and what to write as zeros; reads no data.

    Without partitions the whole disk counts as one. `InputError` when the parent is larger than
    the disk: no cloud makes a smaller child.
    """
    if parent is not None and parent.size_bytes > disk.size_bytes:
        raise InputError(
            f"Cannot compare '{disk.location}' with its parent: found a parent of "
            f"{parent.size_bytes} bytes, needed at most {disk.size_bytes}."
        )
    parent = parent if traits.starts_from_parent else None
    inside = _PartitionBlocks(partitions)
    data_blocks, zero_blocks = array("L"), array("L")
    for first, end, state in block_runs(disk):
        if state is ExtentState.DATA:
            data_blocks.extend(range(first, end))
        elif parent is not None or not traits.unwritten_reads_zero:
            zero_blocks.extend(
                index
                for index in range(first, end)
                if _shows_other_than_zeros(index, parent)
                and (
                    state is ExtentState.ZERO
                    or (traits.fills_holes and inside.contains(index))
                    or _holds(parent, index)
                )
            )
    return TransferPlan(disk.size_bytes, data_blocks, zero_blocks, _data_bytes(disk))


def start_manifest(
    size_bytes: int, traits: TargetTraits, plan: TransferPlan, parent: Manifest | None
) -> Manifest:
    """Return the manifest of the result as far as it is known before anything is read."""
    parent = parent if traits.starts_from_parent else None
    reads_zero = traits.unwritten_reads_zero
    if parent is not None:
        grows = parent.size_bytes < size_bytes
        reads_zero = parent.absent_reads_zero and (reads_zero or not grows)
    manifest = Manifest(size_bytes, absent_reads_zero=reads_zero)
    if parent is not None:
        for index, digest in parent.digests.items():
            manifest.set(index, digest)
    for index in plan.zero_blocks:
        manifest.set(index, ZERO_DIGEST)
    return manifest


def block_runs(disk: VirtualDisk) -> Iterator[tuple[int, int, ExtentState]]:
    """Yield (first block, block behind the last, strongest state), ascending, without gaps."""
    pending, strength = -1, 0
    for extent in disk.extents():
        if extent.length_bytes <= 0:
            continue
        here = _STRENGTH[extent.state]
        first = extent.offset_bytes // BLOCK_BYTES
        end, rest = divmod(extent.end_bytes, BLOCK_BYTES)
        if pending == first:
            strength = max(strength, here)
            if end == first:
                continue
            yield first, first + 1, _STATES[strength]
            first += 1
            pending = -1
        if first < end:
            yield first, end, extent.state
        if rest:
            pending, strength = end, here
    if pending >= 0:
        yield pending, pending + 1, _STATES[strength]


def _shows_other_than_zeros(index: int, parent: Manifest | None) -> bool:
    return parent is None or parent.digest(index) != ZERO_DIGEST


def _holds(parent: Manifest | None, index: int) -> bool:
    return parent is not None and parent.is_written(index)


def _data_bytes(disk: VirtualDisk) -> int:
    return sum(extent.length_bytes for extent in disk.extents() if extent.state is ExtentState.DATA)


class _PartitionBlocks:
    """Tells whether a block touches a partition; asked in ascending order."""

    def __init__(self, partitions: Sequence[PartitionRange]) -> None:
        self._everywhere = not partitions
        self._ranges = sorted(
            (p.first_byte // BLOCK_BYTES, -(-(p.first_byte + p.length_bytes) // BLOCK_BYTES))
            for p in partitions
        )

    def contains(self, index: int) -> bool:
        return self._everywhere or any(first <= index < end for first, end in self._ranges)
