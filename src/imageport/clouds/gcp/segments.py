# References: Cloud Storage JSON API, "Objects: insert" (ifGenerationMatch) and "list" (fields).
"""Blocks in the bucket, named by what they hold: written once, shared by all images of a site."""

from __future__ import annotations

import hashlib
import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, TypeVar

from isal import isal_zlib

from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.deflated_block import (
    MOST_BYTES,
    DeflatedBlock,
    inflate_block,
)
from imageport.clouds.gcp.names import site_folder
from imageport.clouds.gcp.objects import ObjectFacts, Objects
from imageport.clouds.gcp.settings import GcpSettings
from imageport.clouds.waiting import retried
from imageport.errors import CloudUnavailable, ResourceGone, VerificationFailed

METADATA_CRC32: Final = "crc32"
"""Of the block as it is on the disk, eight hexadecimal digits: gzip's trailer is made of them."""
SHARDS: Final = tuple("0123456789abcdef")
"""A listing answers page after page, 1000 objects in each: 30 GiB of data are 62 requests. By first
digit of the digest, several go on at once."""
LISTING_THREADS: Final = 8
_NAME: Final = re.compile(r"[0-9a-f]{64}")

Kept = TypeVar("Kept")


class StoredSegment(NamedTuple):
    """A segment as the bucket knows it."""

    block: DeflatedBlock
    generation: int


def segment_key(settings: GcpSettings, digest: bytes) -> str:
    """Return the key of the segment that holds a block of this SHA-256."""
    return f"{segment_folder(settings)}{digest.hex()}"


def segment_folder(settings: GcpSettings) -> str:
    """Return where the segments of a site lie."""
    return f"{site_folder(settings)}seg/"


def prepared_folder(settings: GcpSettings, image: str) -> str:
    """Return where the machine that reads a prepared disk puts the blocks of its image."""
    return f"{site_folder(settings)}out/{image}/"


def put_segment(account: GcpAccount, block: DeflatedBlock, deflated: bytes, digest: bytes) -> bool:
    """Write a block unless it is there; tell whether it was written.

    Args:
        account: Of the run.
        block: What is known of ``deflated``.
        deflated: The block, as `deflate` makes it.
        digest: Its SHA-256, checked by the caller: a wrong one would spoil the block for every
            image that has it.

    Raises:
        CloudUnavailable: what was there under this name is no such block and was removed; the
            next try writes it.
        CloudError: as the object store answers; nothing is tried again here.
    """
    objects, key = Objects(account), segment_key(account.settings, digest)
    if objects.put_once(key, deflated, {METADATA_CRC32: f"{block.plain_crc32:08x}"}):
        return True
    held = objects.stat(key)
    if held is not None:
        if held.crc32c == block.crc32c or _holds(objects, held, digest):
            return False
        objects.delete(key, generation=held.generation)
    raise CloudUnavailable(f"Cannot put '{key}': what was there is damaged, or gone since.")


def read_block(objects: Objects, key: str, digest: bytes, location: str) -> bytes:
    """Return the block in an object, checked against its SHA-256.

    ``location`` names the block, for messages.

    Raises:
        ResourceGone: the object was deleted.
        VerificationFailed: it holds something else.
    """
    where = f"{location} in {key}"
    try:
        deflated = retried(lambda: objects.get(key, MOST_BYTES))
    except ResourceGone as error:
        raise ResourceGone(f"Cannot read '{where}': the object was deleted.") from error
    data = inflate_block(deflated, where)
    if hashlib.sha256(data).digest() != digest:
        raise VerificationFailed(f"Bad block '{where}': found other data than its SHA-256 says.")
    return data


def listed(
    account: GcpAccount, keep: Callable[[bytes, ObjectFacts], Kept | None]
) -> Iterator[list[Kept]]:
    """Yield what ``keep`` makes of all segments of the site, in sixteen lists.

    ``keep`` gets the digest and what the store tells; it is called from several threads, and what
    it answers with None takes no memory.
    """
    folder = segment_folder(account.settings)
    objects = Objects(account)

    def shard(digit: str) -> list[Kept]:
        found = []
        for facts in objects.list(f"{folder}{digit}"):
            name = facts.key.removeprefix(folder)
            if _NAME.fullmatch(name):
                kept = keep(bytes.fromhex(name), facts)
                if kept is not None:
                    found.append(kept)
        account.live()
        return found

    with ThreadPoolExecutor(LISTING_THREADS, thread_name_prefix="gcs-list") as pool:
        yield from pool.map(shard, SHARDS)


def stored_among(account: GcpAccount, wanted: Collection[bytes]) -> dict[bytes, StoredSegment]:
    """Return those of ``wanted`` that the bucket holds, with what an archive has to know."""
    objects = Objects(account)

    def facts(digest: bytes, held: ObjectFacts) -> tuple[bytes, StoredSegment] | None:
        if digest not in wanted:
            return None
        crc32 = _crc32_of(objects, held, digest)
        if crc32 is None:
            return None
        block = DeflatedBlock(crc32, held.size_bytes, held.crc32c)
        return digest, StoredSegment(block, held.generation)

    return {digest: block for shard in listed(account, facts) for digest, block in shard}


class HeldSegments:
    """Which segments were in the bucket at one moment, in twelve bytes each.

    Known by the first 64 bits of the digest and the CRC32C: whoever is taken for stored and is not
    is found when the image is made, and put then.
    """

    def __init__(self, account: GcpAccount) -> None:
        self._shards: dict[int, tuple[array[int], array[int]]] = {}
        for shard in listed(account, lambda digest, facts: (_short(digest), facts.crc32c)):
            shard.sort()
            if shard:
                names = array("Q", (name for name, _ in shard))
                self._shards[names[0] >> 60] = names, array("I", (crc32c for _, crc32c in shard))

    def has(self, digest: bytes, crc32c: int) -> bool:
        """Tell whether this block was stored in just these bytes."""
        name = _short(digest)
        names, checksums = self._shards.get(name >> 60, (array("Q"), array("I")))
        place = bisect_left(names, name)
        return place < len(names) and names[place] == name and checksums[place] == crc32c


def _short(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")


def _holds(objects: Objects, held: ObjectFacts, digest: bytes) -> bool:
    """Tell whether a segment is sound although other bytes than ours: of another compressor."""
    return _plain(objects, held, digest) is not None


def _crc32_of(objects: Objects, held: ObjectFacts, digest: bytes) -> int | None:
    """Return the CRC32 of the block; what has no metadata is read for it, None if it is no block.

    Somebody may have copied objects without their metadata.
    """
    try:
        return int(held.metadata.get(METADATA_CRC32, ""), 16)
    except ValueError:
        data = _plain(objects, held, digest)
        return None if data is None else isal_zlib.crc32(data)


def _plain(objects: Objects, held: ObjectFacts, digest: bytes) -> bytes | None:
    """Return the block in an object, None if it holds something else or is gone."""
    if held.size_bytes > MOST_BYTES:
        return None
    try:
        return read_block(objects, held.key, digest, "block")
    except (ResourceGone, VerificationFailed):
        return None
