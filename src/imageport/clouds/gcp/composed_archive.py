# References: Cloud Storage, "Composite objects"; JSON API, "Objects: compose".
"""The archive of an image, joined in the bucket of the blocks that lie there.

An image of 120 GB has 240,000 blocks: what is known of one is kept in bytes (`stored_segments`),
and becomes an object only while it is joined.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.compose_tree import ComposeTree, Part
from imageport.clouds.gcp.error_mapping import CHANGED
from imageport.clouds.gcp.image_upload import ImageUpload
from imageport.clouds.gcp.objects import ObjectFacts, Objects, crc32c_of
from imageport.clouds.gcp.segments import segment_folder
from imageport.clouds.gcp.sparse_archive import sparse_archive
from imageport.clouds.gcp.stored_segments import StoredSegments
from imageport.clouds.waiting import retried
from imageport.errors import CloudRefused, CloudUnavailable, ResourceGone
from imageport.transfer.manifest import Manifest

NAMED: Final = 8
"""Blocks that an error names; more help nobody."""


def compose_archive(account: GcpAccount, upload: ImageUpload, manifest: Manifest) -> None:
    """Join the archive of ``manifest``, which names no block of zeros, under the upload's key.

    Raises:
        CloudUnavailable: segments are gone, or what was joined is not what was predicted.
        VerificationFailed: a join gave other bytes than its parts' checksums say.
        CloudError: as the store answers.
    """
    stored = StoredSegments(account, manifest.digests.values())
    blocks = array("I", manifest.digests)
    places = array("I", map(stored.names.place, manifest.digests.values()))
    gone = [index for index, place in zip(blocks, places, strict=True) if not stored.holds(place)]
    if gone:
        raise _segments_gone(account, upload, f"{len(gone)} or more of {len(blocks)}", gone)
    facts = (stored.at(place).block for place in places)
    archive = sparse_archive(upload.size_bytes, blocks, facts)
    objects = Objects(account)
    head = _written(objects, f"{upload.folder}head", archive.head)
    foot = _written(objects, f"{upload.folder}foot", archive.foot)
    parts = _ArchiveParts(segment_folder(account.settings), head, stored, places, foot)
    there = {item.key: _part_of(item) for item in objects.list(upload.folder)}
    tree = ComposeTree(parts, upload.archive_key, f"{upload.folder}part-")
    try:
        whole = tree.carry_out(ObjectComposer(objects), there, pulse=account.live)
    except ResourceGone:
        raise _segments_gone(account, upload, f"1 or more of {len(blocks)}", ()) from None
    if (whole.size_bytes, whole.crc32c) != (archive.size_bytes, archive.crc32c):
        raise CloudUnavailable(
            f"Bad archive '{upload.archive_key}': found {whole.size_bytes} bytes of CRC32C "
            f"{whole.crc32c:08x}, needed {archive.size_bytes} of {archive.crc32c:08x}."
        )


class _ArchiveParts:
    """Head, blocks and foot of an archive, each made when it is asked for.

    Args:
        folder: Of the segments.
        head: Written already.
        stored: The segments.
        places: Of the blocks, in their order, in ``stored``.
        foot: Written already.
    """

    def __init__(
        self, folder: str, head: Part, stored: StoredSegments, places: Sequence[int], foot: Part
    ) -> None:
        self._folder = folder
        self._head = head
        self._stored = stored
        self._places = places
        self._foot = foot

    def __len__(self) -> int:
        return len(self._places) + 2

    def __getitem__(self, number: int) -> Part:
        if number == 0:
            return self._head
        if number == len(self._places) + 1:
            return self._foot
        place = self._places[number - 1]
        block, generation = self._stored.at(place)
        key = f"{self._folder}{self._stored.names.at(place).hex()}"
        return Part(key, block.deflated_bytes, block.crc32c, generation)


class ObjectComposer:
    """Cloud Storage as `compose_tree` wants it."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def compose(self, key: str, parts: Sequence[Part], generation: int) -> Part:
        """Join parts of these generations; what somebody else made meanwhile is returned."""
        sources = [(part.key, part.generation) for part in parts]
        try:
            return _part_of(self._objects.compose(key, sources, generation=generation))
        except CloudRefused as error:
            if error.fields.get("gcp_code") != CHANGED:
                raise
            found = self._objects.stat(key)
            if found is None or found.generation == generation:
                # It is not the whole that is another: one of the parts is.
                raise ResourceGone(f"Cannot join '{key}': a part was replaced.") from None
            return _part_of(found)


def _written(objects: Objects, key: str, data: bytes) -> Part:
    facts = retried(lambda: objects.put(key, data))
    return Part(key, len(data), crc32c_of(data), facts.generation)


def _part_of(facts: ObjectFacts) -> Part:
    return Part(facts.key, facts.size_bytes, facts.crc32c, facts.generation)


def _segments_gone(
    account: GcpAccount, upload: ImageUpload, found: str, some: Sequence[int]
) -> CloudUnavailable:
    """Return the error of segments that somebody deleted: the next try puts them again."""
    among = f", among them blocks {list(some[:NAMED])}" if some else ""
    return CloudUnavailable(
        f"Cannot commit '{upload.name}': {found} blocks are not in the bucket any more{among}.",
        hint="They are sent again when the upload goes on. Let no lifecycle rule touch "
        f"'{segment_folder(account.settings)}'.",
    )
