"""One job of the engine at the site, as a stage runs it: with the run's events and its stop."""

from __future__ import annotations

from pathlib import Path

from imageport.compose.contract import EngineJob, EngineReport
from imageport.compose.site_engine import run_site_engine
from imageport.formats.virtual_disk import VirtualDisk
from imageport.payload import unpacked_payload
from imageport.workflow.choices import PrepareChoices
from imageport.workflow.place import Workplace


def run_at_site(
    place: Workplace,
    disk: VirtualDisk,
    job: EngineJob,
    choices: PrepareChoices,
    payload: Path | None,
) -> EngineReport:
    """Return what the engine reports; ``payload`` is a zip. Errors: see `run_site_engine`."""
    with unpacked_payload(payload) as folder:
        return run_site_engine(
            disk,
            job,
            payload=folder,
            deadline_seconds=choices.engine_deadline_seconds,
            events=place.events,
            cancelled=place.cancelled,
        )
