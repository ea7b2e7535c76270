"""Waiting for an operation of Azure Resource Manager that the SDK polls."""

from __future__ import annotations

from typing import TypeVar

from azure.core.polling import LROPoller

from imageport.cloud import Cancelled, never
from imageport.clouds.azure.account import AzureAccount
from imageport.clouds.azure.error_mapping import asked
from imageport.clouds.waiting import retried, wait_for, wait_until

__all__ = ["OPERATION_SECONDS", "finished", "retried", "wait_for", "wait_until"]

OPERATION_SECONDS = 600.0

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
    wait_for(
        subject.rsplit("/", maxsplit=1)[-1],
        lambda: poller.done() or None,
        deadline_seconds,
        cancelled=cancelled,
        pulse=account.live,
    )
    with asked(action, subject):
        return poller.result()
