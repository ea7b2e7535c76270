"""Which blocks of a disk were written at all, in a byte a block."""

from __future__ import annotations

from imageport.model import BLOCK_BYTES


class TouchedBlocks:
    """Blocks of `BLOCK_BYTES`; 4 MiB for a disk of 2 TiB, where a set takes a hundred times that.

    Several threads may mark at once.
    """

    def __init__(self, size_bytes: int) -> None:
        self._marks = bytearray(-(-size_bytes // BLOCK_BYTES))

    def mark(self, offset_bytes: int, length_bytes: int) -> None:
        """Mark every block that a range inside the disk touches."""
        first, behind = (
            offset_bytes // BLOCK_BYTES,
            -(-(offset_bytes + length_bytes) // BLOCK_BYTES),
        )
        self._marks[first:behind] = b"\1" * (behind - first)

    def has(self, offset_bytes: int) -> bool:
        """Return whether the block around an offset was marked."""
        return bool(self._marks[offset_bytes // BLOCK_BYTES])
