"""Progress as events: the library emits, terminal bars, artifacts and JSON lines subscribe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class EventKind(StrEnum):
    """What happened to a stage."""

    STARTED = "started"
    ADVANCED = "advanced"
    REWOUND = "rewound"
    """Work had to be done again (retry, lost target): ``done`` goes back."""
    NOTED = "noted"
    """A sentence for the log; no numbers change."""
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Event:
    """One step of progress of a stage.

    ``done`` and ``total`` are in ``unit`` (bytes, blocks, steps); ``total`` 0 means unknown.
    """

    stage: str
    kind: EventKind
    done: int = 0
    total: int = 0
    unit: str = "bytes"
    note: str = ""


EventSink = Callable[[Event], None]
"""Called from any thread; must be quick and must not raise."""


def silent(_event: Event) -> None:
    """Drop events; for callers that do not care."""


class Stage:
    """Emits the events of one stage to a sink, so callers say only what advanced."""

    def __init__(self, name: str, sink: EventSink, *, total: int = 0, unit: str = "bytes") -> None:
        self.name = name
        self.total = total
        self.done = 0
        self._sink = sink
        self._unit = unit
        self._emit(EventKind.STARTED)

    def advance(self, amount: int, note: str = "") -> None:
        """Add ``amount`` to what is done."""
        self.done += amount
        self._emit(EventKind.ADVANCED, note)

    def rewind(self, amount: int, note: str = "") -> None:
        """Take ``amount`` back: it has to be done again."""
        self.done = max(0, self.done - amount)
        self._emit(EventKind.REWOUND, note)

    def note(self, sentence: str) -> None:
        """Say one sentence."""
        self._emit(EventKind.NOTED, sentence)

    def finish(self, note: str = "") -> None:
        """Mark the stage finished."""
        self._emit(EventKind.FINISHED, note)

    def _emit(self, kind: EventKind, note: str = "") -> None:
        self._sink(Event(self.name, kind, self.done, self.total, self._unit, note))
