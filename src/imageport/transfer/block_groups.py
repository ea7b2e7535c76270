"""Adjacent blocks of an ordered stream put together, so that one request may carry them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Block:
    """A block on its way to the target."""

    index: int
    data: bytes | None
    """None: it was not read, because it is zeros, or because the target's parent holds it."""
    digest: bytes | None = None
    """Its SHA-256; None if it has to be hashed. Always known where there is no data."""


Group = list[Block]
"""Adjacent blocks of one aligned run."""


class BlockGroups:
    """Closes a group when the next block is not adjacent, begins another run, or it is full.

    Holds at most ``most_blocks`` and never waits for a block that may not come.
    """

    def __init__(self, put_blocks: int, most_blocks: int) -> None:
        self._put_blocks = put_blocks
        self._most_blocks = max(1, min(put_blocks, most_blocks))
        self._open: Group = []

    def add(self, block: Block) -> list[Group]:
        """Take in the next block; return the groups that this closes."""
        closed = [] if self._goes_on_with(block.index) else self.close()
        self._open.append(block)
        full = len(self._open) == self._most_blocks
        if full or (block.index + 1) % self._put_blocks == 0:
            closed += self.close()
        return closed

    def close(self) -> list[Group]:
        """Return what is open, as the stream ends."""
        group, self._open = self._open, []
        return [group] if group else []

    def _goes_on_with(self, index: int) -> bool:
        return not self._open or self._open[-1].index + 1 == index
