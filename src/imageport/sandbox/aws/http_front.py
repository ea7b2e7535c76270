# References: AWS Signature Version 4: the credential scope names region and service.
"""The one port of the emulated account: sorts requests by service, denies, and injects faults."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from imageport.sandbox.aws.block_http import BlockHttp
from imageport.sandbox.aws.call_record import Scope, read_scope
from imageport.sandbox.aws.emulator import Emulator
from imageport.sandbox.aws.iam_policy import check
from imageport.sandbox.aws.iam_requests import Request, read_request
from imageport.sandbox.control_pages import ControlPages
from imageport.sandbox.faults import Rate

XML = "text/xml"
_EC2_ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error><Code>{code}</Code>'
    "<Message>{message}</Message></Error></Errors><RequestID>imageport-sandbox</RequestID>"
    "</Response>"
)
_S3_ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code>'
    "<Message>{message}</Message></Error>"
)


class HttpFront:
    """The WSGI application of the emulator."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._blocks = BlockHttp(emulator)
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._control_rate = Rate()
        self._control = ControlPages(emulator, emulator.calls.document)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        if ControlPages.serves(environ["PATH_INFO"]):
            return self._control(environ, start_response)
        scope = read_scope(environ)
        if scope.service == "ebs":
            return self._blocks(environ, start_response, scope)
        request = read_request(
            environ, scope, _read_body(environ), self._emulator.tags_of(scope.region)
        )
        start_response = self._noting(request, start_response)
        refused = self._refusal(request)
        if refused:
            return _answer(start_response, *refused)
        if scope.service == "ec2":
            # moto walks its dictionaries while other threads change them.
            with self._emulator.lock:
                return self._moto_answer(environ, start_response)
        if request.actions == ("s3:GetObject",):
            return self._object_answer(environ, start_response, scope)
        return self._moto_answer(environ, start_response)

    def _object_answer(
        self, environ: dict[str, Any], start_response: Any, scope: Scope
    ) -> Iterable[bytes]:
        """Answer GetObject; who may not list the bucket is not told that a key is missing."""
        begun: list[tuple[Any, ...]] = []
        body = self._moto_answer(environ, lambda *given: begun.append(given))
        if begun[0][0].startswith("404"):
            bucket = environ["PATH_INFO"].strip("/").partition("/")[0]
            listing = check("s3:ListBucket", f"arn:aws:s3:::{bucket}", {})
            if self._emulator.denied_action(scope, [listing]):
                return _answer(start_response, *_denial("s3", "s3:ListBucket"))
        start_response(*begun[0])
        return body

    def _moto_answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        found: Iterable[bytes] = self._moto(environ, start_response)
        return found

    def _noting(self, request: Request, start_response: Any) -> Callable[..., Any]:
        """Return a ``start_response`` that notes whether the request was carried out."""

        def note(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            done = int(status.split(" ", 1)[0]) < 400 and not request.dry_run
            self._emulator.calls.note(request.checks, done=done)
            return start_response(status, headers, *rest)

        return note

    def _refusal(self, request: Request) -> tuple[int, str, str] | None:
        """Return status, document and type of a request that is not carried out."""
        service = request.scope.service
        denied = self._emulator.denied_action(request.scope, request.checks)
        if denied:
            return _denial(service, denied)
        if service == "ec2" and not self._control_rate.allows(self._emulator.knobs.control_rps):
            text = "Request limit exceeded."
            return 503, _EC2_ERROR.format(code="RequestLimitExceeded", message=text), XML
        if not self._emulator.chance.strikes(self._emulator.knobs.fault_rate):
            return None
        if service == "ec2":
            return 500, _EC2_ERROR.format(code="InternalError", message="An internal error"), XML
        return 503, _S3_ERROR.format(code="ServiceUnavailable", message="Please try again"), XML


def _read_body(environ: dict[str, Any]) -> bytes:
    """Return the body and leave it to be read again."""
    body: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _denial(service: str, action: str) -> tuple[int, str, str]:
    text = f"User is not authorized to perform: {action}"
    if service == "ec2":
        text = f"You are not authorized to perform: {action}"
        return 403, _EC2_ERROR.format(code="UnauthorizedOperation", message=text), XML
    if service in {"s3", "sts"}:
        return 403, _S3_ERROR.format(code="AccessDenied", message=text), XML
    document = {"__type": "AccessDeniedException", "Message": text}
    return 400, json.dumps(document), "application/x-amz-json-1.1"


def _answer(start_response: Any, status: int, document: str, kind: str) -> Iterable[bytes]:
    content = document.encode()
    headers = [("Content-Type", kind), ("Content-Length", str(len(content)))]
    start_response(f"{status} {HTTPStatus(status).phrase}", headers)
    return [content]
