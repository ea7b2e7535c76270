# References: Azure Resource Manager RPC, "Common API contracts": authorization, api-version,
# errors, throttling ("Troubleshoot API throttling errors"), asynchronous operations.
"""The ARM face: who may ask, how often, and in which form the answers come."""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from imageport.sandbox.azure.account import LOCATION, RESOURCE_GROUP, SUBSCRIPTION, TOKEN
from imageport.sandbox.azure.arm_errors import ArmError, forbidden
from imageport.sandbox.azure.arm_messages import ArmAnswer, ArmRequest
from imageport.sandbox.azure.arm_router import Match, find_route, is_known
from imageport.sandbox.azure.arm_versions import check_version
from imageport.sandbox.azure.emulator import Emulator, is_denied, said_by_arm
from imageport.sandbox.faults import Chance, Rate

Headers = list[tuple[str, str]]
_PROVIDER = re.compile(r"/providers/([^/]+)/([^/]+)", re.IGNORECASE)
RETRY_SECONDS = "0"
"""A number, as the client wants; 0 leaves the pace to the client."""
THROTTLED_SECONDS = "1"


class ArmFace:
    """The WSGI application below ``/subscriptions``."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._rate = Rate()
        self._chance = Chance(emulator.knobs.seed)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        try:
            status, document, headers = self._answer(environ, body)
        except ArmError as error:
            status, document = error.status, {"error": error.document()}
            headers = list(error.headers)
        except Exception:  # a defect of the emulator: an answer all the same, and a log to read
            logging.getLogger(__name__).exception("Cannot answer a request.")
            status, document, headers = 500, {"error": _failure().document()}, []
        content = b"" if document is None else json.dumps(document).encode()
        headers += [
            ("Content-Length", str(len(content))),
            ("x-ms-request-id", str(uuid.uuid4())),
            ("Cache-Control", "no-cache"),
        ]
        if content:
            headers.append(("Content-Type", "application/json; charset=utf-8"))
        start_response(f"{status} {HTTPStatus(status).phrase}", headers)
        return [content]

    def _answer(
        self, environ: dict[str, Any], body: bytes
    ) -> tuple[int, dict[str, Any] | None, Headers]:
        _check_token(environ.get("HTTP_AUTHORIZATION", ""))
        method = environ["REQUEST_METHOD"]
        path = environ["PATH_INFO"].rstrip("/")
        query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
        match = _match(method, path, query)
        request = ArmRequest(
            method, path, query, body, match.action, match.scope, match.names,
        )  # fmt: skip
        self._check_allowed(request)
        emulator = self._emulator
        with emulator.lock:
            answer = said_by_arm(lambda: match.route.handler(emulator, request))
        self._lose_answer(method)
        return answer.status, answer.body, self._headers(request, answer)

    def _check_allowed(self, request: ArmRequest) -> None:
        knobs = self._emulator.knobs
        self._emulator.calls.record(request.action)
        if is_denied(knobs.denied, request.action):
            raise forbidden(request.action, request.scope)
        group = request.names.get("group", RESOURCE_GROUP)
        if group.lower() != RESOURCE_GROUP.lower():
            text = f"Resource group '{group}' could not be found."
            raise ArmError(404, "ResourceGroupNotFound", text)
        if not self._rate.allows(knobs.control_rps):
            raise _throttled(request)
        if self._chance.strikes(knobs.fault_rate):
            raise _failure()

    def _lose_answer(self, method: str) -> None:
        if method != "GET" and self._emulator.knobs.take("lost_answers"):
            raise _failure()

    def _headers(self, request: ArmRequest, answer: ArmAnswer) -> Headers:
        operation = answer.operation
        if operation is None:
            return []
        provider, collection = operation.kind.split("/")
        address = (
            f"{self._emulator.endpoint}/subscriptions/{SUBSCRIPTION}/providers/"
            f"{provider}/locations/{LOCATION}/{collection}/{operation.id}"
            f"?api-version={request.query['api-version']}"
        )
        headers = [("Retry-After", RETRY_SECONDS)]
        if answer.final_state == "location":
            headers.append(("Location", f"{address}&monitor=true"))
        if "operation" not in request.names:
            headers.append(("Azure-AsyncOperation", address))
        return headers


def _check_token(authorization: str) -> None:
    scheme, _, token = authorization.partition(" ")
    text = (
        'Bearer authorization_uri="https://login.invalid/", error="invalid_token", '
        'error_description="The access token is missing or invalid."'
    )
    challenge = ("WWW-Authenticate", text)
    if not authorization:
        text = "Authentication failed. The 'Authorization' header is missing."
        raise ArmError(401, "AuthenticationFailed", text, headers=(challenge,))
    if scheme.lower() != "bearer" or token != TOKEN:
        text = "The access token is invalid."
        raise ArmError(401, "InvalidAuthenticationToken", text, headers=(challenge,))


def _match(method: str, path: str, query: dict[str, str]) -> Match:
    if "api-version" not in query:
        text = "The api-version query parameter (?api-version=) is required for all requests."
        raise ArmError(400, "MissingApiVersionParameter", text)
    match = find_route(method, path)
    if match is None:
        if is_known(path):
            text = f"The requested resource does not support http method '{method}'."
            raise ArmError(405, "MethodNotAllowed", text)
        found = _PROVIDER.search(path)
        kind = "/".join(found.groups()) if found else path
        text = f"The resource type '{kind}' could not be found in the namespace."
        raise ArmError(404, "InvalidResourceType", text)
    check_version(match.action, query["api-version"])
    if match.names["subscription"].lower() != SUBSCRIPTION:
        text = f"The subscription '{match.names['subscription']}' could not be found."
        raise ArmError(404, "SubscriptionNotFound", text)
    return match


def _failure() -> ArmError:
    text = "The server encountered an internal error. Please retry the request."
    return ArmError(500, "InternalServerError", text)


def _throttled(request: ArmRequest) -> ArmError:
    """Compute says it in its own way: the code alone looks like a refusal for good."""
    headers = (("Retry-After", THROTTLED_SECONDS),)
    if not request.action.startswith("Microsoft.Compute/"):
        text = "The request is being throttled as the limit has been reached for the client."
        return ArmError(429, "TooManyRequests", text, headers=headers)
    detail = {
        "code": "TooManyRequests",
        "target": "HighCostGet",
        "message": '{"operationGroup":"HighCostGet","allowedRequestCount":0}',
    }
    text = (
        "The server rejected the request because too many requests have been received for this "
        "subscription."
    )
    return ArmError(429, "OperationNotAllowed", text, details=(detail,), headers=headers)
