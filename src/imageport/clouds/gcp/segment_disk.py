# References: Cloud Storage JSON API, "Objects: get" (alt=media).
"""An image as a disk, read from the blocks that lie in the bucket: Google reads no image out."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final

from imageport.clouds.blockwise_disk import BlockwiseDisk
from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.digest_set import DigestSet
from imageport.clouds.gcp.images import describe_image
from imageport.clouds.gcp.objects import Objects
from imageport.clouds.gcp.segment_index import ImageIndex, index_of
from imageport.clouds.gcp.segments import (
    prepared_folder,
    read_block,
    segment_digest,
    segment_key,
)
from imageport.clouds.reading_ahead import ReadAhead
from imageport.errors import CloudRefused, ResourceGone
from imageport.model import ZERO_DIGEST

WORKERS: Final = 16
"""512 KiB at ~60 ms each in the region: 16 in flight read about 130 MiB/s."""
AHEAD: Final = 32
"""Blocks asked for and not yet taken: 16 MiB of memory at most."""
KEPT_BLOCKS: Final = 8
"""4 MiB: file systems are read in small pieces, many of one block."""


class SegmentDisk(BlockwiseDisk):
    """An image of which every block is named by its SHA-256 and checked against it.

    The size is that of the image: whole GiB, at least the size of the disk that was uploaded.
    """

    format_name = "gcp-segments"
    sector_bytes = 512

    def __init__(self, account: GcpAccount, reference: str) -> None:
        facts = describe_image(account, reference)
        if facts is None or not facts.ready:
            found = "nothing" if facts is None else f"status {facts.status}"
            raise ResourceGone(f"Bad image '{reference}': found {found}, needed it ready.")
        self.location = f"gcp:{reference}"
        self._account = account
        self._reference = reference
        self._size_bytes = facts.size_bytes
        self._blocks = IndexedBlocks(account, index_of(account, reference))

    @property
    def size_bytes(self) -> int:
        """Return the size of the image."""
        return self._size_bytes

    def stored_blocks(self) -> Iterator[int]:
        """Yield the blocks of the index."""
        return (index for index, _digest in self._blocks.index.blocks())

    def read_blocks(self, indexes: Iterable[int]) -> Iterator[tuple[int, bytes | None]]:
        """Yield blocks, reading ahead with several threads."""
        return self._blocks.read_many(indexes)

    def content_key(self) -> str:
        """Return the image's id: an image never changes."""
        return self.location

    def check_unchanged(self) -> None:
        """Raise `ResourceGone` if the image was deleted meanwhile."""
        facts = describe_image(self._account, self._reference)
        if facts is None or not facts.ready:
            raise ResourceGone(f"Cannot read '{self._reference}': it was deleted meanwhile.")

    def close(self) -> None:
        """End the reading threads."""
        self._blocks.close()


class IndexedBlocks:
    """The blocks of one index; may be used from several threads."""

    def __init__(self, account: GcpAccount, index: ImageIndex) -> None:
        if not index.has_segments:
            raise CloudRefused(
                f"Cannot read '{index.image}': it was sent as one archive, which nobody can read "
                "by blocks.",
                hint="Upload with archive 'segments' where the image has to be read back.",
            )
        self.index = index
        self._account = account
        self._objects = Objects(account)
        self._own_folder = prepared_folder(account.settings, index.image)
        names = (
            segment_digest(facts.key.removeprefix(self._own_folder))
            for facts in self._objects.list(self._own_folder)
        )
        self._own = DigestSet(digest for digest in names if digest is not None)
        """Blocks that the machine wrote which read the prepared disk."""
        self._ahead = ReadAhead("gcs-read", WORKERS, AHEAD)
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def read_many(self, indexes: Iterable[int]) -> Iterator[tuple[int, bytes | None]]:
        """Yield (index, block) in the order given, None for a hole, reading ahead."""
        return self._ahead.in_order(self._requests(indexes))

    def close(self) -> None:
        """End the reading threads; may be called twice."""
        self._ahead.close()

    def _requests(self, indexes: Iterable[int]) -> Iterator[tuple[int, Callable[[], bytes] | None]]:
        digests = self.index.manifest.digests
        for index in indexes:
            digest = digests.get(index, ZERO_DIGEST)
            yield index, None if digest == ZERO_DIGEST else partial(self._read, index, digest)

    def _read(self, index: int, digest: bytes) -> bytes:
        with self._lock:
            found = self._kept.get(digest)
            if found is not None:
                self._kept.move_to_end(digest)
                return found
        data = read_block(self._objects, self._key(digest), digest, f"{self.index.image}/{index}")
        with self._lock:
            self._kept[digest] = data
            if len(self._kept) > KEPT_BLOCKS:
                self._kept.popitem(last=False)
        return data

    def _key(self, digest: bytes) -> str:
        if digest in self._own:
            return f"{self._own_folder}{digest.hex()}"
        return segment_key(self._account.settings, digest)
