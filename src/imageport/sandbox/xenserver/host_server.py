# References: RFC 9112; xapi-project/xen-api, ocaml/libs/http-lib.
"""One host of the pool: an HTTPS server with a certificate of its own."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import sys
import threading
from http import HTTPStatus
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from imageport.sandbox.xenserver.api import Api
from imageport.sandbox.xenserver.certificate import HostCertificate
from imageport.sandbox.xenserver.exports import PATH, CutOff, Exports, Request
from imageport.sandbox.xenserver.knobs import Knobs

LARGEST_CALL_BYTES = 1024 * 1024
HANDSHAKE_SECONDS = 30.0


class HostServer(ThreadingHTTPServer):
    """Serves the API and exports on one address of this computer."""

    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], certificate: HostCertificate, api: Api, exports: Exports
    ) -> None:
        self.certificate = certificate
        self.api = api
        self.exports = exports
        self.knobs = Knobs()
        self.lock = threading.RLock()
        self.host_ref = ""
        self.coordinator = ""
        """Address of the coordinator; empty when this host is it."""
        self.calls: list[str] = []
        """Names of all methods that were called, for tests."""
        super().__init__(address, _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands in the connection's own thread, with the certificate of this moment."""
        request.settimeout(HANDSHAKE_SECONDS)
        with self.certificate.context.wrap_socket(request, server_side=True) as secured:
            secured.settimeout(None)
            super().finish_request(secured, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close what the handshake has not taken over."""
        with contextlib.suppress(OSError):
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away or did not like the certificate."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: HostServer

    def do_POST(self) -> None:
        """Answer one call."""
        length = int(self.headers.get("Content-Length") or "0")
        if not 0 < length <= LARGEST_CALL_BYTES:
            self.send_error(HTTPStatus.BAD_REQUEST)
            self.close_connection = True
            return
        body = self.rfile.read(length)
        with self.server.lock:
            method, answer = self.server.api.answer(body, coordinator=self.server.coordinator)
            self.server.calls.append(method)
            if method == "VM.snapshot" and self.server.knobs.lost_answers:
                self.server.knobs.lost_answers -= 1
                self.close_connection = True
                return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_GET(self) -> None:
        """Send a disk."""
        self.close_connection = True
        target = urlsplit(self.path)
        if target.path.rstrip("/") != PATH:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        cookie = SimpleCookie(self.headers.get("Cookie") or "")
        request = Request(
            dict(parse_qsl(target.query)), {name: part.value for name, part in cookie.items()}
        )
        answer = self.server.exports.answer(request, self.server.host_ref)
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if answer.status is not HTTPStatus.OK:
            self.send_header("Content-Length", "0")
        self.end_headers()
        try:
            for data in answer.body:
                self.wfile.write(data)
        except CutOff:
            if self.server.knobs.cut_hard:
                # Lingering zero seconds resets the connection instead of ending it.
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        except (OSError, ssl.SSLError):
            pass  # the client went away; the body's own end has failed the task
        finally:
            close = getattr(answer.body, "close", None)
            if close is not None:
                close()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Keep no log: paths carry sessions."""
