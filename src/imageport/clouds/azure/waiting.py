"""Waiting for an operation of Azure Resource Manager that the SDK polls."""

from __future__ import annotations

import time
from typing import TypeVar

from azure.core.polling import LROPoller

from imageport.cloud import Cancelled, never
from imageport.clouds.azure.account import AzureAccount
from imageport.clouds.azure.error_mapping import asked
from imageport.clouds.waiting import retried, wait_for, wait_until
from imageport.errors import CloudUnavailable, TransferCancelled

__all__ = ["OPERATION_SECONDS", "finished", "retried", "wait_for", "wait_until"]

OPERATION_SECONDS = 600.0
WAIT_SECONDS = 2.0
"""Between two looks at whether the run was cancelled; the SDK asks Azure meanwhile."""

Answer = TypeVar("Answer")


def finished(
    account: AzureAccount,
    poller: LROPoller[Answer],
    action: str,
    subject: str,
    *,
    deadline_seconds: float = OPERATION_SECONDS,
    cancelled: Cancelled = never,
) -> Answer:
    """Wait for an operation and return its answer.

    Raises:
        CloudUnavailable: not finished by the deadline; it goes on without us.
        TransferCancelled: ``cancelled`` said so.
    """
    end = time.monotonic() + deadline_seconds
    while True:
        with asked(action, subject):
            poller.wait(WAIT_SECONDS)
            if poller.done():
                return poller.result()
        account.live()
        name = subject.rsplit("/", maxsplit=1)[-1]
        if cancelled():
            raise TransferCancelled(f"Cannot finish 'waiting for {name}': the run was cancelled.")
        if time.monotonic() >= end:
            raise CloudUnavailable(
                f"Cannot wait longer for '{name}': not finished after {deadline_seconds:.0f} s."
            )
