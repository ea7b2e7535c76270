"""Uploads of one vDisk to several targets at once, as the tasks of a fan-out make them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from imageport.citrix.vdisk_store import VdiskStore
from imageport.cloud import Cancelled
from imageport.model import GenerationRole, TransferStats
from imageport.state.records import Generation
from imageport.workflow.fan_out import Outcome, side_by_side
from imageport.workflow.place import Workplace
from imageport.workflow.shared_source import SharedSource
from imageport.workflow.upload import stats_of, upload_opened


@dataclass(frozen=True, slots=True)
class Uploaded:
    """Generation U at one target, and what it took."""

    generation: Generation
    stats: TransferStats
    """Of this run; nothing where the target had this very content. What was read for others as
    well is in the figures of each."""
    bytes_read_alone: int
    """What was read of the source for this target only."""


@dataclass(frozen=True, slots=True)
class FanOut:
    """What became of one vDisk at all targets, in the order in which they were given."""

    outcomes: tuple[Outcome[Uploaded], ...]
    bytes_read: int
    """Of the source, for all of them."""


def upload_to_many(
    places: Sequence[Workplace], store: VdiskStore, vdisk: str, *, source_key: str
) -> FanOut:
    """Upload a vDisk to all targets at once, reading what several of them need once."""
    opened_store = contextlib.nullcontext(store)  # the caller's, and stays open
    with SharedSource(lambda: opened_store, vdisk, len(places)) as source:

        def work(number: int, ending: Cancelled) -> Uploaded:
            place, reader = places[number], source.readers[number]
            ended = replace(place, cancelled=lambda: ending() or place.cancelled())
            try:
                with reader.opened() as (facts, view):
                    before = _ids_at(place, facts.image)
                    generation = upload_opened(
                        ended, facts, view, source_key=source_key, known_of=reader.known_of
                    )
                stats = TransferStats() if generation.id in before else stats_of(generation)
                return Uploaded(generation, stats, view.bytes_read_alone)
            finally:
                reader.leave()

        outcomes = side_by_side([place.target for place in places], work)
        return FanOut(tuple(outcomes), source.bytes_read)


def _ids_at(place: Workplace, image: str) -> set[str]:
    listed = place.state.catalogue.list(
        image=image, target=place.target, role=GenerationRole.UPLOADED
    )
    return {generation.id for generation in listed}
