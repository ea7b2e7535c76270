"""How emulated clouds limit the rate of calls, and which of them fail."""

from __future__ import annotations

import random
import threading
import time


class Chance:
    """Decides which requests fail; the same seed and order of requests give the same faults."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._lock = threading.Lock()

    def strikes(self, rate: float) -> bool:
        """Tell whether this request is one of the share ``rate``."""
        if rate <= 0:
            return False
        with self._lock:
            return self._random.random() < rate


class Rate:
    """A token bucket one second deep."""

    def __init__(self) -> None:
        self._tokens = -1.0
        self._at = time.monotonic()
        self._lock = threading.Lock()

    def allows(self, per_second: float) -> bool:
        """Take one token; False when there is none. 0 per second is no limit."""
        if per_second <= 0:
            return True
        with self._lock:
            now = time.monotonic()
            if self._tokens < 0:
                self._tokens = per_second
            self._tokens = min(max(per_second, 1.0), self._tokens + (now - self._at) * per_second)
            self._at = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True
