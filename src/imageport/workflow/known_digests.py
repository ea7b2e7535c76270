"""What the catalogue already knows of a disk's blocks: of the disk itself, or of one below it.

An export keeps the digests of what it wrote, an upload those of what it sent. A new version of a
vDisk has only what changed; all else is what the version below holds, wherever that was uploaded.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from imageport.formats.linked_disk import LinkedDisk
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import BLOCK_BYTES, GenerationRole
from imageport.state.store import StateStore
from imageport.transfer.manifest import Manifest
from imageport.transfer.shared_reading import SharedView
from imageport.workflow.facts import source_key_of

ROLES = (GenerationRole.SOURCE, GenerationRole.UPLOADED)
"""What is prepared is another content, and so is what was composed at the site: its source key is
no content's alone."""


def known_digests(state: StateStore, disk: VirtualDisk) -> Manifest | None:
    """Return the digests of a disk as far as they are known without reading it; None: of nothing.

    From the disk's own entry in the catalogue, else from that of the nearest disk below it.
    """
    if isinstance(disk, SharedView):
        disk = disk.source
    listed = [item for item in state.catalogue.list() if item.role in ROLES]
    for held in _held_by(disk):
        content_key = held.content_key()
        source_key = source_key_of(content_key)
        for generation in listed:
            if generation.source_key != source_key or generation.size_bytes != held.size_bytes:
                continue
            manifest = state.manifests.get(generation.id)
            if manifest is None or manifest.size_bytes != held.size_bytes:
                continue
            return manifest if held is disk else _carried_up(manifest, disk, content_key)
    return None


class KnownOnce:
    """`known_digests` of one disk for several uploads at once: held once, not once for each.

    What any of their state stores knows of a content is true for all.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: Manifest | None = None

    def __call__(self, state: StateStore, disk: VirtualDisk) -> Manifest | None:
        """Return what `known_digests` does, or did for another of the uploads."""
        with self._lock:
            if self._found is None:
                self._found = known_digests(state, disk)
            return self._found


def outside_of(known: Manifest, changed: Iterable[tuple[int, int]], size_bytes: int) -> Manifest:
    """Return what is known of a disk of ``size_bytes`` that differs in ``changed`` alone.

    ``changed`` are (offset, length); what lies past the end of the known disk is among them.
    """
    found = Manifest(size_bytes, absent_reads_zero=False)
    untouched = bytearray(b"\1" * min(found.block_count, known.block_count))
    if known.size_bytes > size_bytes and size_bytes % BLOCK_BYTES:
        untouched[-1] = 0  # cut within its last block
    for offset, length in changed:
        first, behind = offset // BLOCK_BYTES, -(-(offset + length) // BLOCK_BYTES)
        untouched[first:behind] = bytes(len(untouched[first:behind]))
    index = untouched.find(1)
    while index >= 0:
        digest = known.digest(index)
        if digest is not None:
            found.set(index, digest)
        index = untouched.find(1, index + 1)
    return found


def _held_by(disk: VirtualDisk) -> Iterator[VirtualDisk]:
    """Yield the disk and those below it, nearest first."""
    yield disk
    if isinstance(disk, LinkedDisk):
        yield from disk.chain()[1:]


def _carried_up(known: Manifest, disk: VirtualDisk, content_key: str) -> Manifest | None:
    if not isinstance(disk, LinkedDisk):
        return None
    changed = disk.changes_since(content_key)
    return None if changed is None else outside_of(known, changed, disk.size_bytes)
