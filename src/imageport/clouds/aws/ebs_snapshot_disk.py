"""A completed EBS snapshot as a disk: what publishing reads, without any machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from imageport.clouds.aws.account import Account
from imageport.clouds.aws.block_client import BlockClient
from imageport.clouds.aws.snapshot_blocks import SnapshotBlocks
from imageport.clouds.aws.snapshots import describe_snapshot
from imageport.errors import InputError, ResourceGone
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import BLOCK_BYTES, GIB, ZERO_BLOCK, Extent, ExtentState


class EbsSnapshotDisk(VirtualDisk):
    """Stored blocks are DATA, everything else is HOLE; EBS knows no third state.

    The size is that of the volume: whole GiB, at least the size of the image that was uploaded.
    """

    format_name = "ebs-snapshot"
    sector_bytes = 512

    def __init__(self, account: Account, snapshot_id: str) -> None:
        facts = describe_snapshot(account, snapshot_id)
        if facts is None or facts.state != "completed":
            found = "none" if facts is None else facts.state
            raise ResourceGone(
                f"Bad snapshot '{snapshot_id}': found state {found}, needed completed."
            )
        self.location = f"ebs:{account.settings.region}/{snapshot_id}"
        self._size_bytes = facts.volume_gib * GIB
        self._account = account
        self._snapshot_id = snapshot_id
        self._blocks = SnapshotBlocks(BlockClient(account.clients), snapshot_id)

    @property
    def size_bytes(self) -> int:
        """Return the size of the volume."""
        return self._size_bytes

    def extents(self) -> Iterator[Extent]:
        """Yield extents from the block list, page by page."""
        start = end = 0
        for page in self._blocks.pages():
            for index in page.tokens:
                offset = index * BLOCK_BYTES
                if offset != end:
                    if end > start:
                        yield Extent(start, end - start, ExtentState.DATA)
                    yield Extent(end, offset - end, ExtentState.HOLE)
                    start = offset
                end = offset + BLOCK_BYTES
        if end > start:
            yield Extent(start, end - start, ExtentState.DATA)
        if end < self._size_bytes:
            yield Extent(end, self._size_bytes - end, ExtentState.HOLE)

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Read the blocks that the range touches."""
        pieces = [data for _, data in self.read_many([(offset_bytes, length_bytes)])]
        return b"".join(pieces)

    def read_many(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        """Yield pieces of at most one block, in order, reading ahead with several threads."""
        wanted: list[tuple[int, int]] = []

        def indexes() -> Iterator[int]:
            for offset, length in ranges:
                self._check_range(offset, length)
                place = offset
                while place < offset + length:
                    index = place // BLOCK_BYTES
                    stop = min(offset + length, (index + 1) * BLOCK_BYTES)
                    wanted.append((place, stop))
                    yield index
                    place = stop

        for index, block in self._blocks.read_many(indexes()):
            place, stop = wanted.pop(0)
            base = index * BLOCK_BYTES
            data = ZERO_BLOCK if block is None else block
            whole = stop - place == BLOCK_BYTES
            yield place, data if whole else data[place - base : stop - base]

    def content_key(self) -> str:
        """Return the snapshot's id: a snapshot never changes."""
        return self.location

    def check_unchanged(self) -> None:
        """Raise `ResourceGone` if the snapshot was deleted meanwhile."""
        facts = describe_snapshot(self._account, self._snapshot_id)
        if facts is None or facts.state != "completed":
            raise ResourceGone(f"Cannot read '{self._snapshot_id}': it was deleted meanwhile.")

    def close(self) -> None:
        """End the reading threads."""
        self._blocks.close()

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self._size_bytes:
            raise InputError(
                f"Cannot read '{self.location}': range {offset}+{length} lies outside "
                f"{self._size_bytes} bytes."
            )
