# References: Azure Resource Manager, "Common deployment errors"; Blob service, "Error codes".
"""What Azure answers, in the words of `imageport.errors`: the one place that knows its codes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)

from imageport.clouds.secret_urls import shows_secret, without_secrets
from imageport.errors import (
    CloudError,
    CloudRefused,
    CloudThrottled,
    CloudUnavailable,
    PermissionMissing,
    ResourceGone,
)

_THROTTLED: Final = {
    "TooManyRequests",
    "OperationTimedOut",  # a page blob that is asked for more than it can do
    "ServerBusy",
    "SubscriptionRequestsThrottled",
    "ResourceCollectionRequestsThrottled",
}
_DENIED: Final = {
    "AuthorizationFailed",
    "LinkedAuthorizationFailed",
    "AuthorizationPermissionMismatch",
    "InsufficientAccountPermissions",
}
_LOGIN: Final = {
    "AuthenticationFailed",
    "ExpiredAuthenticationToken",
    "InvalidAuthenticationInfo",
    "InvalidAuthenticationToken",
    "InvalidAuthenticationTokenTenant",
    "NoAuthenticationInformation",
}
_CAPACITY: Final = {
    "AllocationFailed",
    "OverconstrainedAllocationRequest",
    "OverconstrainedZonalAllocationRequest",
    "ZonalAllocationFailed",
}
_PASSES: Final = {
    "AnotherOperationInProgress",
    "Md5Mismatch",  # damaged on the way
    "OperationPreempted",
    "PreemptedByDifferentOperation",
    "RetryableError",
    "RetryableErrorDueToAnotherOperation",
}
_NO_TOKEN_YET: Final = {404, 410}
"""What a machine's token service answers while it is updated: nothing about any resource."""
_SET_UP: Final = {
    "ContainerNotFound": "Check job_container_url in the Azure target.",
    "InvalidResourceReference": "Check the ids of subnet, groups and image in the Azure target.",
    "RequestDisallowedByPolicy": "An Azure Policy forbids it: ask for an exemption or change it.",
    "ResourceGroupNotFound": "Create the resource group, or correct it in the Azure target.",
    "ScopeLocked": "A management lock forbids it: remove the lock from the resource group.",
    "SkuNotAvailable": "Name another VM size or zone in the Azure target, or ask for access to it.",
    "SubscriptionNotFound": "Check subscription_id in the Azure target.",
}
_QUOTA: Final = re.compile(r"quota", re.IGNORECASE)
_NAMED_ACTION: Final = re.compile(
    r"not have (?:authorization|permission)s? to perform (?:the )?action(?:\(s\)|s)? '([^']+)'"
)

LOGIN_HINT: Final = "Check the credentials of the worker (identity or block) and its clock."


@contextmanager
def asked(action: str, subject: str) -> Iterator[None]:
    """Translate what Azure's clients raise inside the block.

    Args:
        action: The action of the call as a role definition names it, ``Microsoft.Compute/disks/
            write``; on the data path, where no role decides, ``blob:PutPage``.
        subject: What the call is about, for the message; of an id only the name is shown.
    """
    try:
        yield
    except AzureError as error:
        mapped = map_error(error, action, subject)
        if shows_secret(error):
            # A signed URL in the original would be printed with the traceback.
            raise mapped from None
        raise mapped from error


@contextmanager
def gone_already() -> Iterator[None]:
    """Take "there is no such resource" as success: for deleting."""
    try:
        yield
    except ResourceGone:
        return


def map_error(error: AzureError, action: str, subject: str) -> CloudError:
    """Return the error of our tree that says what the caller can do about ``error``."""
    if isinstance(error, HttpResponseError) and error.response is not None:
        return _map_answer(error, action, subject)
    message = f"{_cannot(action, subject)}: {without_secrets(error.message)}"
    facts: dict[str, Any] = {"action": action, "azure_code": "", "status": 0}
    if "CERTIFICATE_VERIFY_FAILED" in message or "certificate verify failed" in message:
        hint = "Name the private certificate authority's bundle in the Azure target (ca_bundle)."
        return CloudRefused(message, hint=hint, **facts)
    if isinstance(error, ClientAuthenticationError):
        kind = CloudUnavailable if _is_silence(error.message) else CloudRefused
        return kind(message, hint=LOGIN_HINT, **facts)
    if isinstance(error, (ServiceRequestError, ServiceResponseError, HttpResponseError)):
        return CloudUnavailable(message, **facts)
    return CloudRefused(message, **facts)


def _map_answer(error: HttpResponseError, action: str, subject: str) -> CloudError:
    status = int(error.status_code or 0)
    code = _code(error)
    whole = (error.error.message if error.error else "") or error.message or ""
    text = without_secrets(whole)
    message = f"{_cannot(action, subject)}: {code or f'HTTP {status}'}: {text}"
    facts: dict[str, Any] = {"action": action, "azure_code": code, "status": status}
    if status == 429 or code in _THROTTLED:
        return CloudThrottled(message, **facts)
    of_data = action.startswith("blob:")
    if code in _DENIED and not of_data:  # there it is the signed URL that does not allow it
        # Behind two ids when the action is one on a linked resource: further on than we quote.
        named = _NAMED_ACTION.search(whole)
        facts["action"] = named[1] if named else action
        return PermissionMissing(
            f"{_cannot(action, subject)}: the credentials lack {facts['action']}.", **facts
        )
    if code in _CAPACITY:
        hint = "Wait, or name another VM size or zone in the Azure target."
        return CloudUnavailable(message, hint=hint, **facts)
    login = isinstance(error, ClientAuthenticationError)
    if _passes(code, status, text) or (login and status in _NO_TOKEN_YET):
        return CloudUnavailable(message, hint=LOGIN_HINT if login else "", **facts)
    if status == 404 and (of_data or code not in _SET_UP):
        return ResourceGone(message, **facts)
    hint = LOGIN_HINT if login else _hint(code, status, text)
    return CloudRefused(message, hint=hint, **facts)


def _code(error: HttpResponseError) -> str:
    """Return Azure's word for what is wrong: from the body, from storage's header, or nothing."""
    named: Any = error.error.code if error.error else None
    # azure-storage-blob puts an enumeration member there.
    stored: Any = getattr(error, "error_code", None)
    headers: Any = getattr(error.response, "headers", None) or {}
    found = named or getattr(stored, "value", stored) or headers.get("x-ms-error-code", "")
    return str(found or "")


def _passes(code: str, status: int, text: str) -> bool:
    """Tell whether the same request may be answered otherwise a little later."""
    if code in _PASSES or code.startswith("Internal"):
        return True
    if status == 409:
        return "in progress" in text.lower()
    # An answer, but not one of Azure's: of a proxy or gateway on the way. Azure names what is gone.
    garbled = not code and (status < 400 or status == 404)
    return garbled or status >= 500 or status == 408


def _is_silence(text: str) -> bool:
    """Tell a machine's token service that did not answer from one that refused.

    azure-identity says both with one class; hours of upload must not end with the first.
    """
    return "no response from the IMDS endpoint" in text and "Token request error" not in text


def _hint(code: str, status: int, text: str) -> str:
    if code in _LOGIN or status == 401:
        return LOGIN_HINT
    if code == "QuotaExceeded" or (code == "OperationNotAllowed" and _QUOTA.search(text)):
        return "Raise the quota of the subscription, or run fewer images at a time."
    return _SET_UP.get(code, "")


def _cannot(action: str, subject: str) -> str:
    """Return ``Cannot write disk 'NAME'`` for ``Microsoft.Compute/disks/write`` and an id."""
    parts = [part for part in re.split(r"[/:]", action) if part != "action"]
    verb = _words(parts[-1])
    if "/" in action:
        verb += f" {_words(parts[-2]).removesuffix('s')}"
    name = subject.rsplit("/", maxsplit=1)[-1] if subject.startswith("/") else subject
    return f"Cannot {verb} '{without_secrets(name)}'"


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower()
