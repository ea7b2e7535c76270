"""Ends a run at its n-th request, as ``kill -9`` does, whatever library sends the request."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from urllib3.connectionpool import HTTPConnectionPool

from tests.clouds.cloud_contract import Killed


class Wire:
    """Every HTTP request of this process; all clouds' clients use urllib3."""

    def __init__(self) -> None:
        self.requests = 0
        self.dies_at = 0
        """Number of the request at which the process dies; 0 = it lives."""
        self.after = False
        """The last request is still carried out; its answer reaches nobody."""
        self._send: Any = HTTPConnectionPool.urlopen
        self._lock = threading.Lock()

    @property
    def is_dead(self) -> bool:
        """Tell whether the process died: no clean-up of its own works any more."""
        return 0 < self.dies_at <= self.requests

    def send(self, pool: Any, *args: Any, **kwargs: Any) -> Any:
        """Send one request, or die."""
        with self._lock:
            dead = self.is_dead
            self.requests += 1
            dies_now = not dead and self.is_dead
        if dead or (dies_now and not self.after):
            raise Killed(f"request {self.requests}")
        answer = self._send(pool, *args, **kwargs)
        if dies_now:
            answer.close()
            answer.release_conn()
            raise Killed(f"answer to request {self.requests}")
        return answer

    @contextmanager
    def dying_at(self, number: int, *, after: bool) -> Iterator[None]:
        """Die at this request; alive again afterwards, as the next process is."""
        self.requests, self.dies_at, self.after = 0, number, after
        try:
            yield
        finally:
            self.dies_at = 0


@contextmanager
def tapped_wire() -> Iterator[Wire]:
    """Count, and possibly end, all requests of this process."""
    wire = Wire()

    def urlopen(pool: Any, *args: Any, **kwargs: Any) -> Any:
        return wire.send(pool, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HTTPConnectionPool, "urlopen", urlopen)
        yield wire


def spread(count: int, points: int) -> list[int]:
    """Return at most ``points`` numbers of 1…count, first and last among them."""
    if points >= count:
        return list(range(1, count + 1))
    return sorted({1 + round(step * (count - 1) / (points - 1)) for step in range(points)})
