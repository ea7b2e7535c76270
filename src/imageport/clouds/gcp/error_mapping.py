# References: Compute Engine, "Troubleshooting API errors"; Cloud Storage JSON API, "HTTP status and
# error codes"; google.rpc.ErrorInfo; google-auth, "exceptions".
"""From what Google's clients raise to the errors that the rest of this project knows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import requests
from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError
from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError
from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]

from imageport.clouds.secret_urls import shows_secret, without_secrets
from imageport.errors import (
    CloudError,
    CloudRefused,
    CloudThrottled,
    CloudUnavailable,
    PermissionMissing,
    ResourceGone,
)

TAKEN: Final = frozenset({"alreadyExists", "RESOURCE_ALREADY_EXISTS"})
"""What ``gcp_code`` holds, of an answer and of an operation, when a name is in use."""
CHANGED: Final = "conditionNotMet"
"""What ``gcp_code`` holds when a precondition of an object did not hold."""

_THROTTLED: Final = {
    "rateLimitExceeded",
    "userRateLimitExceeded",
    "resourceOperationRateExceeded",
    "tooManyRequests",
    "RATE_LIMIT_EXCEEDED",
    "RESOURCE_OPERATION_RATE_EXCEEDED",
}
_DENIED: Final = {
    "forbidden",
    "insufficientPermissions",
    "required",
    "FORBIDDEN",
    "IAM_PERMISSION_DENIED",
    "PERMISSIONS_ERROR",
    "PERMISSION_DENIED",
}
_CAPACITY: Final = re.compile(r"(RESOURCE_POOL_EXHAUSTED|STOCKOUT|resourcePoolExhausted)")
_QUOTA: Final = re.compile(r"quota_?(?:limit_)?exceeded", re.IGNORECASE)
_PASSES: Final = {
    "backendError",
    "internalError",
    "operationInProgress",
    "resourceNotReady",
    "INTERNAL_ERROR",
    "RESOURCE_NOT_READY",
    "SERVER_ERROR",
    "TIMEOUT",
    "UNAVAILABLE",
}
_GONE: Final = {"notFound", "RESOURCE_NOT_FOUND", "NOT_FOUND"}
_SET_UP: Final = {
    "accessNotConfigured": "Enable the API that the message names in the project.",
    "SERVICE_DISABLED": "Enable the API that the message names in the project.",
    "billingNotEnabled": "Enable billing for the project.",
    "accountDisabled": "The project's billing is switched off: mend that first.",
    "conditionNotMet": "Somebody else changed it meanwhile; start again.",
    "INVALID_IMAGE_FILE": "Google does not take the archive; set archive to 'stream' in the Google "
    "Cloud target to send a plain one.",
    "UNSUPPORTED_OPERATION": "Check machine type, network adapter and disk type in the Google "
    "Cloud target.",
}
_POLICY: Final = re.compile(
    r"constraints/\w+|vpcServiceControls|prohibited by organization's policy", re.IGNORECASE
)
"""Of an organization, which Google tells as a missing permission or a failed precondition."""
_NO_BUCKET: Final = re.compile(r"specified bucket does not exist", re.IGNORECASE)
_DAMAGED: Final = re.compile(r"doesn't match calculated", re.IGNORECASE)
"""Bytes that arrived otherwise than they were sent."""
_NO_OBJECT: Final = re.compile(r"No such object: \S+/")
"""The whole answer to reading an object that is not there, without any JSON."""
_NAMED_PERMISSION: Final = re.compile(
    r"(?:[Rr]equired '|does not have |[Pp]ermission ')([a-z]+(?:\.[A-Za-z]+){2})"
)
_REFUSED_LOGIN: Final = re.compile(
    r"invalid_(grant|client|request|target|scope)|unauthorized_client|access_denied"
    r"|PERMISSION_DENIED|Reauthentication"
)
"""What token services say to credentials that will not become good by asking again."""

_QUOTA_HINT: Final = "Raise the quota of the project, or run fewer images at a time."
_CAPACITY_HINT: Final = "Wait, or name another machine type or zone in the Google Cloud target."
_POLICY_HINT: Final = (
    "A policy of the organization forbids it, whatever the credentials may do: ask for an "
    "exception, or name what it allows in the Google Cloud target."
)
_BUCKET_HINT: Final = "Check bucket and project in the Google Cloud target."
LOGIN_HINT: Final = (
    "Check the credentials of the worker (account, federation or block) and its clock."
)


@contextmanager
def asked(action: str, subject: str) -> Iterator[None]:
    """Translate what Google's clients raise inside the block.

    Args:
        action: The call, ``compute.images.insert``, or the permission that it needs.
        subject: What the call is about, for the message; of an id only the name is shown.
    """
    try:
        yield
    except (
        GoogleAPIError,
        GoogleAuthError,
        ParseError,
        requests.RequestException,
    ) as error:
        mapped = map_error(error, action, subject)
        if shows_secret(error):
            # The URL of an upload session, or a signed one, would be printed with the traceback.
            raise mapped from None
        raise mapped from error


def map_error(error: Exception, action: str, subject: str) -> CloudError:
    """Return the error of our tree that says what the caller can do about ``error``."""
    if isinstance(error, GoogleAPICallError) and error.code is not None:
        code, text = _answer(error)
        return error_of(code, text, int(error.code), action, subject)
    text = without_secrets(_sentence(error))
    message = f"{_cannot(action, subject)}: {text}"
    facts: dict[str, Any] = {"action": action, "gcp_code": "", "status": 0}
    if "CERTIFICATE_VERIFY_FAILED" in text or "certificate verify failed" in text:
        hint = "Name the private certificate authority's bundle in the target (ca_bundle)."
        return CloudRefused(message, hint=hint, **facts)
    if isinstance(error, GoogleAuthError):
        return _map_login(error, message, facts)
    return CloudUnavailable(message, **facts)


def _sentence(error: Exception) -> str:
    """Return what an error says; that of a login also holds the parsed answer, which is no text."""
    texts = [item for item in error.args if isinstance(item, str)]
    return "; ".join(texts) if isinstance(error, GoogleAuthError) and texts else str(error)


def error_of(code: str, text: str, status: int, action: str, subject: str) -> CloudError:
    """Return the error for a code that Google names, of an answer or of an operation.

    Args:
        code: Google's word, ``alreadyExists``, ``QUOTA_EXCEEDED``; "" when it names none.
        text: Its sentence.
        status: HTTP status; 0 when there is none.
        action: As for `asked`.
        subject: As for `asked`.
    """
    kind, hint = _kind(code, text, status)
    facts: dict[str, Any] = {"action": action, "gcp_code": code, "status": status}
    if kind is PermissionMissing:
        return _denied(text, facts, subject)
    said = without_secrets(text)
    message = f"{_cannot(action, subject)}: {code or f'HTTP {status}'}: {said}"
    return kind(message, hint=hint, **facts)


def _kind(code: str, text: str, status: int) -> tuple[type[CloudError], str]:
    """Return the class of error and what to do about it; what is first in the table counts."""
    denied = code in _DENIED or (status == 403 and not code)
    table: tuple[tuple[object, type[CloudError], str], ...] = (
        (status == 429 or code in _THROTTLED, CloudThrottled, ""),
        (_POLICY.search(text), CloudRefused, _POLICY_HINT),
        (code in _SET_UP, CloudRefused, _SET_UP.get(code, "")),
        (_QUOTA.search(code), CloudRefused, _QUOTA_HINT),
        (_CAPACITY.search(code), CloudUnavailable, _CAPACITY_HINT),
        (status == 401, CloudRefused, LOGIN_HINT),
        (denied, PermissionMissing, ""),
        (code in _PASSES or _may_pass(code, status), CloudUnavailable, ""),
        (_DAMAGED.search(text), CloudUnavailable, ""),
        (_NO_BUCKET.search(text), CloudRefused, _BUCKET_HINT),
        (status in {404, 410} or code in _GONE, ResourceGone, ""),
    )
    found = next((row for row in table if row[0]), (True, CloudRefused, ""))
    return found[1], found[2]


def _denied(text: str, facts: dict[str, Any], subject: str) -> PermissionMissing:
    cannot = _cannot(facts["action"], subject)
    named = _NAMED_PERMISSION.search(text)
    facts["action"] = named[1] if named else facts["action"]
    # A sentence without a permission may be a proxy's, or tell what no role would mend.
    said = "" if named else f" Google says: {without_secrets(text)}"
    return PermissionMissing(f"{cannot}: the credentials lack {facts['action']}.{said}", **facts)


def _map_login(error: GoogleAuthError, message: str, facts: dict[str, Any]) -> CloudError:
    """Tell a token service that did not answer from one that refused.

    Hours of upload must not end with the first.
    """
    silent = isinstance(error, TransportError) or bool(getattr(error, "retryable", False))
    broken = isinstance(error, RefreshError) and re.search(r"\b(429|50[0234])\b", str(error))
    if (silent or broken) and not _REFUSED_LOGIN.search(str(error)):
        return CloudUnavailable(message, hint=LOGIN_HINT, **facts)
    return CloudRefused(message, hint=LOGIN_HINT, **facts)


def _may_pass(code: str, status: int) -> bool:
    """Tell whether the same request may be answered otherwise a little later."""
    # An answer, but not one of Google's: of a proxy or gateway on the way. Google names what is
    # gone.
    garbled = not code and (status < 400 or status == 404)
    return (garbled and status != 0) or status >= 500 or status == 408


def _answer(error: GoogleAPICallError) -> tuple[str, str]:
    """Return Google's word for what is wrong, and its sentence."""
    document = _document(error)
    listed = document.get("errors") or [{}]
    details = document.get("details") or []
    informed = [str(item.get("reason", "")) for item in details if isinstance(item, dict)]
    first = listed[0] if isinstance(listed[0], dict) else {}
    code = str(
        first.get("reason") or next(filter(None, informed), "") or document.get("status", "")
    )
    return code, str(document.get("message") or first.get("message") or error.message)


def _document(error: GoogleAPICallError) -> dict[str, Any]:
    response = error.response
    if not isinstance(response, requests.Response):
        return {"errors": list(error.errors or [])}
    try:
        found = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        # The object store answers some requests with a line of text, some with XML.
        message = response.text.strip()[:2000]
        named = re.search(r"<Code>(\w+)</Code>", message)
        code = named[1] if named else "notFound" if _NO_OBJECT.match(message) else ""
        return {"status": code, "message": message}
    return found if isinstance(found, dict) else {"message": str(found)}


def _cannot(action: str, subject: str) -> str:
    """Return ``Cannot insert image 'NAME'`` for ``compute.images.insert`` and an id."""
    parts = action.split(".")
    verb = _words(parts[-1])
    if len(parts) > 1:
        verb += f" {_words(parts[-2]).removesuffix('s')}"
    name = subject.rsplit("/", maxsplit=1)[-1] if subject.startswith("projects/") else subject
    return f"Cannot {verb} '{without_secrets(name)}'"


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower()
