"""Waiting for the cloud: bounded, cancellable, quick at first and patient later."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from typing import TypeVar

from imageport.cloud import Cancelled, never
from imageport.errors import CloudError, CloudThrottled, CloudUnavailable, TransferCancelled

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
LONGEST_BACK_OFF_SECONDS = 4.0

Found = TypeVar("Found")


def wait_until(
    check: Callable[[], Found | None],
    deadline_seconds: float,
    *,
    cancelled: Cancelled = never,
    pulse: Callable[[], None] = lambda: None,
) -> Found | None:
    """Ask ``check`` until it answers with something; None when the deadline passed.

    A retryable `CloudError` of ``check`` counts as "not yet". ``pulse`` runs at every turn.

    Raises:
        TransferCancelled: ``cancelled`` said so.
    """
    end = time.monotonic() + deadline_seconds
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            found = check()
        except CloudError as error:
            if not error.retryable:
                raise
            found = None
        if found is not None:
            return found
        if cancelled():
            raise TransferCancelled("Cannot finish 'waiting for the cloud': the run was cancelled.")
        remaining = end - time.monotonic()
        if remaining <= 0:
            return None
        pulse()
        time.sleep(min(pause, remaining))
        pause = min(pause * 1.4, LONGEST_PAUSE_SECONDS)


def wait_for(
    subject: str,
    check: Callable[[], Found | None],
    deadline_seconds: float,
    *,
    cancelled: Cancelled = never,
    pulse: Callable[[], None] = lambda: None,
) -> Found:
    """Wait like `wait_until`; a passed deadline is `CloudUnavailable`."""
    found = wait_until(check, deadline_seconds, cancelled=cancelled, pulse=pulse)
    if found is None:
        raise CloudUnavailable(
            f"Cannot wait longer for '{subject}': not there after {deadline_seconds:.0f} s."
        )
    return found


def retried(
    call: Callable[[], Found], *, attempts: int = 6, budget_seconds: float = 120.0
) -> Found:
    """Call again while the error says that it may pass: full jitter, bounded.

    Being too fast says nothing about the call: that is limited by time alone. For reading only;
    writes are paced and retried by the pipeline above their target.
    """
    end = time.monotonic() + budget_seconds
    for attempt in itertools.count(1):
        try:
            return call()
        except CloudError as error:
            spent = attempt >= attempts and not isinstance(error, CloudThrottled)
            if not error.retryable or spent or time.monotonic() > end:
                raise
        longest = min(LONGEST_BACK_OFF_SECONDS, 0.1 * 2 ** min(attempt, 8))
        time.sleep(random.uniform(0, longest))  # noqa: S311 - jitter
    raise AssertionError  # the loop returns or raises
