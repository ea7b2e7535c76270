"""Progress and reports as Prefect artifacts: one progress bar a stage, throttled, and log lines.

Every update of an artifact is a row in Prefect's event table, so there are few: one for each per
cent, never two within two seconds, and one every ten seconds while less than that moves.
"""

from __future__ import annotations

import contextvars
import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.logging import get_run_logger

from imageport.compose.contract import EngineReport
from imageport.compose.report_page import report_markdown
from imageport.model import GenerationRole
from imageport.progress import Event, EventKind, EventSink
from imageport.progress_text import amount, percent
from imageport.state.records import Generation
from imageport.workflow.generations import engine_place
from tasks._branch import current_branch

RunLogger = logging.Logger | logging.LoggerAdapter[logging.Logger]

EVERY_SECONDS = 10.0
AT_LEAST_SECONDS = 2.0
AT_LEAST_PERCENT = 1.0
_LOOK_SECONDS = 0.25


def artifact_key(*words: str) -> str:
    """Return a key as Prefect takes it: lowercase, digits and single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")


def report_key(*words: str) -> str:
    """Return the key of a report about one image; several targets of one run have one each."""
    return artifact_key(*words, current_branch().name)


def publish_markdown(key: str, text: str, description: str) -> None:
    """Store a report beside the run."""
    create_markdown_artifact(key=key, markdown=text, description=description)


def publish_report(generation: Generation) -> None:
    """Store what the engine changed in a generation, and what it found after the one boot."""
    names = ["composed"]
    if generation.role is GenerationRole.PREPARED:
        names.append("verified")
    reports = [generation.details[name] for name in names if name in generation.details]
    pages = [report_markdown(EngineReport.from_json(text)) for text in reports]
    publish_markdown(
        report_key("changes", generation.image),
        "\n".join(pages),
        f"What was changed in {generation.image}, at the {engine_place(generation)}.",
    )


@dataclass
class _Shown:
    """One stage: where it is, and what the artifact says."""

    started: float
    event: Event
    ended: float | None = None
    """When it finished; its task may go on for long."""
    artifact: UUID | None = None
    percent: float = -1.0
    text: str = ""
    at: float = 0.0
    logged: float = 0.0


class _StageArtifacts:
    """Takes events from any thread; a thread of its own talks to the server."""

    def __init__(self, image: str, logger: RunLogger) -> None:
        self._image = image
        self._logger = logger
        self._branch = current_branch().name
        self._stages: dict[str, _Shown] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def __call__(self, event: Event) -> None:
        """Remember where a stage is; sentences go to the run's log at once."""
        now = time.monotonic()
        with self._lock:
            shown = self._stages.setdefault(event.stage, _Shown(now, event))
            if event.kind is EventKind.STARTED:
                shown.started = now
            shown.event = event
            shown.ended = now if event.kind is EventKind.FINISHED else None
            says = bool(event.note) or shown.ended is not None
            if says:
                shown.logged = now
        if says:
            self._logger.info(self._line(event, now - shown.started))

    def run(self) -> None:
        """Publish what is due until `end`; a server that does not answer costs no transfer."""
        while not self._ended.wait(_LOOK_SECONDS):
            self._publish(final=False)
        self._publish(final=True)

    def end(self) -> None:
        """Make `run` publish the last state and return."""
        self._ended.set()

    def _publish(self, *, final: bool) -> None:
        now = time.monotonic()
        with self._lock:
            stages = list(self._stages.values())
        for shown in stages:
            reached = self._percent(shown.event)
            if final or self._is_due(shown, reached, now):
                try:
                    self._show(shown, reached, now)
                except Exception:  # a progress bar must never end a transfer
                    self._logger.debug("progress of %s not shown", shown.event.stage)

    def _is_due(self, shown: _Shown, reached: float, now: float) -> bool:
        if shown.artifact is None:
            return True
        if now - shown.at < AT_LEAST_SECONDS or reached == shown.percent:
            return False
        return abs(reached - shown.percent) >= AT_LEAST_PERCENT or now - shown.at >= EVERY_SECONDS

    def _show(self, shown: _Shown, reached: float, now: float) -> None:
        text = self._line(shown.event, (shown.ended or now) - shown.started)
        if shown.artifact is not None and (reached, text) == (shown.percent, shown.text):
            return
        if shown.artifact is None:
            key = report_key(shown.event.stage, self._image)
            made = create_progress_artifact(reached, key=key, description=text)
            shown.artifact = cast("UUID", made)
        else:
            update_progress_artifact(shown.artifact, reached, description=text)
        if shown.ended is None and now - max(shown.logged, shown.started) >= EVERY_SECONDS:
            self._logger.info(text)
            shown.logged = now
        shown.percent, shown.text, shown.at = reached, text, now

    def _percent(self, event: Event) -> float:
        return 100.0 if event.kind is EventKind.FINISHED else percent(event.done, event.total)

    def _line(self, event: Event, seconds: float) -> str:
        words = [amount(event.done, event.total, event.unit, seconds)] if event.done else []
        if event.note:
            words.append(event.note)
        if event.kind is EventKind.FINISHED:
            words.append(f"finished in {seconds:.0f} s")
        target = f"[{self._branch}] " if self._branch else ""
        return f"{event.stage}: {target}{'; '.join(words or ['started'])}"


@contextmanager
def shown_progress(image: str) -> Iterator[EventSink]:
    """Show the stages of one task as artifacts and log lines of the current run."""
    stages = _StageArtifacts(image, get_run_logger())
    # Artifacts find their run, and Prefect its settings, in context variables.
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(stages.run,), name="progress", daemon=True)
    thread.start()
    try:
        yield stages
    finally:
        stages.end()
        thread.join(timeout=15)
