"""Progress for people: one line a stage, rewritten on a terminal, throttled elsewhere."""

from __future__ import annotations

import threading
import time
from typing import TextIO

from imageport.progress import Event, EventKind
from imageport.progress_text import amount


class ProgressLines:
    """An event sink that prints; safe to call from several threads."""

    def __init__(self, stream: TextIO, *, every_seconds: float = 2.0) -> None:
        self._stream = stream
        self._every = 0.2 if stream.isatty() else every_seconds
        self._started: dict[str, float] = {}
        self._shown: dict[str, float] = {}
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        now = time.monotonic()
        with self._lock:
            started = self._started.setdefault(event.stage, now)
            due = now - self._shown.get(event.stage, 0.0) >= self._every
            if event.kind is EventKind.ADVANCED and not event.note and not due:
                return
            self._shown[event.stage] = now
            self._write(event, now - started)

    def say(self, stage: str, text: str, *, keep: bool = True) -> None:
        """Show a line that came as text; a line that is not kept is rewritten by the next."""
        with self._lock:
            self._line(f"{stage:<10} {text}", keep=keep)

    def _write(self, event: Event, seconds: float) -> None:
        if event.kind is EventKind.STARTED:
            return
        text = event.note or amount(event.done, event.total, event.unit, seconds)
        if event.kind is EventKind.FINISHED:
            text = f"{event.note or 'done'} ({seconds:.0f} s)"
        self._line(f"{event.stage:<10} {text}", keep=bool(event.note) or event.kind in _KEPT)

    def _line(self, text: str, *, keep: bool) -> None:
        if self._stream.isatty():
            self._stream.write(f"\r\033[K{text}" + ("\n" if keep else ""))
        else:
            self._stream.write(text + "\n")
        self._stream.flush()


_KEPT = {EventKind.FINISHED, EventKind.NOTED, EventKind.REWOUND}
