# References: Cloud Storage JSON API, "Objects: list" (results are in order of their names).
"""What a site's bucket holds of blocks, asked for by listing: a request tells of a thousand.

An image of 120 GB has 240,000 blocks and a bucket holds several: whatever is kept of one here is
counted in bytes, and a listing is taken in as it comes.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.deflated_block import MOST_BYTES, DeflatedBlock
from imageport.clouds.gcp.digest_set import ABSENT, DigestSet
from imageport.clouds.gcp.objects import ObjectFacts, Objects
from imageport.clouds.gcp.segments import plain_crc32_of, segment_digest, segment_folder

SHARDS: Final = "0123456789abcdef"
"""A listing answers page after page, 1000 objects in each: 30 GiB of data are 62 requests. By first
digit of the digest, several go on at once."""
LISTING_THREADS: Final = 8


class StoredSegment(NamedTuple):
    """A segment as the bucket knows it."""

    block: DeflatedBlock
    generation: int


def each_segment(account: GcpAccount, take: Callable[[bytes, ObjectFacts], None]) -> None:
    """Give ``take`` the digest of every segment of the site and what the store tells of it.

    It is called from several threads, but for one first digit of the digest from one alone, and
    there in ascending order.
    """
    folder, objects = segment_folder(account.settings), Objects(account)

    def shard(digit: str) -> None:
        for facts in objects.list(f"{folder}{digit}"):
            digest = segment_digest(facts.key.removeprefix(folder))
            if digest is not None:
                take(digest, facts)
        account.live()

    with ThreadPoolExecutor(LISTING_THREADS, thread_name_prefix="gcs-list") as pool:
        for _done in pool.map(shard, SHARDS):
            pass


class StoredSegments:
    """Those of some blocks that the bucket holds, with what an archive has to know: 52 bytes each.

    Args:
        account: Of the run.
        digests: Of the blocks.
    """

    def __init__(self, account: GcpAccount, digests: Iterable[bytes]) -> None:
        self.names = DigestSet(digests)
        count = len(self.names)
        self._plain_crc32 = array("I", bytes(4 * count))
        self._deflated_bytes = array("I", bytes(4 * count))
        self._crc32c = array("I", bytes(4 * count))
        self._generation = array("Q", bytes(8 * count))
        """0: the bucket does not hold it."""
        self._objects = Objects(account)
        each_segment(account, self._take)

    def __contains__(self, digest: bytes) -> bool:
        place = self.names.place(digest)
        return place != ABSENT and self.holds(place)

    def holds(self, place: int) -> bool:
        """Tell whether the bucket holds what stands at a place of ``names``."""
        return self._generation[place] != 0

    def at(self, place: int) -> StoredSegment:
        """Return what the bucket `holds` at a place of ``names``."""
        block = DeflatedBlock(
            self._plain_crc32[place], self._deflated_bytes[place], self._crc32c[place]
        )
        return StoredSegment(block, self._generation[place])

    def _take(self, digest: bytes, held: ObjectFacts) -> None:
        place = self.names.place(digest)
        if place == ABSENT or held.size_bytes > MOST_BYTES:
            return  # what is too long for a block is removed by the put that comes upon it
        plain_crc32 = plain_crc32_of(self._objects, held, digest)
        if plain_crc32 is not None:
            self._plain_crc32[place] = plain_crc32
            self._deflated_bytes[place] = held.size_bytes
            self._crc32c[place] = held.crc32c
            self._generation[place] = held.generation


class HeldSegments:
    """Which segments were in the bucket at one moment, in twelve bytes each.

    Known by the first 64 bits of the digest and the CRC32C: whoever is taken for stored and is not
    is found when the image is made, and put then.
    """

    def __init__(self, account: GcpAccount) -> None:
        self._shards = [(array("Q"), array("I")) for _ in SHARDS]
        each_segment(account, self._take)

    def has(self, digest: bytes, crc32c: int) -> bool:
        """Tell whether this block was stored in just these bytes."""
        names, checksums = self._shards[digest[0] >> 4]
        name = _short(digest)
        place = bisect_left(names, name)
        return place < len(names) and names[place] == name and checksums[place] == crc32c

    def _take(self, digest: bytes, held: ObjectFacts) -> None:
        names, checksums = self._shards[digest[0] >> 4]
        names.append(_short(digest))
        checksums.append(held.crc32c)


def _short(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")
