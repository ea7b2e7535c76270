"""The one port of the emulated project: storage, tokens, machines, and the tests' questions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from imageport.sandbox.gcp.emulator import Emulator
from imageport.sandbox.gcp.gce_face import GceFace
from imageport.sandbox.gcp.gcs_http import GcsHttp
from imageport.sandbox.gcp.gcs_resources import object_resource

CONTROL = "/imageport/"
Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


class HttpFront:
    """The WSGI application of the emulator."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._gcs: Wsgi = GcsHttp(emulator)
        self._gce: Wsgi = GceFace(emulator)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        path = environ["PATH_INFO"]
        if path.startswith(CONTROL):
            return self._control(environ, start_response)
        if GceFace.serves(path):
            return self._gce(environ, start_response)
        return self._gcs(environ, start_response)

    def _control(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer the tests' own questions; no part of Google."""
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        emulator = self._emulator
        documents: dict[str, Callable[[], Any]] = {
            "health": lambda: "ok",
            "machines": emulator.hypervisor.facts,
            "violations": emulator.hypervisor.violations,
            "knobs": lambda: json.loads(emulator.knobs.to_json()),
            "calls": emulator.calls.document,
            "objects": lambda: [object_resource(one) for one in emulator.objects.all()],
        }
        name = environ["PATH_INFO"].removeprefix(CONTROL)
        if name not in documents:
            return _answer(start_response, 404, "{}")
        if environ["REQUEST_METHOD"] == "POST" and name == "knobs":
            try:
                emulator.knobs.turn(json.loads(body))
            except ValueError as error:
                return _answer(start_response, 400, json.dumps(str(error)))
        if environ["REQUEST_METHOD"] == "DELETE" and name == "calls":
            emulator.calls.forget()
        return _answer(start_response, 200, json.dumps(documents[name]()))


def _answer(start_response: Any, status: int, document: str) -> Iterable[bytes]:
    content = document.encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
    start_response(f"{status} {HTTPStatus(status).phrase}", headers)
    return [content]
