# References: Compute Engine, "Naming resources"; "Handling API responses" (operations).
"""Making and deleting by name: a name exists once, which makes every request safe to repeat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from google.cloud.compute_v1.types import Operation

from imageport.cloud import Cancelled, never
from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.error_mapping import asked
from imageport.clouds.gcp.operations import finished
from imageport.clouds.waiting import retried, wait_for
from imageport.errors import CloudRefused, ResourceGone

TAKEN: Final = "alreadyExists"
IN_USE: Final = frozenset({"resourceInUseByAnotherResource", "resourceNotReady"})
"""What passes by itself: a machine that is just ending, an operation that still runs."""
DELETE_SECONDS: Final = 300.0

Request = Callable[[], Operation]


def make(
    account: GcpAccount,
    action: str,
    subject: str,
    request: Request,
    *,
    deadline_seconds: float,
    cancelled: Cancelled = never,
) -> bool:
    """Make a resource and wait for it; False when an earlier request had made it already.

    A request whose answer was lost is repeated, and finds what it made.

    Raises:
        CloudError: the request or its operation failed.
        TransferCancelled: ``cancelled`` said so; what was asked for may still be made.
    """

    def ask() -> Operation | None:
        try:
            with asked(action, subject):
                return request()
        except CloudRefused as error:
            if error.fields.get("gcp_code") != TAKEN:
                raise
            return None

    operation = retried(ask)
    if operation is None:
        return False
    finished(
        account, operation, action, subject, deadline_seconds=deadline_seconds, cancelled=cancelled
    )
    return True


def delete(
    account: GcpAccount,
    action: str,
    subject: str,
    request: Request,
    *,
    deadline_seconds: float = DELETE_SECONDS,
) -> None:
    """Delete a resource, wait until it is gone and close its ledger entry; gone is no error.

    Whatever still uses it is waited for.
    """

    def once() -> bool | None:
        try:
            with asked(action, subject):
                operation = request()
            finished(account, operation, action, subject, deadline_seconds=deadline_seconds)
        except ResourceGone:
            return True
        except CloudRefused as error:
            if error.fields.get("gcp_code") not in IN_USE:
                raise
            return None
        return True

    wait_for(subject, once, deadline_seconds, pulse=account.live)
    account.mark(subject, "deleted")
