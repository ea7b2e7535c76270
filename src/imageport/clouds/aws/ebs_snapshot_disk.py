"""A completed EBS snapshot as a disk: what publishing reads, without any machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from imageport.clouds.aws.account import Account
from imageport.clouds.aws.block_client import BlockClient
from imageport.clouds.aws.snapshot_blocks import SnapshotBlocks
from imageport.clouds.aws.snapshots import describe_snapshot
from imageport.clouds.blockwise_disk import BlockwiseDisk
from imageport.errors import ResourceGone
from imageport.model import GIB


class EbsSnapshotDisk(BlockwiseDisk):
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

    def stored_blocks(self) -> Iterator[int]:
        """Yield the blocks of the block list, page by page."""
        for page in self._blocks.pages():
            yield from page.tokens

    def read_blocks(self, indexes: Iterable[int]) -> Iterator[tuple[int, bytes | None]]:
        """Yield blocks, reading ahead with several threads."""
        return self._blocks.read_many(indexes)

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
