"""The one port of the emulated subscription: ARM, signed URLs, blobs, and the tests' questions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from imageport.sandbox.azure.arm_face import ArmFace
from imageport.sandbox.azure.blob_http import BlobHttp
from imageport.sandbox.azure.boot_diagnostics import PREFIX, DiagnosticsHttp
from imageport.sandbox.azure.emulator import Emulator
from imageport.sandbox.azure.page_http import PageHttp
from imageport.sandbox.control_pages import ControlPages
from imageport.sandbox.http_server import Wsgi


class HttpFront:
    """The WSGI application of the emulator."""

    def __init__(self, emulator: Emulator) -> None:
        self._control = ControlPages(emulator, emulator.calls.all)
        self._arm: Wsgi = ArmFace(emulator)
        self._diagnostics: Wsgi = DiagnosticsHttp(emulator)
        self._pages: Wsgi = PageHttp(emulator.store, emulator.knobs)
        self._blobs: Wsgi = BlobHttp(emulator.root / "blobs", emulator.knobs, emulator.calls.record)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        path = environ["PATH_INFO"]
        if ControlPages.serves(path):
            return self._control(environ, start_response)
        if path.lower().startswith("/subscriptions"):
            return self._arm(environ, start_response)
        if path.startswith(f"/{PREFIX}"):
            return self._diagnostics(environ, start_response)
        if path.startswith("/md-"):
            return self._pages(environ, start_response)
        return self._blobs(environ, start_response)
