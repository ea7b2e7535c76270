"""The knobs that the data side of the emulated account reads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from imageport.model import MIB


class DataKnobs(Protocol):
    """Read at every request, so that a test may turn them while the service runs."""

    fault_rate: float
    seed: int
    mib_per_second: float
    denied: list[str]
    sas_seconds: float
    clock_skew_seconds: float
    checksum_refused: bool
    operation_timed_out_rate: float
    stuck_upload: int


Record = Callable[[str], None]
"""Told every data action that a request needs: ``Microsoft.Storage/…/blobs/write``."""


def no_record(_action: str) -> None:
    """Keep no record."""


def storage_clock(knobs: DataKnobs) -> float:
    """Return the storage servers' time: behind that of ARM and of clients by the skew."""
    return time.time() - knobs.clock_skew_seconds


class ByteRate:
    """A token bucket one second deep; one request may overdraw it, the next ones then wait."""

    def __init__(self) -> None:
        self._tokens: float | None = None
        self._at = 0.0
        self._lock = threading.Lock()

    def allows(self, length_bytes: int, mib_per_second: float) -> bool:
        """Take so many bytes; False when the bucket is empty. 0 MiB a second is no limit."""
        if mib_per_second <= 0:
            return True
        limit = mib_per_second * MIB
        with self._lock:
            now = time.monotonic()
            before = limit if self._tokens is None else self._tokens
            self._tokens = min(limit, before + (now - self._at) * limit)
            self._at = now
            if self._tokens <= 0:
                return False
            self._tokens -= length_bytes
            return True
