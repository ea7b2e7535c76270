"""Verify: what lies in the store is what the catalogue says, read by the rules PVS reads it by."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from imageport.citrix.vdisk_store import VdiskStore
from imageport.errors import TransferCancelled, VerificationFailed
from imageport.formats.opening import open_disk
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import BLOCK_BYTES, ZERO_DIGEST
from imageport.progress import Stage
from imageport.transfer.manifest import Manifest
from imageport.transfer.reader import BlockReader
from imageport.transfer.verify import BATCH_BLOCKS, SAMPLE_BLOCKS, check_blocks
from imageport.workflow.place import Workplace

STAGE = "verify"


@dataclass(frozen=True, slots=True)
class VerifiedPublication:
    """A published vDisk that was looked at once more, under its final name."""

    file_name: str
    level: str
    blocks_checked: int


def verify_publication(
    place: Workplace, prepared_id: str, store: VdiskStore, file_name: str
) -> VerifiedPublication:
    """Open the published file as a source would and compare a sample of its blocks.

    Publishing has read every block back already; this proves the rename, the manifest and that
    the next reader gets in.

    Raises:
        VerificationFailed: size, time or blocks differ from the catalogue.
    """
    prepared = place.state.catalogue.get(prepared_id)
    place_in_store = (store.location, file_name)
    record = [p for p in prepared.publications if (p.store, p.file_name) == place_in_store]
    stat = store.folder.stat(file_name)
    if not record or stat is None or stat.last_write_ns != record[-1].last_write_ns:
        raise VerificationFailed(
            f"Bad vDisk '{store.location}/{file_name}': found {stat}, needed what the catalogue "
            f"recorded for {prepared_id}."
        )
    manifest = place.state.manifests.get(prepared_id)
    with open_disk(store.folder.open_read(file_name), store.folder) as disk:
        return _compared(place, disk, manifest, file_name)


def _compared(
    place: Workplace, disk: VirtualDisk, manifest: Manifest | None, file_name: str
) -> VerifiedPublication:
    if manifest is None or manifest.size_bytes != disk.size_bytes:
        raise VerificationFailed(
            f"Bad vDisk '{file_name}': found {disk.size_bytes} bytes, needed "
            f"{manifest.size_bytes if manifest else 'a manifest of its blocks'}."
        )
    holding = [index for index in manifest.written() if manifest.digest(index) != ZERO_DIGEST]
    chosen = sorted(random.sample(holding, min(SAMPLE_BLOCKS, len(holding))))
    stage = Stage(STAGE, place.events, total=len(chosen) * BLOCK_BYTES)
    for start in range(0, len(chosen), BATCH_BLOCKS):
        if place.cancelled():
            raise TransferCancelled(f"Cannot finish verifying '{file_name}': it was cancelled.")
        batch = chosen[start : start + BATCH_BLOCKS]
        try:
            check_blocks(lambda indexes: _blocks_of(disk, indexes), manifest, batch)
        except VerificationFailed as error:
            error.message = f"Bad vDisk '{disk.location}': {error.message}"
            raise
        stage.advance(len(batch) * BLOCK_BYTES)
    words = f"{len(chosen):,} of {len(holding):,} blocks with data compared under the final name"
    stage.finish(words)
    return VerifiedPublication(file_name, words, len(chosen))


def _blocks_of(disk: VirtualDisk, indexes: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    wanted = frozenset(indexes)
    return BlockReader(disk, lambda index: index not in wanted).blocks()
