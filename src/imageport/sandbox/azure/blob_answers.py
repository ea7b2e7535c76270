# References: Azure Storage, "Status and error codes", "Blob service error codes",
# "Common REST API error codes": codes, statuses and messages.
"""Answers and refusals of the blob service, in its XML."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

SERVICE_VERSION = "2025-11-05"


@dataclass(slots=True)
class BlobAnswer:
    """A successful answer."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    stream: Iterable[bytes] | None = None
    """Instead of a body; its length is in the headers."""


class BlobRefusal(Exception):
    """An answer with an error code; ``details`` are further elements of its XML."""

    def __init__(
        self, status: int, code: str, message: str, details: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details or {}
        self.headers: dict[str, str] = {}

    def answer(self, request_id: str) -> BlobAnswer:
        """Return the document that the service sends."""
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")
        text = f"{self.message}\nRequestId:{request_id}\nTime:{at}"
        elements = {"Code": self.code, "Message": text, **self.details}
        inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in elements.items())
        body = f'<?xml version="1.0" encoding="utf-8"?><Error>{inner}</Error>'.encode()
        headers = {"Content-Type": "application/xml", "x-ms-error-code": self.code, **self.headers}
        return BlobAnswer(self.status, headers, body)


@dataclass(slots=True)
class BlobRequest:
    """One request; its body is read before anything is refused: the connection is used again."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @classmethod
    def read(cls, environ: dict[str, Any]) -> BlobRequest:
        """Take a request from WSGI."""
        headers = {
            name[5:].replace("_", "-").lower(): str(value)
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
        length = environ.get("CONTENT_LENGTH") or ""
        headers["content-length"] = length
        headers["content-type"] = environ.get("CONTENT_TYPE", "")
        chunked = "transfer-encoding" in headers
        body = b""
        if length or chunked:
            body = environ["wsgi.input"].read(-1 if chunked else int(length))
        query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
        # WSGI hands UTF-8 over as if it were Latin-1.
        path = environ["PATH_INFO"].encode("latin-1").decode(errors="replace")
        return cls(environ["REQUEST_METHOD"], path, query, headers, body)


def send(
    start_response: Any, request: BlobRequest, outcome: BlobAnswer | BlobRefusal
) -> Iterable[bytes]:
    """Give the answer to WSGI."""
    request_id = f"{secrets.token_hex(4)}-001e-0042-0000-{secrets.token_hex(6)}"
    answer = outcome.answer(request_id) if isinstance(outcome, BlobRefusal) else outcome
    headers = {
        "Content-Length": str(len(answer.body)),
        "x-ms-request-id": request_id,
        "x-ms-version": request.headers.get("x-ms-version", SERVICE_VERSION),
        **answer.headers,
    }
    if "x-ms-client-request-id" in request.headers:
        headers["x-ms-client-request-id"] = request.headers["x-ms-client-request-id"]
    status = f"{answer.status} {HTTPStatus(answer.status).phrase}"
    start_response(status, list(headers.items()))
    if request.method == "HEAD":
        return []
    return [answer.body] if answer.stream is None else answer.stream


def http_date(seconds: float) -> str:
    """Return a time as headers have it."""
    return formatdate(seconds, usegmt=True)


def iso_time(seconds: float) -> str:
    """Return a time as signed URLs have it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def not_authenticated(detail: str) -> BlobRefusal:
    """Say that a signature does not fit, or not now."""
    text = (
        "Server failed to authenticate the request. Make sure the value of Authorization header "
        "is formed correctly including the signature."
    )
    details = {"AuthenticationErrorDetail": detail}
    return BlobRefusal(403, "AuthenticationFailed", text, details)


def not_permitted() -> BlobRefusal:
    """Say that the signature or role does not allow it."""
    text = "This request is not authorized to perform this operation using this permission."
    return BlobRefusal(403, "AuthorizationPermissionMismatch", text)


def bad_header(name: str, value: str) -> BlobRefusal:
    """Say that a header's value is not valid."""
    text = "The value for one of the HTTP headers is not in the correct format."
    details = {"HeaderName": name, "HeaderValue": value}
    return BlobRefusal(400, "InvalidHeaderValue", text, details)


def missing_header(name: str) -> BlobRefusal:
    """Say that a header is needed."""
    text = "An HTTP header that's mandatory for this request is not specified."
    return BlobRefusal(400, "MissingRequiredHeader", text, {"HeaderName": name})


def need_length(request: BlobRequest) -> None:
    """Refuse a write that does not tell its length: the service takes no chunked bodies."""
    if request.method in {"PUT", "POST"} and not request.headers["content-length"]:
        text = "The content length for the request wasn't specified."
        raise BlobRefusal(411, "MissingContentLengthHeader", text)


def bad_query(name: str, value: str) -> BlobRefusal:
    """Say that a query parameter's value is not valid."""
    text = "Value for one of the query parameters specified in the request URI is invalid."
    details = {"QueryParameterName": name, "QueryParameterValue": value}
    return BlobRefusal(400, "InvalidQueryParameterValue", text, details)


def bad_range() -> BlobRefusal:
    """Say that a range to read begins behind the end."""
    text = "The range specified is invalid for the current size of the resource."
    return BlobRefusal(416, "InvalidRange", text)


def bad_page_range() -> BlobRefusal:
    """Say that a range of pages is not aligned or not within the blob."""
    return BlobRefusal(416, "InvalidPageRange", "The page range specified is invalid.")


def too_large(limit_bytes: int) -> BlobRefusal:
    """Say that a body is larger than this call takes."""
    text = "The request body is too large and exceeds the maximum permissible limit."
    return BlobRefusal(413, "RequestBodyTooLarge", text, {"MaxLimit": str(limit_bytes)})


def condition_not_met() -> BlobRefusal:
    """Say that a conditional header did not hold."""
    text = "The condition specified using HTTP conditional header(s) is not met."
    return BlobRefusal(412, "ConditionNotMet", text)


def server_busy() -> BlobRefusal:
    """Say that more was asked for than the blob gives in a second."""
    return BlobRefusal(503, "ServerBusy", "The server is busy.")


def server_failed() -> BlobRefusal:
    """Say that the server failed."""
    text = "Server encountered an internal error. Please try again after some time."
    return BlobRefusal(500, "InternalError", text)


def timed_out() -> BlobRefusal:
    """Say that the server took too long; the request may have been carried out."""
    text = "Operation could not be completed within the specified time."
    return BlobRefusal(500, "OperationTimedOut", text)
