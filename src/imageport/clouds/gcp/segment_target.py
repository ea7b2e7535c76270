# References: Cloud Storage, "Composite objects"; Compute Engine, "Manually import boot disks".
"""Generation U: blocks sent once into the bucket, joined there to the archive that Google imports.

A block is an object named by its SHA-256, deflated so that such objects in any order are one
DEFLATE stream (`deflated_block`). An image is head, blocks and foot (`sparse_archive`), joined by
Cloud Storage itself (`compose_tree`). Nothing that the bucket has is sent again, whichever image it
came with.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping

from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.composed_archive import NAMED, compose_archive
from imageport.clouds.gcp.deflated_block import deflate, facts_of
from imageport.clouds.gcp.image_upload import ImageUpload
from imageport.clouds.gcp.segment_disk import IndexedBlocks
from imageport.clouds.gcp.segment_index import SEGMENTS, ImageIndex, index_of
from imageport.clouds.gcp.segments import put_segment
from imageport.clouds.gcp.stored_segments import HeldSegments, StoredSegments
from imageport.errors import CloudRefused, ResourceGone
from imageport.model import BLOCK_BYTES, ZERO_BLOCK, ZERO_DIGEST
from imageport.transfer.block_target import BlockTarget, TargetTraits, TransferPlan
from imageport.transfer.digest_table import DigestTable
from imageport.transfer.manifest import Manifest, block_count


def traits_of(*, parent: str = "", kms_key: str = "") -> TargetTraits:
    """Return the declared traits; another key makes another image."""
    return TargetTraits(
        name="gcp-segments",
        unwritten_reads_zero=True,
        fills_holes=False,
        starts_from_parent=False,
        initial_in_flight=16,
        max_in_flight=64,
        attributes={"parent": parent, "encrypted": kms_key or "platform key"},
    )


class SegmentTarget(BlockTarget):
    """One image that is being sent; its handle is the address of its marker in the bucket."""

    def __init__(
        self, account: GcpAccount, image: str, *, parent: str = "", description: str = ""
    ) -> None:
        self.traits = traits_of(parent=parent, kms_key=account.settings.kms_key)
        self._account = account
        self._upload = ImageUpload(account, image, description=description, archive=SEGMENTS)
        self._parent = parent
        self._parent_index: ImageIndex | None = None
        self._held: HeldSegments | None = None
        self._put = DigestTable(0)
        """What this process knows that the image is to hold."""
        self._not_sent = 0
        self._lock = threading.Lock()
        self._reader: IndexedBlocks | None = None

    def begin(self, plan: TransferPlan, token: str) -> str:
        """Write the marker, or find the one of an earlier call."""
        handle = self._upload.begin(plan, token)
        self._open()
        return handle

    def resume(self, plan: TransferPlan, handle: str) -> None:
        """Take up an upload whose marker is there, or the image that it became."""
        self._upload.resume(plan, handle)
        if not self._upload.sealed:
            self._open()

    def put(self, index: int, data: bytes | memoryview, digest: bytes) -> None:
        """Write one block unless the bucket has it; zeros are what is left out."""
        self._check_block(index, data, digest)
        self._account.live()
        if digest != ZERO_DIGEST:
            deflated = deflate(data)
            block = facts_of(data, deflated)
            held = self._held is not None and self._held.has(digest, block.crc32c)
            if held or not put_segment(self._account, block, deflated, digest):
                with self._lock:
                    self._not_sent += 1
        self._put.set(index, digest)

    def take_from_parent(self, first_index: int, count: int) -> None:
        """Name the parent's blocks: they lie in the bucket already."""
        self._require_open(first_index)
        if not self._parent:
            raise CloudRefused(
                f"Cannot take from the parent of '{self._upload.handle}': it was opened without a "
                "parent."
            )
        if self._parent_index is None:
            raise ResourceGone(f"Cannot take from '{self._parent}': its blocks are not known.")
        self._account.live()
        digests = self._parent_index.manifest.digests
        taken = range(first_index, first_index + count)
        if not all(index in digests for index in taken):
            raise ResourceGone(f"Cannot take from '{self._parent}': it holds nothing there.")
        for index in taken:
            self._put.set(index, digests[index])

    def lost(self, indexes: Collection[int]) -> set[int]:
        """Return the blocks whose segments the bucket does not hold; asked for by digest."""
        if self._upload.sealed or not isinstance(indexes, Mapping):
            return set()
        stored = StoredSegments(self._account, _digests(indexes))
        missing = {index for index, digest in _data(indexes) if digest not in stored}
        if missing:
            self._held = None  # whatever it says, these are to be put
        return missing

    def commit(self, digests: Mapping[int, bytes]) -> str:
        """Prove that all blocks are there, join them, and have Google make the image."""
        if not self._upload.sealed:
            self._check_counted(digests)
            self._held = self._parent_index = None  # nothing is put any more: it makes room
        manifest = Manifest(self._upload.size_bytes, absent_reads_zero=True)
        for index, digest in _data(digests):
            manifest.set(index, digest)
        return self._upload.commit(
            manifest, lambda: compose_archive(self._account, self._upload, manifest)
        )

    def abort(self) -> None:
        """Remove marker and parts, and the segments that no image needs."""
        self._upload.abort()
        self._held = None

    def remarks(self) -> tuple[str, ...]:
        """Say how much the bucket had already."""
        if not self._not_sent:
            return ()
        return (f"{self._not_sent} blocks lay in the bucket already and were not sent again",)

    def read_back(self, indexes: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Yield blocks by the index in the bucket, each checked against its SHA-256."""
        if self._reader is None:
            reference = self._upload.reference
            self._reader = IndexedBlocks(self._account, index_of(self._account, reference))
        for index, data in self._reader.read_many(indexes):
            yield index, ZERO_BLOCK if data is None else data

    def close(self) -> None:
        """End the reading threads; what is in the bucket stays, so that it can be resumed."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def _open(self) -> None:
        self._put = DigestTable(block_count(self._upload.size_bytes))
        self._held = HeldSegments(self._account)
        if self._parent:
            self._parent_index = _usable_index(self._account, self._parent)

    def _require_open(self, index: int) -> None:
        if self._upload.sealed or not self._upload.name:
            found = "its image made already" if self._upload.sealed else "no upload begun"
            raise ResourceGone(f"Cannot write block {index}: found {found}, needed one under way.")

    def _check_block(self, index: int, data: bytes | memoryview, digest: bytes) -> None:
        """Refuse what would spoil the block for every image of the site that has it."""
        self._require_open(index)
        name, count = self._upload.name, self._put.block_count
        if len(data) != BLOCK_BYTES or not 0 <= index < count:
            raise CloudRefused(
                f"Bad block '{name}/{index}': found {len(data)} bytes, needed {BLOCK_BYTES} of a "
                f"block below {count}."
            )
        if hashlib.sha256(data).digest() != digest:
            raise CloudRefused(
                f"Bad block '{name}/{index}': found other data than its SHA-256 says."
            )

    def _check_counted(self, digests: Mapping[int, bytes]) -> None:
        """Refuse a commit that forgets, or has otherwise, what this process put."""
        other = [index for index, digest in self._put.items() if digests.get(index) != digest]
        if other:
            raise CloudRefused(
                f"Bad commit of '{self._upload.name}': found {len(other)} blocks that were put "
                f"with other content than is counted, among them {other[:NAMED]}."
            )


def _usable_index(account: GcpAccount, parent: str) -> ImageIndex | None:
    """Return the parent's index; without it everything is sent, which is slower and not wrong."""
    try:
        index = index_of(account, parent)
    except ResourceGone:
        return None
    return index if index.has_segments else None


def _data(digests: Mapping[int, bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the blocks that hold more than zeros."""
    return ((index, digest) for index, digest in digests.items() if digest != ZERO_DIGEST)


def _digests(digests: Mapping[int, bytes]) -> Iterator[bytes]:
    return (digest for _index, digest in _data(digests))
