# References: Compute Engine REST v1, "globalOperations"; "Handling API responses".
"""Waiting for an operation by our own client.

Google's ``.result()`` asks at the public address although the client was given another: behind a
private endpoint it waits for nothing, and in a laboratory it leaves the computer.
"""

from __future__ import annotations

import time
from typing import Final

from google.cloud.compute_v1.types import Operation

from imageport.cloud import Cancelled, never
from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.error_mapping import asked, error_of
from imageport.clouds.waiting import FIRST_PAUSE_SECONDS
from imageport.errors import CloudError, CloudUnavailable, ResourceGone, TransferCancelled

OPERATION_SECONDS: Final = 600.0


def finished(
    account: GcpAccount,
    operation: Operation,
    action: str,
    subject: str,
    *,
    deadline_seconds: float = OPERATION_SECONDS,
    cancelled: Cancelled = never,
) -> Operation:
    """Wait for an operation and return it as it ended.

    Args:
        account: Whose clients ask.
        operation: What ``insert_unary`` and the like returned.
        action: The call that began it, for errors.
        subject: What it is about, for errors.
        deadline_seconds: How long to wait.
        cancelled: Asked at every turn.

    Raises:
        CloudError: what the operation ended with.
        CloudUnavailable: not finished by the deadline; it goes on without us.
        TransferCancelled: ``cancelled`` said so; the operation goes on without us.
    """
    operation = ended(
        account, operation, subject, deadline_seconds=deadline_seconds, cancelled=cancelled
    )
    check_success(operation, action, subject)
    return operation


def ended(
    account: GcpAccount,
    operation: Operation,
    subject: str,
    *,
    deadline_seconds: float = OPERATION_SECONDS,
    cancelled: Cancelled = never,
) -> Operation:
    """Wait like `finished`, and return an operation that failed, too (`check_success`)."""
    end = time.monotonic() + deadline_seconds
    longest = account.clients.poll_seconds
    pause = min(FIRST_PAUSE_SECONDS, longest)
    while operation.status != Operation.Status.DONE:
        name = subject.rsplit("/", maxsplit=1)[-1]
        if cancelled():
            raise TransferCancelled(f"Cannot finish 'waiting for {name}': the run was cancelled.")
        if time.monotonic() >= end:
            raise CloudUnavailable(
                f"Cannot wait longer for '{name}': not finished after {deadline_seconds:.0f} s."
            )
        account.live()
        time.sleep(pause)
        pause = min(pause * 1.4, longest)
        operation = _asked_again(account, operation, subject)
    return operation


def _asked_again(account: GcpAccount, operation: Operation, subject: str) -> Operation:
    """Return the operation as it is now, or as it was when Google does not answer.

    Raises:
        CloudUnavailable: Google knows the operation no more, or not yet. What it was about may be
            there and may be gone: whoever asked for it has to ask again.
    """
    clients, project = account.clients, account.settings.project
    zone, region = (url.rsplit("/", maxsplit=1)[-1] for url in (operation.zone, operation.region))
    try:
        if zone:
            with asked("compute.zoneOperations.get", subject):
                return clients.zone_operations.get(
                    project=project, zone=zone, operation=operation.name
                )
        if region:
            with asked("compute.regionOperations.get", subject):
                return clients.region_operations.get(
                    project=project, region=region, operation=operation.name
                )
        with asked("compute.globalOperations.get", subject):
            return clients.global_operations.get(project=project, operation=operation.name)
    except ResourceGone as error:
        raise CloudUnavailable(
            f"Cannot follow '{operation.name}' of '{subject}': Google does not know it."
        ) from error
    except CloudError as error:
        if not error.retryable:
            raise
        return operation


def check_success(operation: Operation, action: str, subject: str) -> None:
    """Raise the `CloudError` that an operation ended with, if any."""
    errors = list(operation.error.errors)
    if errors:
        text = "; ".join(item.message for item in errors)
        raise error_of(errors[0].code, text, 0, action, subject)
    if operation.http_error_status_code:
        text = operation.http_error_message
        raise error_of("", text, operation.http_error_status_code, action, subject)
