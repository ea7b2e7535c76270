# References: Compute Engine, "Handling API responses", "Troubleshooting API errors"; PEP 3333.
"""Requests, answers and refusals of the emulated Compute Engine."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

Json = dict[str, Any]


class GceRefusal(Exception):
    """An answer with an error; ``reason`` is Google's word for it, ``alreadyExists``."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message

    def document(self) -> Json:
        """Return the body of the answer."""
        one = {"message": self.message, "domain": "global", "reason": self.reason}
        return {"error": {"code": self.status, "message": self.message, "errors": [one]}}


class OperationFailure(Exception):
    """How an operation ends that fails: ``code`` is Google's word, ``QUOTA_EXCEEDED``."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class GceRequest:
    """One request, already checked against Google's own type for it."""

    method: str
    user: str
    """E-mail of the account that asks."""
    fields: Json
    """Parameters of path and query by their JSON names, ``maxResults``."""
    body: Json
    """Empty without one."""

    @property
    def project(self) -> str:
        """Return the project of the path."""
        return str(self.fields["project"])

    @property
    def zone(self) -> str:
        """Return the zone of the path."""
        return str(self.fields["zone"])


def invalid(field: str, value: object, text: str) -> GceRefusal:
    """Return the refusal of a member's value; ``field`` is ``resource.name`` and the like."""
    message = f"Invalid value for field '{field}': '{value}'. {text}"
    return GceRefusal(400, "invalid", message)


def required(field: str) -> GceRefusal:
    """Return the refusal of a body that lacks a member."""
    text = f"Invalid value for field '{field}': ''. The field is required."
    return GceRefusal(400, "required", text)


def not_found(path: str) -> GceRefusal:
    """Return the refusal for a resource that is not there."""
    return GceRefusal(404, "notFound", f"The resource '{path}' was not found")


def already_exists(path: str) -> GceRefusal:
    """Return the refusal of a name that is taken."""
    return GceRefusal(409, "alreadyExists", f"The resource '{path}' already exists")


def not_ready(path: str) -> GceRefusal:
    """Return the refusal while a resource is being made or changed."""
    return GceRefusal(400, "resourceNotReady", f"The resource '{path}' is not ready")


def in_use(path: str, user: str) -> GceRefusal:
    """Return the refusal because something else uses a resource."""
    text = f"The {path.split('/')[-2][:-1]} resource '{path}' is already being used by '{user}'"
    return GceRefusal(400, "resourceInUseByAnotherResource", text)


def forbidden(permission: str, path: str) -> GceRefusal:
    """Return the refusal of somebody who lacks a permission."""
    return GceRefusal(403, "forbidden", f"Required '{permission}' permission for '{path}'")


def over_quota(metric: str, limit: float, where: str) -> GceRefusal:
    """Return the refusal beyond a quota; ``where`` is ``in region R`` or ``globally``."""
    return GceRefusal(403, "quotaExceeded", f"Quota '{metric}' exceeded.  Limit: {limit} {where}.")


def condition_not_met(text: str) -> GceRefusal:
    """Return the refusal of a fingerprint that is not the newest."""
    return GceRefusal(412, "conditionNotMet", text)


def unavailable() -> GceRefusal:
    """Return what the service says when it cannot answer now."""
    return GceRefusal(503, "backendError", "Internal error. Please try again or contact support.")


def send(start_response: Any, status: int, document: Json) -> Iterable[bytes]:
    """Give an answer to WSGI."""
    content = json.dumps(document).encode()
    headers = [
        ("Content-Type", "application/json; charset=UTF-8"),
        ("Content-Length", str(len(content))),
        ("Server", "ESF"),
    ]
    start_response(f"{status} {HTTPStatus(status).phrase}", headers)
    return [content]
