"""Reading ahead from a cloud with several threads: in order, and in bounded memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Place = TypeVar("Place")


class ReadAhead:
    """Threads that fetch what is asked for next; started when first needed.

    May be used from several threads, each of which has its own ``ahead`` pieces.
    """

    def __init__(self, name: str, workers: int, ahead: int) -> None:
        """``ahead``: pieces asked for and not yet taken, the bound of the memory."""
        self._name = name
        self._workers = workers
        self._ahead = ahead
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def in_order(
        self, requests: Iterable[tuple[Place, Callable[[], bytes] | None]]
    ) -> Iterator[tuple[Place, bytes | None]]:
        """Yield what each request returns, in the order given; None where there is no request.

        An error of a request is raised when its turn comes.
        """
        waiting: deque[tuple[Place, Future[bytes] | None]] = deque()
        try:
            for place, request in requests:
                future = None if request is None else self._executor().submit(request)
                waiting.append((place, future))
                if len(waiting) >= self._ahead:
                    yield _taken(waiting)
            while waiting:
                yield _taken(waiting)
        finally:
            for _, future in waiting:
                if future is not None:
                    future.cancel()

    def close(self) -> None:
        """End the threads; may be called twice."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)

    def _executor(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix=self._name)
            return self._pool


def _taken(waiting: deque[tuple[Place, Future[bytes] | None]]) -> tuple[Place, bytes | None]:
    place, future = waiting.popleft()
    return place, None if future is None else future.result()
