"""What the catalogue keeps: the newest upload as the next delta's parent, two prepared images."""

from __future__ import annotations

from imageport.model import GenerationRole
from imageport.state.records import Generation
from imageport.workflow.generations import snapshot_of
from imageport.workflow.place import Workplace

KEPT_PREPARED = 2
"""The published one and the one before it: a way back that costs one snapshot's difference."""


def retire_superseded(place: Workplace, image: str) -> list[str]:
    """Delete generations of an image at this target that newer ones replace; return their ids.

    Snapshots of both clouds may share unchanged blocks but do not depend on each other: deleting
    a parent leaves its children whole. An upload that was not to be kept goes too, if the run that
    prepared it was killed before it could delete it.
    """
    prepared = place.state.catalogue.list(
        image=image, target=place.target, role=GenerationRole.PREPARED
    )
    parents = {generation.parent_id for generation in prepared}
    uploads = place.state.catalogue.list(
        image=image, target=place.target, role=GenerationRole.UPLOADED
    )
    retired = [
        uploaded.id
        for uploaded in uploads
        if uploaded.id in parents and retire_parent(place, uploaded)
    ]
    for role, kept in ((GenerationRole.UPLOADED, 1), (GenerationRole.PREPARED, KEPT_PREPARED)):
        found = place.state.catalogue.list(image=image, target=place.target, role=role)
        for generation in sorted(found, key=lambda item: item.created)[:-kept]:
            retire(place, generation)
            retired.append(generation.id)
    return retired


def retire_parent(place: Workplace, uploaded: Generation) -> bool:
    """Delete an upload whose operator does not want to pay for keeping it; True if it went."""
    unwanted = not uploaded.details.get("keep_parent", True)
    if unwanted:
        retire(place, uploaded)
    return unwanted


def retire(place: Workplace, generation: Generation) -> None:
    """Delete one generation in cloud and catalogue; cloud first, so that nothing is forgotten."""
    place.cloud.delete_snapshot(snapshot_of(generation))
    place.state.manifests.delete(generation.id)
    place.state.catalogue.remove(generation.id)
