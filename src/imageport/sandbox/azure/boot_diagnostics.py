# References: Azure REST API, Virtual Machines - Retrieve Boot Diagnostics Data; [MS-WMF] 2.2.2.9
# BITMAPINFOHEADER (BMP).
"""Console text and screenshot of a machine, behind signed URLs as Azure gives them."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, quote

from imageport.sandbox.azure.arm_errors import ArmError, bad_parameter, not_found
from imageport.sandbox.azure.arm_messages import ArmAnswer, ArmRequest
from imageport.sandbox.azure.emulator import Emulator

PREFIX = "bootdiagnostics-"
DEFAULT_MINUTES = 120
LONGEST_MINUTES = 1440
_KEY = secrets.token_bytes(32)


def _black_bmp() -> bytes:
    """Return a real, black picture of 8 x 8: these machines have no display."""
    pixels = bytes(8 * 8 * 3)
    header = struct.pack("<2sIHHI", b"BM", 54 + len(pixels), 0, 0, 54)
    facts = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 24, 0, len(pixels), 2835, 2835, 0, 0)
    return header + facts + pixels


SCREENSHOT = _black_bmp()


def retrieve(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer with two URLs that need no other credential: secrets."""
    document = emulator.resources.get(request.key)
    if document is None:
        raise not_found(request.scope)
    given = request.query.get("sasUriExpirationTimeInMinutes", str(DEFAULT_MINUTES))
    if not given.isdigit() or not 1 <= int(given) <= LONGEST_MINUTES:
        text = f"The value '{given}' must be between 1 and {LONGEST_MINUTES}."
        raise bad_parameter("sasUriExpirationTimeInMinutes", text)
    diagnostics = (document["properties"].get("diagnosticsProfile") or {}).get("bootDiagnostics")
    if not (diagnostics or {}).get("enabled"):
        text = (
            f"Boot diagnostics is not enabled for the VM '{request.name}'. Please enable it and "
            "retry the request."
        )
        raise ArmError(409, "OperationNotAllowed", text)
    machine = document["imageport"]["machine"]
    expires = int(time.time()) + int(given) * 60
    names = {
        "consoleScreenshotBlobUri": f"{machine}.screenshot.bmp",
        "serialConsoleLogBlobUri": f"{machine}.serialconsole.log",
    }
    return ArmAnswer(
        200, {key: _url(emulator, machine, blob, expires) for key, blob in names.items()}
    )


def _url(emulator: Emulator, machine: str, blob: str, expires: int) -> str:
    path = f"/{PREFIX}{machine}/{blob}"
    return f"{emulator.endpoint}{path}?sv=2018-03-28&se={expires}&sig={_sign(path, expires)}"


def _sign(path: str, expires: int) -> str:
    text = f"{path}\n{expires}".encode()
    return quote(hmac.new(_KEY, text, hashlib.sha256).hexdigest())


class DiagnosticsHttp:
    """The WSGI application behind those URLs."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        path = environ["PATH_INFO"]
        query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
        expires = query.get("se", "")
        signed = expires.isdigit() and hmac.compare_digest(
            query.get("sig", ""), _sign(path, int(expires))
        )
        if not signed or int(expires) < time.time():
            text = (
                '<?xml version="1.0" encoding="utf-8"?><Error><Code>AuthenticationFailed</Code>'
                "<Message>Server failed to authenticate the request.</Message></Error>"
            )
            return _send(start_response, 403, "application/xml", text.encode())
        _, folder, blob = path.split("/", 2)
        if blob.endswith(".bmp"):
            return _send(start_response, 200, "image/bmp", SCREENSHOT)
        text = self._emulator.hypervisor.console(folder.removeprefix(PREFIX))
        return _send(start_response, 200, "text/plain", text.encode())


def _send(start_response: Any, status: int, kind: str, content: bytes) -> Iterable[bytes]:
    headers = [("Content-Type", kind), ("Content-Length", str(len(content)))]
    start_response(f"{status} {HTTPStatus(status).phrase}", headers)
    return [content]
