# References: Cloud Storage JSON API, "Objects: insert" (ifGenerationMatch).
"""Blocks in the bucket, named by what they hold: written once, shared by all images of a site."""

from __future__ import annotations

import hashlib
import re
from typing import Final

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
_NAME: Final = re.compile(r"[0-9a-f]{64}")
_CRC32: Final = re.compile(r"[0-9a-f]{8}")


def segment_key(settings: GcpSettings, digest: bytes) -> str:
    """Return the key of the segment that holds a block of this SHA-256."""
    return f"{segment_folder(settings)}{digest.hex()}"


def segment_folder(settings: GcpSettings) -> str:
    """Return where the segments of a site lie."""
    return f"{site_folder(settings)}seg/"


def segment_digest(name: str) -> bytes | None:
    """Return the SHA-256 in the name of a segment, None if it is the name of none."""
    return bytes.fromhex(name) if _NAME.fullmatch(name) else None


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


def plain_crc32_of(objects: Objects, held: ObjectFacts, digest: bytes) -> int | None:
    """Return the CRC32 of a segment's block; None if what the object holds is no such block.

    What has no metadata is read: somebody may have copied objects without it.
    """
    noted = held.metadata.get(METADATA_CRC32, "")
    if _CRC32.fullmatch(noted):
        return int(noted, 16)
    data = _plain(objects, held, digest)
    return None if data is None else isal_zlib.crc32(data)


def _holds(objects: Objects, held: ObjectFacts, digest: bytes) -> bool:
    """Tell whether a segment is sound although other bytes than ours: of another compressor."""
    return _plain(objects, held, digest) is not None


def _plain(objects: Objects, held: ObjectFacts, digest: bytes) -> bytes | None:
    """Return the block in an object, None if it holds something else or is gone."""
    if held.size_bytes > MOST_BYTES:
        return None
    try:
        return read_block(objects, held.key, digest, "block")
    except (ResourceGone, VerificationFailed):
        return None
