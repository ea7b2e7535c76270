# References: Amazon EBS direct APIs, service model 2019-11-02 (REST-JSON).
"""EBS direct over HTTP.

Written out instead of patching moto's six handlers: moto keeps blocks in memory, checks none of
the rules, and parses every 512 KiB request twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from imageport.sandbox.aws.block_errors import BlockRefusal, Denied, Invalid, NotFound, ServerFailed
from imageport.sandbox.aws.block_service import BlockAnswer, BlockService
from imageport.sandbox.aws.call_record import Scope
from imageport.sandbox.aws.emulator import Emulator
from imageport.sandbox.aws.iam_policy import Check
from imageport.sandbox.aws.iam_requests import block_checks

_BLOCK = re.compile(r"/snapshots/(snap-[0-9a-f]+)/blocks/(\d+)")
_BLOCKS = re.compile(r"/snapshots/(snap-[0-9a-f]+)/blocks")
_CHANGES = re.compile(r"/snapshots/(snap-[0-9a-f]+)/changedblocks")
_COMPLETION = re.compile(r"/snapshots/completion/(snap-[0-9a-f]+)")
_ACTIONS = (
    ("POST", re.compile(r"/snapshots"), "ebs:StartSnapshot"),
    ("PUT", _BLOCK, "ebs:PutSnapshotBlock"),
    ("POST", _COMPLETION, "ebs:CompleteSnapshot"),
    ("GET", _BLOCK, "ebs:GetSnapshotBlock"),
    ("GET", _BLOCKS, "ebs:ListSnapshotBlocks"),
    ("GET", _CHANGES, "ebs:ListChangedBlocks"),
)


class BlockHttp:
    """A WSGI application; the caller has found that the request is for EBS direct."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._service = BlockService(emulator)

    def __call__(
        self, environ: dict[str, Any], start_response: Any, scope: Scope
    ) -> Iterable[bytes]:
        """Answer one request."""
        # The body is read before anything can be refused: the connection is used again.
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        try:
            answer = self._answer(environ, scope, body)
        except BlockRefusal as refusal:
            document = {"Message": refusal.message}
            if refusal.reason:
                document["Reason"] = refusal.reason
            headers = {"x-amzn-ErrorType": refusal.code}
            answer = BlockAnswer(refusal.status, document, headers)
        content = json.dumps(answer.document).encode() if answer.body is None else answer.body
        kind = "application/json" if answer.body is None else "application/octet-stream"
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "x-amzn-RequestId": "imageport-sandbox",
            **answer.headers,
        }
        status = f"{answer.status} {HTTPStatus(answer.status).phrase}"
        start_response(status, list(headers.items()))
        return [content]

    def _answer(self, environ: dict[str, Any], scope: Scope, body: bytes) -> BlockAnswer:
        action, match = _find_action(environ)
        region = scope.region
        checks = self._checks(action, match, region, body)
        self._emulator.calls.note(checks, done=False)
        denied = self._emulator.denied_action(scope, checks)
        if denied:
            raise Denied(f"User is not authorized to perform: {denied}")
        answer = self._answer_allowed(action, match, environ, (region, body))
        self._emulator.calls.note(checks, done=True)
        return answer

    def _checks(self, action: str, match: re.Match[str], region: str, body: bytes) -> list[Check]:
        if action == "ebs:StartSnapshot":
            tags = {item["Key"]: item["Value"] for item in _json_object(body).get("Tags", [])}
            return block_checks(action, region, "", tags, {})
        snapshot_id = match.group(1)
        own = self._emulator.tags_of(region)(snapshot_id)
        return block_checks(action, region, snapshot_id, {}, own)

    def _answer_allowed(
        self,
        action: str,
        match: re.Match[str],
        environ: dict[str, Any],
        request: tuple[str, bytes],
    ) -> BlockAnswer:
        chance = self._emulator.chance
        strikes = chance.strikes(self._emulator.knobs.fault_rate)
        if strikes and not chance.strikes(0.5):
            raise ServerFailed("An internal error occurred.")
        answer = self._carry_out(action, match.groups(), environ, request)
        if strikes:
            raise ServerFailed("An internal error occurred.")
        return answer

    def _carry_out(
        self,
        action: str,
        named: tuple[str, ...],
        environ: dict[str, Any],
        request: tuple[str, bytes],
    ) -> BlockAnswer:
        region, body = request
        service = self._service
        query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
        headers = {
            name[5:].replace("_", "-").lower(): str(value)
            for name, value in environ.items()
            if name.startswith("HTTP_X_AMZ_")
        }
        if action == "ebs:StartSnapshot":
            return service.start(region, _json_object(body))
        if action == "ebs:PutSnapshotBlock":
            return service.put(region, (named[0], int(named[1])), headers, body)
        if action == "ebs:CompleteSnapshot":
            return service.complete(region, named[0], headers)
        if action == "ebs:GetSnapshotBlock":
            return service.get(region, named[0], int(named[1]), query.get("blockToken", ""))
        if action == "ebs:ListSnapshotBlocks":
            return service.list_blocks(region, named[0], query)
        return service.list_changes(region, named[0], query)


def _find_action(environ: dict[str, Any]) -> tuple[str, re.Match[str]]:
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    for wanted, pattern, action in _ACTIONS:
        match = pattern.fullmatch(path)
        if wanted == method and match:
            return action, match
    if path.startswith("/snapshots/"):
        raise Invalid("The snapshot id is not valid.", "INVALID_SNAPSHOT_ID")
    raise NotFound(f"There is no {method} {path}.")


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError as error:
        raise Invalid("The request is not JSON.") from error
    if not isinstance(found, dict):
        raise Invalid("The request is not a JSON object.")
    return found
