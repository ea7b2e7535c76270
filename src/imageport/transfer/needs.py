"""What a block needs so that the target holds it: nothing, its parent's content, or a put."""

from __future__ import annotations

from enum import Enum, auto

from imageport.model import ZERO_DIGEST
from imageport.transfer.block_target import TargetTraits
from imageport.transfer.journal import Journal
from imageport.transfer.manifest import Manifest


class Need(Enum):
    """What a block needs so that the target holds it."""

    NOTHING = auto()
    """The target shows this content where nothing is put."""
    HELD = auto()
    """It was put, by this call or by an earlier one."""
    PARENT = auto()
    PUT = auto()


class Needs:
    """Decides by digest, for all threads of one transfer."""

    def __init__(
        self,
        traits: TargetTraits,
        parent: Manifest | None,
        journal: Journal,
        doubted: frozenset[int] = frozenset(),
    ) -> None:
        """``doubted``: blocks that are put whatever the target seems to hold."""
        self.doubted = doubted
        self._journal = journal
        self._reads_zero = traits.unwritten_reads_zero
        self._shown = parent if traits.starts_from_parent else None
        """What the target shows where nothing is put; None if it starts empty."""
        self._copyable = None if traits.starts_from_parent else parent

    def of(self, index: int, digest: bytes, *, copying: bool) -> Need:
        """Return what a block of this content needs.

        ``copying``: the target still takes blocks from its parent.
        """
        if index in self.doubted:
            return Need.PUT
        held = self._journal.put.get(index)
        if held is not None:
            return Need.HELD if held == digest else Need.PUT
        if digest == self._already_there(index):
            return Need.NOTHING
        # Zeros are as cheap to put as to take, and the parent may never have written them.
        if self._copyable is None or digest == ZERO_DIGEST or not copying:
            return Need.PUT
        return Need.PARENT if self._copyable.digest(index) == digest else Need.PUT

    def _already_there(self, index: int) -> bytes | None:
        """Return the digest of what the block reads as if it is not put; None if unknown."""
        if self._shown is not None:
            return self._shown.digest(index)
        return ZERO_DIGEST if self._reads_zero else None
