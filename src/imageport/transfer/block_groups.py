"""Adjacent blocks of an ordered stream put together, so that one request may carry them."""

from __future__ import annotations

Block = tuple[int, bytes | None]
"""Index and data; None stands for zeros that need no memory."""
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
        index, _data = block
        closed = [] if self._goes_on_with(index) else self.close()
        self._open.append(block)
        if len(self._open) == self._most_blocks or (index + 1) % self._put_blocks == 0:
            closed += self.close()
        return closed

    def close(self) -> list[Group]:
        """Return what is open, as the stream ends."""
        group, self._open = self._open, []
        return [group] if group else []

    def _goes_on_with(self, index: int) -> bool:
        return not self._open or self._open[-1][0] + 1 == index
