"""Upload: the vDisk's blocks into the target account, as generation U."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from imageport.citrix.vdisk_store import VdiskStore
from imageport.errors import SourceChanged
from imageport.formats.gpt import read_layout
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import GenerationRole, TransferStats
from imageport.progress import Stage
from imageport.state.records import Generation
from imageport.state.store import StateStore
from imageport.transfer.manifest import Manifest
from imageport.transfer.pipeline import NO_DOUBT, Doubt, TransferRequest, transfer
from imageport.workflow.facts import SourceFacts, opened_source
from imageport.workflow.generations import (
    generation_id,
    hand_to_catalogue,
    handle_of,
    now_text,
    snapshot_of,
    usable,
)
from imageport.workflow.known_digests import known_digests
from imageport.workflow.place import Workplace, may_go_on

STAGE = "upload"
KnownOf = Callable[[StateStore, VirtualDisk], Manifest | None]
"""Tells the digests of a disk's blocks as far as they are known before it is read."""


@dataclass(frozen=True, slots=True)
class Parent:
    """An earlier upload that the cloud still has: what did not change is not sent again."""

    generation_id: str = ""
    reference: str = ""
    manifest: Manifest | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """What is uploaded, as the catalogue is to know it."""

    image: str
    source_key: str
    """Of what lies in the cloud then; see `Generation.source_key`."""
    keep_parent: bool = True
    details: dict[str, Any] = field(default_factory=dict)
    doubt: Doubt = NO_DOUBT
    known: Manifest | None = None
    """Digests of the disk's blocks, as far as they are known before it is read."""


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

    What the catalogue knows of its blocks, from an export or of a version below, is not read again
    where the target has it, and not hashed again where it has not. Resumes an upload that was
    killed; an unchanged source sends nothing.

    Raises:
        SourceChanged: the vDisk is no longer the one that preflight saw.
        LeaseHeld: another run works on this image and target.
    """
    with opened_source(store, vdisk, accept_lock=accept_lock) as (facts, disk):
        return upload_opened(place, facts, disk, source_key=source_key, keep_parent=keep_parent)


def upload_opened(
    place: Workplace,
    facts: SourceFacts,
    disk: VirtualDisk,
    *,
    source_key: str,
    keep_parent: bool = True,
    known_of: KnownOf = known_digests,
) -> Generation:
    """Return generation U as `upload` does, of a vDisk that the caller opened and closes.

    ``disk`` may be a view of one that is read for several targets; ``known_of`` then tells what is
    known of it once for all.
    """
    if facts.source_key != source_key:
        raise SourceChanged(
            f"Cannot upload '{disk.location}': its content is not the one that preflight saw."
        )
    with place.holding(facts.image) as lease:
        content = Content(facts.image, source_key, keep_parent)
        found = current_upload(place, content)
        if found is not None:
            return found
        held = replace(place, cancelled=place.asked_under(lease))
        return bring_up(held, disk, replace(content, known=known_of(place.state, disk)))


def find_uploaded(place: Workplace, image: str, source_key: str) -> Generation | None:
    """Return the usable generation U of this very content."""
    for item in place.state.catalogue.list(
        image=image, target=place.target, role=GenerationRole.UPLOADED
    ):
        if item.source_key == source_key:
            return usable(place, item)
    return None


def current_upload(place: Workplace, content: Content) -> Generation | None:
    """Return generation U of this very content, if nothing has to move; the lease is held."""
    found = find_uploaded(place, content.image, content.source_key)
    if found is None:
        return None
    place.state.journals.delete(found.id)  # a run killed when it was done left it
    _say_current(place, found)
    return _kept_as_wished(place, found, keep_parent=content.keep_parent)


def bring_up(place: Workplace, disk: VirtualDisk, content: Content) -> Generation:
    """Upload the disk and return its generation U; the lease is held."""
    parent = _parent(place, content.image, disk.size_bytes)
    identity = generation_id(
        GenerationRole.UPLOADED, content.image, place.target, content.source_key, parent.reference
    )
    target = place.cloud.upload_target(
        content.image, parent=parent.reference, description=f"imageport U of {content.image}"
    )
    try:
        request = TransferRequest(
            journal=place.state.journals.open(identity),
            token=identity,
            parent=parent.manifest,
            known=content.known,
            doubt=content.doubt,
            events=place.events,
            stage=STAGE,
            cancelled=place.cancelled,
            may_go_on=may_go_on,
        )
        result = transfer(disk, target, request)
    finally:
        target.close()
    generation = Generation(
        id=identity,
        image=content.image,
        target=place.target,
        role=GenerationRole.UPLOADED,
        created=now_text(),
        size_bytes=disk.size_bytes,
        source_key=content.source_key,
        image_digest=result.manifest.image_digest(),
        handle=handle_of(place, result.reference),
        parent_id=parent.generation_id,
        details={
            **content.details,
            "disk_guid": read_layout(disk).disk_guid,
            "keep_parent": content.keep_parent,
            "run": place.run,
            "stats": result.stats.as_dict(),
            "read_back": result.verified,
        },
    )
    place.state.manifests.put(identity, result.manifest)
    hand_to_catalogue(place, generation)
    place.state.journals.delete(identity)
    return generation


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
