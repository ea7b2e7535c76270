"""Unpacks pieces of a disk in threads, ahead of who reads them, and hands them on in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from imageport.formats.virtual_disk import PIECE_BYTES

THREADS = 2
"""zlib lets go of the interpreter while it inflates; with two threads the reader, not the
inflating, sets the pace on two cores."""
JOBS_AHEAD = 8
"""Jobs of about 1 MiB each that wait at most: bounds memory, and covers a slow one."""

Pieces = Iterable[tuple[int, bytes]]


def in_order(jobs: Iterable[Callable[[], Pieces] | Pieces]) -> Iterator[tuple[int, bytes]]:
    """Yield what jobs return, in their order; what is no job (nothing to unpack) passes as it is.

    ``jobs`` is asked in the caller's thread, a few jobs ahead. What a job raises is raised in its
    turn, and no job is left running.
    """
    waiting: deque[Future[Pieces] | Pieces] = deque()
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="unpack")
    try:
        for job in jobs:
            waiting.append(pool.submit(job) if callable(job) else job)
            if len(waiting) > JOBS_AHEAD:
                yield from _finished(waiting.popleft())
        while waiting:
            yield from _finished(waiting.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _finished(item: Future[Pieces] | Pieces) -> Pieces:
    return item.result() if isinstance(item, Future) else item


def joined(pieces: Pieces) -> list[tuple[int, bytes]]:
    """Join neighbours to pieces of at most 1 MiB, and cut what is larger."""
    found: list[tuple[int, list[bytes]]] = []
    end, room = -1, 0
    for offset, data in pieces:
        for start in range(0, len(data), PIECE_BYTES):
            part = data[start : start + PIECE_BYTES]
            if offset + start != end or len(part) > room:
                found.append((offset + start, []))
                room = PIECE_BYTES
            found[-1][1].append(part)
            end, room = offset + start + len(part), room - len(part)
    return [(offset, b"".join(parts)) for offset, parts in found]
