# References: Compute Engine REST v1; "Authorize requests"; "API rate limits"; PEP 3333.
"""Compute Engine over HTTP: who may ask, how often, and in which form the answers come."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Any, Final

from imageport.sandbox.faults import Chance, Rate
from imageport.sandbox.gcp.account import PROJECT, REGION, SERVICE_ACCOUNT
from imageport.sandbox.gcp.emulator import Emulator
from imageport.sandbox.gcp.gce_bodies import read_request
from imageport.sandbox.gcp.gce_compute import Compute
from imageport.sandbox.gcp.gce_given import DEBIAN, ZONES, make_given
from imageport.sandbox.gcp.gce_left_behind import take_up
from imageport.sandbox.gcp.gce_messages import (
    GceRefusal,
    GceRequest,
    Json,
    forbidden,
    send,
    unavailable,
)
from imageport.sandbox.gcp.gce_permissions import answer_other
from imageport.sandbox.gcp.gce_power import guest_shut_down
from imageport.sandbox.gcp.gce_routes import Route, find_route, is_known
from imageport.sandbox.gcp.token_store import CLOUD_PLATFORM, BadToken, Caller

COMPUTE: Final = "/compute/v1/"
PROJECTS: Final = "/v1/projects/"
_OF_ANY_ACCOUNT: Final = "/v1/projects/-/"
"""What the token services answer."""
_SCOPES: Final = {CLOUD_PLATFORM, "https://www.googleapis.com/auth/compute"}
_READ_SCOPES: Final = {*_SCOPES, "https://www.googleapis.com/auth/compute.readonly"}
_IMAGES_OF_OTHERS: Final = DEBIAN.split("/")[1]


class GceFace:
    """The WSGI application for Compute Engine, Resource Manager and Cloud KMS."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._rate = Rate()
        self._chance = Chance(emulator.knobs.seed)
        self._compute = Compute(emulator)
        make_given(self._compute)
        take_up(self._compute)
        emulator.hypervisor.on_shutdown = lambda machine: guest_shut_down(self._compute, machine)

    @staticmethod
    def serves(path: str) -> bool:
        """Tell whether a path is one of these services'."""
        other = path.startswith(PROJECTS) and not path.startswith(_OF_ANY_ACCOUNT)
        return path.startswith(COMPUTE) or other

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        data = environ["wsgi.input"].read()
        try:
            document = self._answer(environ, data)
        except GceRefusal as refusal:
            return send(start_response, refusal.status, refusal.document())
        except Exception:  # a defect of the emulator: an answer all the same, and a log to read
            logging.getLogger(__name__).exception("Cannot answer a request.")
            return send(start_response, 500, GceRefusal(500, "internalError", "").document())
        return send(start_response, 200, document)

    def _answer(self, environ: dict[str, Any], data: bytes) -> Json:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        caller = self._caller(environ.get("HTTP_AUTHORIZATION", ""), method)
        knobs = self._emulator.knobs
        if not self._rate.allows(knobs.compute_requests_per_second):
            text = "Quota exceeded for quota metric 'Queries' of service 'compute.googleapis.com'."
            raise GceRefusal(403, "rateLimitExceeded", text)
        strikes = self._chance.strikes(knobs.fault_rate)
        if strikes and self._chance.strikes(0.5):
            raise unavailable()
        body = _document(data)
        changes = method != "GET" and not path.endswith(("/wait", "estIamPermissions"))
        if not path.startswith(COMPUTE):
            with self._emulator.lock:
                document = answer_other(self._compute, method, path, body or {})
        else:
            query = environ.get("QUERY_STRING", "")
            place = path.removeprefix(COMPUTE)
            document = self._carry_out((method, place, query), body, caller)
        if strikes or (changes and knobs.take("lost_answers")):
            raise unavailable()  # carried out, and yet the client is told that it failed
        return document

    def _carry_out(self, target: tuple[str, str, str], body: Any, caller: Caller) -> Json:
        method, path, query = target
        found = find_route(method, path)
        if found is None:
            status = 405 if is_known(path) else 404
            raise GceRefusal(status, "httpMethodNotAllowed" if status == 405 else "notFound", path)
        route, names = found
        # Before the lock: the first one waits for Google's types to be loaded.
        given = {_camel(name): value for name, value in names.items()}
        fields, document = read_request(route.kind, given, query, body)
        request = GceRequest(method, caller.email, fields, document)
        with self._emulator.lock:
            self._check_place(request, path)
            self._check_allowed(route, request, path)
            before = self._compute.again(request, *_asked(route, request, path))
            return route.handler(self._compute, request) if before is None else before.document()

    def _check_allowed(self, route: Route, request: GceRequest, path: str) -> None:
        if not route.permission:
            return
        looks_at_others = request.project == _IMAGES_OF_OTHERS
        if looks_at_others and request.method == "GET":
            return  # public images are anybody's to see
        # A collection stands for the project when something is made in it, or listed.
        subject = path
        if route.permission.endswith((".create", ".list")):
            subject = f"projects/{request.project}"
            if route.permission.endswith(".create"):
                subject = f"{path}/{request.body.get('name', '')}"
        self._compute.check(route.permission, subject)

    @staticmethod
    def _check_place(request: GceRequest, path: str) -> None:
        known = {PROJECT, _IMAGES_OF_OTHERS} if "/global/images" in path else {PROJECT}
        if request.project not in known:
            text = f"The resource 'projects/{request.project}' was not found"
            raise GceRefusal(404, "notFound", text)
        if request.fields.get("zone", ZONES[0]) not in ZONES:
            text = f"Unknown zone '{request.zone}'."
            if path != f"projects/{request.project}/zones/{request.zone}":
                raise GceRefusal(400, "invalid", f"Invalid value for field 'zone'. {text}")
        if request.fields.get("region", REGION) != REGION and path.count("/") > 3:
            raise GceRefusal(400, "invalid", "Invalid value for field 'region'. Unknown region.")

    def _caller(self, authorization: str, method: str) -> Caller:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            text = "Login Required."
            raise GceRefusal(401, "required", text)
        try:
            caller = self._emulator.tokens.find(token.strip())
        except BadToken as error:
            raise GceRefusal(401, "authError", "Invalid Credentials") from error
        if not caller.scopes & (_READ_SCOPES if method == "GET" else _SCOPES):
            text = "Request had insufficient authentication scopes."
            raise GceRefusal(403, "insufficientPermissions", text)
        if caller.email != SERVICE_ACCOUNT or caller.boundary is not None:
            # A token that was restricted to a bucket, or of an identity without a role here.
            raise forbidden("compute.projects.get", f"projects/{PROJECT}")
        return caller


def _asked(route: Route, request: GceRequest, path: str) -> tuple[str, str]:
    """Return the type of the operation that a request would begin, and what it would be about."""
    if route.permission.endswith(".create"):
        return "insert", f"{path}/{request.body.get('name', '')}"
    if request.method == "DELETE":
        return "delete", path
    subject, _, verb = path.rpartition("/")
    return verb, subject


def _document(data: bytes) -> Any:
    """Return what the body holds; None without one."""
    if not data:
        return None
    try:
        found = json.loads(data)
    except ValueError as error:
        raise GceRefusal(400, "parseError", "Parse Error") from error
    if not isinstance(found, dict):
        raise GceRefusal(400, "parseError", "Parse Error")
    return found


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)
