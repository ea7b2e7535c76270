"""Counting what a transfer did, from many threads, and telling it a few times a second."""

from __future__ import annotations

import threading
import time

from imageport.model import BLOCK_BYTES, TransferStats
from imageport.progress import EventSink, Stage

TELL_SECONDS = 0.25
"""Four events a second are enough for any display and few enough for an API."""


class ProgressCount:
    """The figures of one transfer."""

    def __init__(self, stage: str, events: EventSink, blocks_planned: int) -> None:
        self._stage = Stage(stage, events, total=blocks_planned * BLOCK_BYTES)
        self._lock = threading.Lock()
        self._planned = blocks_planned * BLOCK_BYTES
        self._untold = 0
        self._told = time.monotonic()
        self._started = time.monotonic()
        self._sent = self._copied = self._resumed = self._requests = self._retries = 0

    def resumed(self, put_blocks: int, same_blocks: int) -> None:
        """Count blocks that an earlier run left behind it."""
        self._resumed = put_blocks * BLOCK_BYTES
        if put_blocks + same_blocks == 0:
            return
        self._stage.advance((put_blocks + same_blocks) * BLOCK_BYTES, "resumed from the journal")

    def requested(self) -> None:
        """Count one attempt to put or to take from the parent, of however many blocks."""
        with self._lock:
            self._requests += 1

    def retried(self) -> None:
        """Count one repeated request."""
        with self._lock:
            self._retries += 1

    def done(self, *, sent: bool = False, copied: bool = False, resumed: bool = False) -> None:
        """Count one block that is at the target now."""
        with self._lock:
            self._resumed += BLOCK_BYTES if resumed else 0
            self._sent += BLOCK_BYTES if sent else 0
            self._copied += BLOCK_BYTES if copied else 0
            self._untold += BLOCK_BYTES
            now = time.monotonic()
            if now - self._told >= TELL_SECONDS:
                self._tell(now)

    def note(self, sentence: str) -> None:
        """Say one sentence."""
        with self._lock:
            self._stage.note(sentence)

    def finish(self, sentence: str) -> None:
        """Tell the rest and that the stage is finished."""
        with self._lock:
            self._tell(time.monotonic())
            self._stage.finish(sentence)

    def stats(self, size_bytes: int, bytes_read: int) -> TransferStats:
        """Return the figures; skipped is what of the disk did not have to move at all."""
        with self._lock:
            return TransferStats(
                bytes_planned=self._planned,
                bytes_read=bytes_read,
                bytes_sent=self._sent,
                bytes_copied=self._copied,
                bytes_skipped=max(0, size_bytes - self._sent - self._copied - self._resumed),
                bytes_resumed=self._resumed,
                requests=self._requests,
                retries=self._retries,
                seconds=time.monotonic() - self._started,
            )

    def _tell(self, now: float) -> None:
        if self._untold:
            self._stage.advance(self._untold)
        self._untold, self._told = 0, now
