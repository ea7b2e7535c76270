# References: Compute Engine, "Naming resources"; "Handling API responses" (operations).
"""Making and deleting by name: a name exists once, which makes every request safe to repeat."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from imageport.cloud import Cancelled, never
from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.error_mapping import TAKEN, asked
from imageport.clouds.gcp.operations import check_success, ended, finished
from imageport.clouds.waiting import retried, wait_for
from imageport.errors import CloudError, CloudRefused, CloudUnavailable, ResourceGone

if TYPE_CHECKING:
    from google.cloud.compute_v1.types import Operation

_NO_CAPACITY: Final = re.compile("POOL_EXHAUSTED|STOCKOUT")
DELETE_SECONDS: Final = 300.0

Request = Callable[[], "Operation"]
Insertion = Callable[[str], "Operation"]
"""Asks with the ``requestId`` that it is given."""


def make(  # noqa: PLR0913 - what is asked for, and how long and as whom it is waited for
    account: GcpAccount,
    action: str,
    subject: str,
    insert: Insertion,
    *,
    deadline_seconds: float,
    cancelled: Cancelled = never,
    request_id: str = "",
) -> bool:
    """Make a resource and wait for it; False when an earlier call had made it already.

    A request whose answer was lost is repeated with its id, which Google answers with the
    operation that the first one began: only then is it known that, and when, the resource is
    there. An operation that failed on Google's side is begun anew. ``request_id`` is that of a
    process that may have been killed before it saw the end.

    Raises:
        CloudError: the request or its operation failed.
        TransferCancelled: ``cancelled`` said so; what was asked for may still be made.
    """
    request_id = request_id or str(uuid.uuid4())

    def once() -> bool | CloudUnavailable:
        nonlocal request_id
        try:
            with asked(action, subject):
                operation = insert(request_id)
            operation = ended(
                account, operation, subject, deadline_seconds=deadline_seconds, cancelled=cancelled
            )
            request_id = str(uuid.uuid4())
            check_success(operation, action, subject)
        except CloudRefused as error:
            if error.fields.get("gcp_code") not in TAKEN:
                raise
            return False
        except CloudUnavailable as error:
            if is_no_capacity(error):
                return error  # nothing that passes within minutes
            raise
        return True

    made = retried(once)
    if isinstance(made, CloudUnavailable):
        raise made
    return made


def is_no_capacity(error: CloudError) -> bool:
    """Tell whether the zone has no room for what was asked for."""
    return bool(_NO_CAPACITY.search(str(error.fields.get("gcp_code", ""))))


def delete(
    account: GcpAccount,
    action: str,
    subject: str,
    request: Request,
    *,
    deadline_seconds: float = DELETE_SECONDS,
) -> None:
    """Delete a resource, wait until it is gone and close its ledger entry; gone is no error.

    A failure that may pass is waited out; what something still uses is refused.
    """

    def once() -> bool:
        try:
            with asked(action, subject):
                operation = request()
            finished(account, operation, action, subject, deadline_seconds=deadline_seconds)
        except ResourceGone:
            pass
        return True

    wait_for(subject, once, deadline_seconds, pulse=account.live)
    account.mark(subject, "deleted")
