"""Upload: the vDisk's blocks into the target account, as generation U."""

from __future__ import annotations

from dataclasses import dataclass, replace

from imageport.citrix.vdisk_store import VdiskStore
from imageport.errors import SourceChanged
from imageport.formats.gpt import read_layout
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import GenerationRole, TransferStats
from imageport.progress import Stage
from imageport.state.records import Generation
from imageport.transfer.block_target import BlockTarget
from imageport.transfer.manifest import Manifest
from imageport.transfer.pipeline import TransferRequest, TransferResult, transfer
from imageport.workflow.facts import SourceFacts, opened_source
from imageport.workflow.generations import (
    generation_id,
    hand_to_catalogue,
    handle_of,
    now_text,
    snapshot_of,
    usable,
)
from imageport.workflow.place import Workplace, may_go_on

STAGE = "upload"


@dataclass(frozen=True, slots=True)
class Parent:
    """An earlier upload that the cloud still has: what did not change is not sent again."""

    generation_id: str = ""
    reference: str = ""
    manifest: Manifest | None = None


def upload(
    place: Workplace,
    store: VdiskStore,
    vdisk: str,
    *,
    source_key: str,
    accept_lock: bool = False,
    keep_parent: bool = True,
) -> Generation:
    """Return generation U of the vDisk, uploading what the target does not have.

    Resumes an upload that was killed; an unchanged source sends nothing.

    Raises:
        SourceChanged: the vDisk is no longer the one that preflight saw.
        LeaseHeld: another run works on this image and target.
    """
    with opened_source(store, vdisk, accept_lock=accept_lock) as (facts, disk):
        if facts.source_key != source_key:
            raise SourceChanged(
                f"Cannot upload '{vdisk}': its content is not the one that preflight saw."
            )
        with place.holding(facts.image) as lease:
            found = find_uploaded(place, facts.image, source_key)
            if found is not None:
                place.state.journals.delete(found.id)  # a run killed when it was done left it
                _say_current(place, found)
                return _kept_as_wished(place, found, keep_parent=keep_parent)
            held = replace(place, cancelled=place.asked_under(lease))
            return _upload(held, disk, facts, keep_parent=keep_parent)


def find_uploaded(place: Workplace, image: str, source_key: str) -> Generation | None:
    """Return the usable generation U of this very content."""
    for item in place.state.catalogue.list(
        image=image, target=place.target, role=GenerationRole.UPLOADED
    ):
        if item.source_key == source_key:
            return usable(place, item)
    return None


def _upload(
    place: Workplace, disk: VirtualDisk, facts: SourceFacts, *, keep_parent: bool
) -> Generation:
    parent = _parent(place, facts.image, disk.size_bytes)
    identity = generation_id(
        GenerationRole.UPLOADED, facts.image, place.target, facts.source_key, parent.reference
    )
    target = place.cloud.upload_target(
        facts.image, parent=parent.reference, description=f"imageport U of {facts.image}"
    )
    try:
        result = _moved(place, disk, target, identity, parent)
    finally:
        target.close()
    generation = Generation(
        id=identity,
        image=facts.image,
        target=place.target,
        role=GenerationRole.UPLOADED,
        created=now_text(),
        size_bytes=disk.size_bytes,
        source_key=facts.source_key,
        image_digest=result.manifest.image_digest(),
        handle=handle_of(place, result.reference),
        parent_id=parent.generation_id,
        details={
            "disk_guid": read_layout(disk).disk_guid,
            "keep_parent": keep_parent,
            "run": place.run,
            "stats": result.stats.as_dict(),
            "verified": result.verified,
        },
    )
    place.state.manifests.put(identity, result.manifest)
    hand_to_catalogue(place, generation)
    place.state.journals.delete(identity)
    return generation


def _moved(
    place: Workplace, disk: VirtualDisk, target: BlockTarget, identity: str, parent: Parent
) -> TransferResult:
    request = TransferRequest(
        journal=place.state.journals.open(identity),
        token=identity,
        parent=parent.manifest,
        events=place.events,
        stage=STAGE,
        cancelled=place.cancelled,
        may_go_on=may_go_on,
    )
    return transfer(disk, target, request)


def _parent(place: Workplace, image: str, size_bytes: int) -> Parent:
    """Return the newest upload, unless its child would come out otherwise than is wanted.

    No cloud makes a child smaller than its parent, or encrypts one that the parent was not.
    """
    newest = place.state.catalogue.latest(image, place.target, GenerationRole.UPLOADED)
    generation = usable(place, newest)
    if generation is None or not place.cloud.fits_as_parent(snapshot_of(generation)):
        return Parent()
    manifest = place.state.manifests.get(generation.id)
    if manifest is None or manifest.size_bytes > size_bytes:
        return Parent()
    return Parent(generation.id, snapshot_of(generation), manifest)


def _kept_as_wished(place: Workplace, found: Generation, *, keep_parent: bool) -> Generation:
    """Return U with the operator's last word on whether it stays after prepare."""
    if found.details.get("keep_parent", True) == keep_parent:
        return found
    details = {**found.details, "keep_parent": keep_parent}
    return place.state.catalogue.update(found.id, details=details)


def _say_current(place: Workplace, found: Generation) -> None:
    stage = Stage(STAGE, place.events, total=0)
    stage.finish(f"nothing had to move: {snapshot_of(found)} holds this very content")


def stats_of(generation: Generation) -> TransferStats:
    """Return the figures of the transfer that made a generation."""
    return TransferStats(**generation.details.get("stats", {}))
