# References: Amazon EBS direct APIs, "Errors"; Amazon EC2 API Reference, "Error codes".
"""What AWS answers, in the words of `imageport.errors`: the one place that knows its codes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ResponseStreamingError,
    SSLError,
)
from botocore.exceptions import (
    ConnectionError as ConnectionFailed,
)

from imageport.errors import (
    CloudError,
    CloudRefused,
    CloudThrottled,
    CloudUnavailable,
    PermissionMissing,
    ResourceGone,
)

_THROTTLED = {
    "RequestThrottledException",  # EBS direct: the limit of one snapshot
    "ThrottlingException",  # EBS direct: the limit of the account
    "RequestLimitExceeded",  # EC2
    "Throttling",
    "SlowDown",  # S3
}
_DENIED = {"AccessDeniedException", "UnauthorizedOperation", "AccessDenied", "Forbidden", "403"}
_LOGIN = {
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_GONE = {"ResourceNotFoundException", "NoSuchKey", "404", "NotFound"}
_GONE_EC2 = re.compile(
    r"Invalid(Snapshot|Volume|AMIID|InstanceID|Group|GroupId|Attachment)\.(NotFound|Unavailable)"
)
_CAPACITY = {"InsufficientInstanceCapacity", "InsufficientVolumeCapacity"}
_QUOTA = re.compile(r"(LimitExceeded|QuotaExceeded)")
_NO_LOGIN = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, NoRegionError)
# botocore's own ConnectionError (no route, name, proxy) is no HTTPClientError.
_NETWORK = (HTTPClientError, ConnectionFailed, IncompleteReadError, ResponseStreamingError)
_SIGNED_URL = re.compile(r"(https?://[^\s?]+)\?\S+")
_LOGIN_IN_URL = re.compile(r"(https?://)[^\s/@]+@")
_NAMED_ACTION = re.compile(r"not authorized to perform: ([a-z0-9-]+:[A-Za-z]+)")

LOGIN_HINT = "Check the credentials of the worker (role, profile or block) and its clock."


@contextmanager
def asked(action: str, subject: str) -> Iterator[None]:
    """Translate what boto3 raises inside the block.

    Args:
        action: The IAM action of the call, ``ec2:RunInstances``.
        subject: What the call is about, for the message.
    """
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise map_error(error, action, subject) from error


@contextmanager
def done_already(*codes: str) -> Iterator[None]:
    """Take refusals with these codes of AWS as success.

    The SDK repeats a request whose answer was lost; where AWS has no idempotency token, the
    repetition is refused because the first one was carried out.
    """
    try:
        yield
    except CloudRefused as error:
        if error.fields.get("aws_code") not in codes:
            raise


def map_error(error: ClientError | BotoCoreError, action: str, subject: str) -> CloudError:
    """Return the error of our tree that says what the caller can do about ``error``."""
    if isinstance(error, ClientError):
        return _map_answer(error, action, subject)
    message = f"{_cannot(action, subject)}: {_clean(str(error))}"
    if isinstance(error, SSLError):
        hint = "Name the private certificate authority's bundle in the AWS target (ca_bundle)."
        return CloudRefused(message, hint=hint, action=action)
    if isinstance(error, _NO_LOGIN):
        return CloudRefused(message, hint=LOGIN_HINT, action=action)
    if isinstance(error, _NETWORK):
        return CloudUnavailable(message, action=action)
    return CloudRefused(message, action=action)


def _map_answer(error: ClientError, action: str, subject: str) -> CloudError:
    answer: dict[str, Any] = dict(error.response)
    code = str(answer.get("Error", {}).get("Code", ""))
    text = str(answer.get("Error", {}).get("Message", ""))
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    message = f"{_cannot(action, subject)}: {code}: {_clean(text)}"
    facts: dict[str, Any] = {
        "action": action,
        "aws_code": code,
        "aws_reason": str(answer.get("Reason", "")),
        "asked_again": int(answer.get("ResponseMetadata", {}).get("RetryAttempts", 0)) > 0,
    }
    if code in _THROTTLED or status == 429:
        return CloudThrottled(message, **facts)
    if code in _DENIED:
        named = _NAMED_ACTION.search(text)
        facts["action"] = named[1] if named else action
        return PermissionMissing(
            f"{_cannot(action, subject)}: the credentials lack {facts['action']}.", **facts
        )
    if code in _LOGIN:
        return CloudRefused(message, hint=LOGIN_HINT, **facts)
    # A slow link cuts the body short; AWS answers 400, but the same request passes later.
    if code in _CAPACITY or status >= 500 or "Failed to read block data" in text:
        return CloudUnavailable(message, hint=_hint(code), **facts)
    if code in _GONE or _GONE_EC2.fullmatch(code):
        return ResourceGone(message, **facts)
    return CloudRefused(message, hint=_hint(code), **facts)


def _hint(code: str) -> str:
    if code in _CAPACITY:
        return "Wait, or name another instance type or availability zone in the AWS target."
    if _QUOTA.search(code):
        return "Raise the quota in Service Quotas, or run fewer images at a time."
    if code in {"NoSuchBucket", "InvalidSubnetID.NotFound", "InvalidParameterValue"}:
        return "Check bucket, subnet, zone and image in the AWS target."
    return ""


def _cannot(action: str, subject: str) -> str:
    operation = action.rsplit(":", maxsplit=1)[-1]
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", operation).lower()
    return f"Cannot {words} '{subject}'"


def _clean(text: str) -> str:
    """Cut query strings (a signed URL is a secret), logins and the encoded part of a denial."""
    plain = text.split("Encoded authorization failure", maxsplit=1)[0]
    plain = _LOGIN_IN_URL.sub(r"\1…@", plain)
    return _SIGNED_URL.sub(r"\1?…", plain).strip()[:300]
