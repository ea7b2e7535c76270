"""The one retry layer: targets and clients below try once and say by class what may be repeated."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from imageport.errors import CloudThrottled, ImageportError, ResourceGone, TransferCancelled

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long one call is repeated.

    Pauses are drawn from 0 to a bound that doubles (full jitter), so that many workers which were
    refused together do not return together. Refusals for being too fast, and objects that a cloud
    does not know *yet*, are limited by time alone: they say nothing about the call.
    """

    max_attempts: int = 8
    budget_seconds: float = 120.0
    """A new EBS snapshot may be unknown to the block servers for two minutes (coldsnap #43)."""
    first_pause_seconds: float = 0.1
    longest_pause_seconds: float = 4.0


class Stop:
    """Says that a transfer ends; wakes whoever waits."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self.error: BaseException | None = None
        """The first error: the one that is raised."""

    def fail(self, error: BaseException) -> None:
        """Stop because of ``error``; later ones are consequences and not kept."""
        with self._lock:
            if self.error is None and not self._event.is_set():
                self.error = error
        self._event.set()

    def end(self) -> None:
        """Stop without an error."""
        self._event.set()

    def is_set(self) -> bool:
        """Tell whether the transfer ends."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep, but wake up when the transfer ends; tell whether it does."""
        return self._event.wait(seconds)


def retried(
    call: Callable[[], Result],
    stop: Stop,
    *,
    policy: RetryPolicy | None = None,
    on_retry: Callable[[ImageportError], None] | None = None,
    waited: Callable[[], float] = lambda: 0.0,
) -> Result:
    """Return what ``call`` returns, repeating it while its error says that this may help.

    ``waited`` tells the seconds that calls spent waiting for their turn; they are no part of the
    budget, because on a slow link a turn may take longer than that to come.
    Raises the last error, or `TransferCancelled` when the transfer ends during a pause.
    """
    policy = policy or RetryPolicy()
    started = time.monotonic()
    waited_before = waited()
    attempts = 0
    while True:
        try:
            return call()
        except ImageportError as error:
            attempts += 1
            spent = time.monotonic() - started - (waited() - waited_before)
            patient = isinstance(error, CloudThrottled) or isinstance(error.__cause__, ResourceGone)
            if (
                not error.retryable
                or spent >= policy.budget_seconds
                or (attempts >= policy.max_attempts and not patient)
            ):
                raise
            if on_retry is not None:
                on_retry(error)
            if stop.wait(_pause_seconds(policy, attempts)):
                raise TransferCancelled("Cannot go on with the transfer: it was ended.") from error


def _pause_seconds(policy: RetryPolicy, attempts: int) -> float:
    bound = policy.first_pause_seconds * 2 ** min(attempts - 1, 16)
    return random.uniform(0.0, min(bound, policy.longest_pause_seconds))  # noqa: S311 - no secret
