"""The upload target of the memory cloud: strict as a real cloud's is, in either of two manners."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from imageport.clouds.intents import Intents
from imageport.clouds.memory_blocks import MemoryAccount, MemorySnapshot
from imageport.clouds.tags import ROLE_UPLOADED
from imageport.errors import CloudRefused, ResourceGone
from imageport.model import BLOCK_BYTES, ZERO_BLOCK
from imageport.transfer.block_target import BlockTarget, TargetTraits, TransferPlan

RUN_BLOCKS = 8
"""4 MiB, the largest Put Page: what one put takes where snapshots start empty."""


def traits_of(parent: str, *, starts_from_parent: bool) -> TargetTraits:
    """Return the traits of a snapshot as on AWS, or as on Azure where it starts empty.

    The first may become encrypted; the second reads zeros where nothing is put and takes runs.
    """
    return TargetTraits(
        name="memory-snapshot",
        unwritten_reads_zero=not starts_from_parent,
        starts_from_parent=starts_from_parent,
        put_blocks=1 if starts_from_parent else RUN_BLOCKS,
        attributes={"encrypted": "maybe" if starts_from_parent else "no", "parent": parent},
    )


class MemorySnapshotTarget(BlockTarget):
    """Receives blocks into a new snapshot; checks digests, sizes, runs, bounds and the parent."""

    def __init__(
        self,
        account: MemoryAccount,
        intents: Intents,
        image: str,
        *,
        parent: str = "",
        starts_from_parent: bool = True,
    ) -> None:
        self.traits = traits_of(parent, starts_from_parent=starts_from_parent)
        self._account = account
        self._intents = intents
        self._image = image
        self._parent = parent
        self._id = ""

    def begin(self, plan: TransferPlan, token: str) -> str:
        """Start a snapshot, or find the one of this token."""
        intent = self._intents.intend("snapshot", ROLE_UPLOADED, token, name=self._image)
        earlier = self._account.snapshots.get(intent.entry.resource_id)
        if earlier is not None and earlier.completed:
            # A finished upload that the caller has no record of: the sweep's to judge.
            intent = self._intents.intend("snapshot", ROLE_UPLOADED, token, fresh=True)
        with self._account.lock:
            by_token = self._account.by_client_token.get(intent.client_token, "")
            found = intent.entry.resource_id or by_token
            if found not in self._account.snapshots:
                blocks = self._blocks_to_start_with()
                found = self._account.new_id("snap")
                made = MemorySnapshot(found, plan.size_bytes, blocks, tags=dict(intent.tags))
                self._account.snapshots[found] = made
                self._account.by_client_token[intent.client_token] = found
        self._intents.record(intent, found)
        self._id = found
        return found

    def resume(self, plan: TransferPlan, handle: str) -> None:
        """Take up a snapshot, pending or just completed."""
        found = self._account.snapshot(handle)
        if found.size_bytes != plan.size_bytes:
            raise ResourceGone(
                f"Cannot resume '{handle}': found {found.size_bytes} bytes, "
                f"needed {plan.size_bytes}."
            )
        self._id = handle

    def put(self, index: int, data: bytes | memoryview, digest: bytes) -> None:
        """Keep one block."""
        self._keep(index, data, [digest])

    def put_run(self, first_index: int, data: bytes | memoryview, digests: Sequence[bytes]) -> None:
        """Keep adjacent blocks, where the cloud takes runs."""
        if self.traits.put_blocks == 1:
            raise CloudRefused(f"Cannot put a run into '{self._id}': it takes single blocks.")
        self._keep(first_index, data, digests)

    def take_from_parent(self, first_index: int, count: int) -> None:
        """Keep what the parent holds; refuses what the parent never held."""
        if self.traits.starts_from_parent or not self._parent:
            raise CloudRefused(f"Cannot copy into '{self._id}': there is nothing to copy from.")
        snapshot = self._writable(first_index, count)
        indexes = range(first_index, first_index + count)
        with self._account.lock:
            parent = self._account.completed(self._parent)
            if any(parent.blocks.get(index, ZERO_BLOCK) == ZERO_BLOCK for index in indexes):
                raise CloudRefused(
                    f"Cannot copy blocks {first_index}+{count} into '{self._id}': "
                    f"'{self._parent}' has no data there."
                )
            snapshot.blocks.update((index, parent.blocks[index]) for index in indexes)
            snapshot.put.update(indexes)

    def lost(self, indexes: Collection[int]) -> set[int]:
        """Return which of these blocks the snapshot was never given."""
        return set(indexes) - self._account.snapshot(self._id).put

    def commit(self, digests: Mapping[int, bytes]) -> str:
        """Seal; refuses a count or a digest that differs from what was put."""
        snapshot = self._account.snapshot(self._id)
        with self._account.lock:
            if snapshot.completed:
                return self._id
            if set(digests) != snapshot.put:
                raise CloudRefused(
                    f"Cannot complete '{self._id}': found {len(digests)} blocks, "
                    f"needed {len(snapshot.put)}."
                )
            for index, digest in digests.items():
                if hashlib.sha256(snapshot.blocks[index]).digest() != digest:
                    raise CloudRefused(f"Cannot complete '{self._id}': block {index} differs.")
            snapshot.completed = True
        return self._id

    def abort(self) -> None:
        """Delete the snapshot unless it is complete."""
        with self._account.lock:
            found = self._account.snapshots.get(self._id)
            if found is None or found.completed:
                return
            del self._account.snapshots[self._id]
        self._intents.mark(self._id, "deleted")

    def read_back(self, indexes: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Yield blocks; one that is not stored reads as zeros."""
        snapshot = self._account.completed(self._id)
        for index in indexes:
            yield index, snapshot.blocks.get(index, bytes(BLOCK_BYTES))

    def close(self) -> None:
        """Nothing is open."""

    def _blocks_to_start_with(self) -> dict[int, bytes]:
        if not self._parent or not self.traits.starts_from_parent:
            return {}
        return dict(self._account.completed(self._parent).blocks)

    def _keep(self, first: int, data: bytes | memoryview, digests: Sequence[bytes]) -> None:
        snapshot = self._writable(first, len(digests))
        if len(data) != len(digests) * BLOCK_BYTES:
            raise CloudRefused(
                f"Bad block '{self._id}/{first}': found {len(data)} bytes, "
                f"needed {len(digests)} times {BLOCK_BYTES}."
            )
        view = memoryview(data)
        blocks = [bytes(view[at : at + BLOCK_BYTES]) for at in range(0, len(view), BLOCK_BYTES)]
        for index, (block, digest) in enumerate(zip(blocks, digests, strict=True), start=first):
            if hashlib.sha256(block).digest() != digest:
                raise CloudRefused(f"Bad block '{self._id}/{index}': its SHA-256 is another.")
        self._intents.live()
        with self._account.lock:
            snapshot.blocks.update(enumerate(blocks, start=first))
            snapshot.put.update(range(first, first + len(blocks)))

    def _writable(self, first: int, count: int) -> MemorySnapshot:
        """Return the snapshot if one request may write these blocks."""
        snapshot, most = self._account.snapshot(self._id), self.traits.put_blocks
        if snapshot.completed:
            raise ResourceGone(f"Cannot put block '{self._id}/{first}': it is complete.")
        end_bytes = (first + count - 1) * BLOCK_BYTES
        if count < 1 or first < 0 or end_bytes >= snapshot.size_bytes:
            raise CloudRefused(
                f"Bad block '{self._id}/{first}': found {count} blocks, needed some inside "
                f"{snapshot.size_bytes} bytes."
            )
        if first // most != (first + count - 1) // most:
            raise CloudRefused(
                f"Bad run '{self._id}/{first}': found {count} blocks, needed one aligned run "
                f"of {most}."
            )
        return snapshot
