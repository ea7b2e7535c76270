"""How emulated clouds limit the rate of calls."""

from __future__ import annotations

import threading
import time


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
