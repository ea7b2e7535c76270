"""Work for several targets at once, a thread for each: one that fails stops no other."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from imageport.cloud import Cancelled
from imageport.clouds.secret_urls import without_queries
from imageport.errors import ImageportError

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Made]):
    """How the work for one target ended: with what it made, or with an error."""

    target: str
    made: Made | None
    error: Exception | None
    seconds: float

    @property
    def words(self) -> str:
        """Return what went wrong, with the code to look it up by and what to do; or nothing.

        Errors that are not ours may quote a URL, and what gives access stands behind its "?".
        """
        if isinstance(self.error, ImageportError):
            hint = f" {self.error.hint}" if self.error.hint else ""
            return f"{self.error.message} [{self.error.code}]{hint}"
        if self.error is None:
            return ""
        return f"{type(self.error).__name__}: {without_queries(str(self.error))}"


def side_by_side(
    targets: Sequence[str], work: Callable[[int, Cancelled], Made], *, at_once: int = 0
) -> list[Outcome[Made]]:
    """Call ``work`` with the number of each target and return how each ended.

    All go at once, or no more than ``at_once``. The second argument tells whether it is to end
    early, as when this thread was told to: then all have ended, or never begin, when the exception
    goes on. Threads see the context variables of this one.
    """
    ending = threading.Event()

    def timed(number: int) -> Outcome[Made]:
        started = time.monotonic()
        made, failed = None, None
        try:
            made = work(number, ending.is_set)
        except Exception as error:  # whatever it is: it is this target's outcome, and no other's
            failed = error
        return Outcome(targets[number], made, failed, time.monotonic() - started)

    threads = min(len(targets), at_once or len(targets)) or 1
    with ThreadPoolExecutor(threads, thread_name_prefix="target") as pool:
        try:
            futures: list[Future[Outcome[Made]]] = [
                pool.submit(contextvars.copy_context().run, timed, number)
                for number in range(len(targets))
            ]
            return [future.result() for future in futures]
        except BaseException:
            ending.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
