"""The one port of the emulated subscription: ARM, signed URLs, blobs, and the tests' questions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from imageport.sandbox.azure.arm_face import ArmFace
from imageport.sandbox.azure.blob_http import BlobHttp
from imageport.sandbox.azure.boot_diagnostics import PREFIX, DiagnosticsHttp
from imageport.sandbox.azure.emulator import Emulator
from imageport.sandbox.azure.page_http import PageHttp

CONTROL = "/imageport/"
Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


class HttpFront:
    """The WSGI application of the emulator."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._arm: Wsgi = ArmFace(emulator)
        self._diagnostics: Wsgi = DiagnosticsHttp(emulator)
        self._pages: Wsgi = PageHttp(emulator.store, emulator.knobs)
        self._blobs: Wsgi = BlobHttp(emulator.root / "blobs", emulator.knobs, emulator.calls.record)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        path = environ["PATH_INFO"]
        if path.startswith(CONTROL):
            return self._control(environ, start_response)
        if path.lower().startswith("/subscriptions"):
            return self._arm(environ, start_response)
        if path.startswith(f"/{PREFIX}"):
            return self._diagnostics(environ, start_response)
        if path.startswith("/md-"):
            return self._pages(environ, start_response)
        return self._blobs(environ, start_response)

    def _control(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer the tests' own questions; no part of Azure."""
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        emulator = self._emulator
        documents: dict[str, Callable[[], Any]] = {
            "health": lambda: "ok",
            "machines": emulator.hypervisor.facts,
            "violations": emulator.hypervisor.violations,
            "knobs": lambda: json.loads(emulator.knobs.to_json()),
            "calls": emulator.calls.all,
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
