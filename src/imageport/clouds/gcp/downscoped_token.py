# References: IAM, "Downscope short-lived credentials" (Credential Access Boundary); RFC 8693.
"""A token that can create objects in one folder, and can neither read, replace nor delete any."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, Final

from google.auth.downscoped import AccessBoundaryRule, AvailabilityCondition
from google.auth.downscoped import CredentialAccessBoundary as Boundary
from google.oauth2 import sts

from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.error_mapping import asked
from imageport.clouds.gcp.token_request import readable_answers
from imageport.clouds.waiting import retried
from imageport.errors import CloudUnavailable

ROLE: Final = "inRole:roles/storage.objectCreator"
GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a type's name
SHORTEST_SECONDS: Final = 60.0
"""What is assumed of a token whose end nobody tells: a metadata server keeps at least minutes."""


@dataclass(frozen=True, slots=True)
class DownscopedToken:
    """A token and how long it is good for, by the worker's clock."""

    value: str = field(repr=False)
    seconds: float


def creating_token(account: GcpAccount, folder: str) -> DownscopedToken:
    """Return a token that can create objects whose names begin with ``folder``.

    Raises:
        CloudError: the token service refuses, or does not answer.
    """
    endpoint = f"{account.settings.endpoint('sts')}/v1/token"
    boundary = _boundary(account.settings.bucket, folder)

    def ask() -> DownscopedToken:
        clients = account.clients
        with asked("sts.tokens.exchange", folder), readable_answers():
            # A new one each time: what is derived from it ends with it.
            clients.credentials.refresh(clients.token_request)
            answer: dict[str, Any] = sts.Client(endpoint).exchange_token(
                request=clients.token_request,
                grant_type=GRANT,
                subject_token=clients.credentials.token,
                subject_token_type=TOKEN_TYPE,
                requested_token_type=TOKEN_TYPE,
                additional_options=boundary.to_json(),
            )
        return _token(account, answer)

    return retried(ask)


def _boundary(bucket: str, folder: str) -> Boundary:
    place = f"projects/_/buckets/{bucket}/objects/{folder}"
    # The folder is made of names that have neither quotes nor backslashes (names.label_value).
    condition = AvailabilityCondition(f"resource.name.startsWith('{place}')")
    rule = AccessBoundaryRule(
        available_resource=f"//storage.googleapis.com/projects/_/buckets/{bucket}",
        available_permissions=[ROLE],
        availability_condition=condition,
    )
    return Boundary([rule])


def _token(account: GcpAccount, answer: dict[str, Any]) -> DownscopedToken:
    value = answer.get("access_token")
    if not isinstance(value, str) or not value:
        raise CloudUnavailable("Cannot restrict a token: the token service answered with none.")
    seconds = answer.get("expires_in")
    if isinstance(seconds, (int, float)) and seconds > 0:
        return DownscopedToken(value, float(seconds))
    # Some exchanges tell no end: it is that of the token before.
    expiry: Any = account.clients.credentials.expiry
    # google-auth keeps it without a zone, in UTC.
    left = expiry.replace(tzinfo=UTC).timestamp() - time.time() if expiry else SHORTEST_SECONDS
    return DownscopedToken(value, max(left, SHORTEST_SECONDS))
