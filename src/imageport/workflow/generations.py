"""Entries of the catalogue as the stages write and find them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from imageport.model import GenerationRole
from imageport.state.records import Generation
from imageport.workflow.choices import EnginePlace
from imageport.workflow.place import Workplace


def generation_id(role: GenerationRole, *facts: str) -> str:
    """Return the id of a generation: the same work, done twice, has one entry."""
    digest = hashlib.sha256("\0".join((role.value, *facts)).encode()).hexdigest()
    return f"{role.value.lower()}-{digest[:20]}"


def now_text() -> str:
    """Return the time as the catalogue keeps it: UTC, ISO 8601, milliseconds, so that it sorts."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def composed_from(uploaded: Generation) -> str:
    """Return the key of the source content of an upload, composed or not."""
    return str(uploaded.details.get("composed_from", uploaded.source_key))


def engine_place(generation: Generation) -> EnginePlace:
    """Return where the engine composed a generation, or will: entries of before say nothing."""
    return EnginePlace(generation.details.get("engine", EnginePlace.CLOUD.value))


def snapshot_of(generation: Generation) -> str:
    """Return the cloud's reference of a generation."""
    return generation.handle["snapshot_id"]


def handle_of(place: Workplace, reference: str) -> dict[str, str]:
    """Return the handle to keep for a snapshot."""
    return {"cloud": place.cloud.name, "snapshot_id": reference}


def hand_to_catalogue(place: Workplace, generation: Generation) -> Generation:
    """Write a finished generation down; from here on no sweep touches its snapshot.

    Catalogue first: a crash between the two writes leaves an entry that the sweep respects.
    """
    place.state.catalogue.add(generation)
    reference = snapshot_of(generation)
    for entry in place.state.ledger.open_entries(site=place.site):
        if entry.resource_id == reference:
            place.state.ledger.mark(entry.id, "released")
    return generation


def usable(place: Workplace, generation: Generation | None) -> Generation | None:
    """Return the generation if the cloud still has it; forget it otherwise."""
    if generation is None or place.cloud.exists(snapshot_of(generation)):
        return generation
    place.state.catalogue.remove(generation.id)
    place.state.manifests.delete(generation.id)
    return None


def is_current(place: Workplace, generation_id_: str) -> bool:
    """Tell whether catalogue and cloud both still have a generation."""
    found = [item for item in place.state.catalogue.list() if item.id == generation_id_]
    return bool(found) and usable(place, found[0]) is not None
