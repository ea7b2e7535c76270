# References: Cloud Storage JSON API v1, "HTTP status and error codes"; XML API, "HTTP status and
# error codes"; PEP 3333.
"""Requests, answers and refusals of the object store, in JSON and in XML."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, BinaryIO
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

MOST_DOCUMENT_BYTES = 4 * 1024 * 1024
"""Of a request's JSON; Google's own limit is about as large."""
PHRASES = {308: "Resume Incomplete", 499: "Client Closed Request"}
"""Where Google's meaning is not that of the registry of status codes."""
_XML_CODES = {
    400: "InvalidArgument",
    401: "AuthenticationRequired",
    403: "AccessDenied",
    404: "NoSuchKey",
    412: "PreconditionFailed",
    416: "InvalidRange",
    429: "SlowDown",
    503: "ServiceUnavailable",
}

_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
}


@dataclass(slots=True)
class GcsAnswer:
    """A successful answer."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    stream: Iterable[bytes] | None = None
    """Instead of a body; its length is in the headers."""
    document: Any = None
    """Instead of a body; JSON, once it is sent."""

    @classmethod
    def of(cls, document: Any, status: int = 200) -> GcsAnswer:
        """Return an answer whose body is JSON."""
        headers = {"Content-Type": "application/json; charset=UTF-8"}
        return cls(status, headers, document=document)


class GcsRefusal(Exception):
    """An answer with an error; ``reason`` is the JSON API's, ``code`` the XML API's."""

    def __init__(self, status: int, reason: str, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.code = code or _XML_CODES.get(status, "InternalError")
        self.location: tuple[str, str] | None = None
        self.headers: dict[str, str] = {}

    def json(self) -> GcsAnswer:
        """Return the document that the JSON API sends."""
        error = {"message": self.message, "domain": "global", "reason": self.reason}
        if self.location is not None:
            error["locationType"], error["location"] = self.location
        document = {"error": {"code": self.status, "message": self.message, "errors": [error]}}
        answer = GcsAnswer.of(document, self.status)
        answer.headers.update(self.headers)
        return answer

    def service(self) -> GcsAnswer:
        """Return the document that Google's other services send."""
        status = _STATUSES.get(self.status, "UNKNOWN")
        error = {"code": self.status, "message": self.message, "status": status}
        answer = GcsAnswer.of({"error": error}, self.status)
        answer.headers.update(self.headers)
        return answer

    def plain(self) -> GcsAnswer:
        """Return what the JSON API sends where bytes were asked for."""
        headers = {"Content-Type": "text/html; charset=UTF-8", **self.headers}
        return GcsAnswer(self.status, headers, self.message.encode())

    def xml(self) -> GcsAnswer:
        """Return the document that the XML API sends."""
        inner = f"<Code>{self.code}</Code><Message>{escape(self.message)}</Message>"
        body = f"<?xml version='1.0' encoding='UTF-8'?><Error>{inner}</Error>".encode()
        headers = {"Content-Type": "application/xml; charset=UTF-8", **self.headers}
        return GcsAnswer(self.status, headers, body)


def bad_request(message: str, reason: str = "invalid") -> GcsRefusal:
    """Return the refusal of a request that makes no sense."""
    return GcsRefusal(400, reason, message)


def not_found(name: str, bucket: str) -> GcsRefusal:
    """Return the refusal for an object that is not there."""
    return GcsRefusal(404, "notFound", f"No such object: {bucket}/{name}")


def condition_not_met() -> GcsRefusal:
    """Return the refusal of a precondition."""
    text = "At least one of the pre-conditions you specified did not hold."
    refusal = GcsRefusal(412, "conditionNotMet", text)
    refusal.location = ("header", "If-Match")
    return refusal


def unavailable() -> GcsRefusal:
    """Return what the store says when it cannot answer now."""
    text = "We encountered an internal error. Please try again."
    return GcsRefusal(503, "backendError", text)


@dataclass(slots=True)
class GcsRequest:
    """One request whose body is still to be read."""

    method: str
    parts: list[str]
    """The path's segments, decoded: an object's name is one of them."""
    raw_path: str
    raw_query: str
    queries: dict[str, list[str]]
    headers: dict[str, str]
    """Names in lower case."""
    body: BinaryIO
    length: int | None
    """None for a chunked body."""

    @classmethod
    def read(cls, environ: dict[str, Any]) -> GcsRequest:
        """Take a request from WSGI."""
        raw, _, query = environ["RAW_URI"].partition("?")
        headers = {
            name[5:].replace("_", "-").lower(): str(value)
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
        length = environ.get("CONTENT_LENGTH")
        headers["content-type"] = environ.get("CONTENT_TYPE", "")
        if length is not None:
            headers["content-length"] = length
        chunked = "transfer-encoding" in headers
        return cls(
            environ["REQUEST_METHOD"],
            # gcloud opens sessions at another path for the same surface, /resumable/upload/….
            [unquote(part) for part in raw.removeprefix("/resumable").lstrip("/").split("/")],
            raw,
            query,
            parse_qs(query, keep_blank_values=True),
            headers,
            environ["wsgi.input"],
            None if chunked else int(length or 0),
        )

    @property
    def query(self) -> Mapping[str, str]:
        """Return each parameter once, the last one of its name."""
        return {name: values[-1] for name, values in self.queries.items()}

    def document(self) -> dict[str, Any]:
        """Read the body as a JSON object; an empty one is an empty object."""
        if (self.length or 0) > MOST_DOCUMENT_BYTES:
            raise GcsRefusal(413, "uploadTooLarge", "The request body is too large.")
        return read_document(self.body.read())


def read_document(text: bytes) -> dict[str, Any]:
    """Take JSON apart that has to be an object."""
    try:
        document = json.loads(text or b"{}")
    except ValueError as error:
        raise bad_request("Parse Error", "parseError") from error
    if not isinstance(document, dict):
        raise bad_request("Parse Error", "parseError")
    return document


def send(start_response: Any, answer: GcsAnswer) -> Iterable[bytes]:
    """Give an answer to WSGI."""
    body = answer.body if answer.document is None else json.dumps(answer.document).encode()
    headers = {
        "Content-Length": str(len(body)),
        "X-GUploader-UploadID": secrets.token_urlsafe(24),
        "Server": "UploadServer",
        **answer.headers,
    }
    phrase = PHRASES.get(answer.status) or HTTPStatus(answer.status).phrase
    start_response(f"{answer.status} {phrase}", list(headers.items()))
    if answer.stream is not None:
        return answer.stream
    return [body] if body else []
