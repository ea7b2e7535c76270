# References: Cloud Storage, "IAM permissions for JSON methods"; RFC 6750 (bearer tokens).
"""Who may do what in the bucket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from imageport.sandbox.gcp.call_record import CallRecord
from imageport.sandbox.gcp.gcs_messages import GcsRefusal
from imageport.sandbox.gcp.knobs import Knobs
from imageport.sandbox.gcp.token_store import CLOUD_PLATFORM, BadToken, Caller, TokenStore

CREATE: Final = "storage.objects.create"
DELETE: Final = "storage.objects.delete"
GET: Final = "storage.objects.get"
LIST: Final = "storage.objects.list"
UPDATE: Final = "storage.objects.update"
BUCKET_GET: Final = "storage.buckets.get"
_STORAGE_SCOPE: Final = "https://www.googleapis.com/auth/devstorage."
_WRITE_SCOPES: Final = {CLOUD_PLATFORM, f"{_STORAGE_SCOPE}read_write"}
_READ_SCOPES: Final = {
    *_WRITE_SCOPES,
    f"{_STORAGE_SCOPE}read_only",
    "https://www.googleapis.com/auth/cloud-platform.read-only",
}
_FULL: Final = f"{_STORAGE_SCOPE}full_control"


@dataclass(frozen=True, slots=True)
class Access:
    """One caller's access to the bucket."""

    caller: Caller
    knobs: Knobs
    calls: CallRecord

    def check(self, permission: str, name: str = "", list_prefix: str | None = None) -> None:
        """Refuse with 403 when the caller lacks a permission; it is recorded as needed."""
        self.calls.record(permission)
        if not self.has(permission, name, list_prefix):
            raise forbidden(self.caller.email, permission, name)

    def check_read(self, name: str, *, is_there: bool) -> None:
        """Refuse with 403 who may not read, and of what is missing who may not list the bucket."""
        self.check(GET, name)
        if not is_there and not self.has(LIST, list_prefix=name):
            raise forbidden(self.caller.email, GET, name)

    def has(self, permission: str, name: str = "", list_prefix: str | None = None) -> bool:
        """Tell whether the caller has a permission for an object, or for the bucket."""
        reads = permission in {GET, LIST, BUCKET_GET}
        if not self.caller.scopes & ({*(_READ_SCOPES if reads else _WRITE_SCOPES), _FULL}):
            return False
        if permission in self.knobs.denied or not self.caller.email:
            return False
        boundary = self.caller.boundary
        return boundary is None or boundary.allows(permission, name, list_prefix)


def bearer(tokens: TokenStore, authorization: str) -> Caller:
    """Return who a request's ``Authorization`` header says is asking.

    Raises:
        GcsRefusal: 401, when there is none, or its token is unknown or over.
    """
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        text = (
            "Anonymous caller does not have storage.objects.get access to the Google Cloud "
            "Storage object."
        )
        raise _unauthorized("required", text)
    try:
        return tokens.find(token.strip())
    except BadToken as error:
        raise _unauthorized("authError", "Invalid Credentials") from error


def forbidden(email: str, permission: str, name: str) -> GcsRefusal:
    """Return the refusal of somebody who lacks a permission."""
    where = "Google Cloud Storage object" if name else "Google Cloud Storage bucket"
    text = (
        f"{email or 'Caller'} does not have {permission} access to the {where}. Permission "
        f"'{permission}' denied on resource (or it may not exist)."
    )
    return GcsRefusal(403, "forbidden", text)


def _unauthorized(reason: str, message: str) -> GcsRefusal:
    refusal = GcsRefusal(401, reason, message)
    refusal.location = ("header", "Authorization")
    refusal.headers["WWW-Authenticate"] = 'Bearer realm="https://accounts.google.com/"'
    return refusal
