"""Which actions were asked for: what a custom role has to allow, and no more."""

from __future__ import annotations

import threading


class CallRecord:
    """The distinct actions and data actions of all requests so far; used from all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: set[str] = set()

    def record(self, action: str) -> None:
        """Note one action, ``Microsoft.Compute/disks/read``."""
        with self._lock:
            self._asked.add(action)

    def forget(self) -> None:
        """Start anew."""
        with self._lock:
            self._asked.clear()

    def all(self) -> list[str]:
        """Return them, sorted."""
        with self._lock:
            return sorted(self._asked)
