"""The one port of the emulated project: storage, tokens, machines, and the tests' questions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from imageport.sandbox.control_pages import ControlPages
from imageport.sandbox.gcp.emulator import Emulator
from imageport.sandbox.gcp.gce_face import GceFace
from imageport.sandbox.gcp.gcs_http import GcsHttp
from imageport.sandbox.gcp.gcs_resources import object_resource
from imageport.sandbox.http_server import Wsgi


class HttpFront:
    """The WSGI application of the emulator."""

    def __init__(self, emulator: Emulator) -> None:
        def objects() -> list[dict[str, Any]]:
            return [object_resource(one) for one in emulator.objects.all()]

        self._control = ControlPages(emulator, emulator.calls.document, {"objects": objects})
        self._gcs: Wsgi = GcsHttp(emulator)
        self._gce: Wsgi = GceFace(emulator)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        path = environ["PATH_INFO"]
        if ControlPages.serves(path):
            return self._control(environ, start_response)
        if GceFace.serves(path):
            return self._gce(environ, start_response)
        return self._gcs(environ, start_response)
