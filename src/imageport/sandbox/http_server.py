# References: RFC 9112 (HTTP/1.1): 6.1, 6.3 message body length, 7.1 chunked, 9.3 persistence;
# PEP 3333.
"""A WSGI server that keeps connections open: a client puts thousands of pages over each.

werkzeug's own closes every connection after one answer, which costs a client more than the page.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]
DRAINED_BYTES = 8 * 1024 * 1024
"""Of a body that nobody read; behind a larger one the connection is closed."""
LARGEST_CHUNKED_BYTES = 64 * 1024 * 1024
MOST_HEADERS = 100
LONGEST_LINE_BYTES = 64 * 1024
"""Both as Python's own servers have it."""
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_LENGTH = re.compile(rb"[0-9A-Fa-f]{1,15}")
IDLE_SECONDS = 120.0
"""Clouds close idle connections after a few minutes, too."""


class WsgiServer(ThreadingHTTPServer):
    """Serves one application on a port of this computer; a thread for each connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, application: Wsgi) -> None:
        self.application = application
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Body(io.RawIOBase):
    """The bytes of one request, and no more."""

    def __init__(self, source: Any, length: int) -> None:
        super().__init__()
        self._source = source
        self.left = length

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def read(self, size: int | None = -1) -> bytes:
        """Return so many bytes, or all that are left."""
        wanted = self.left if size is None or size < 0 else min(size, self.left)
        data: bytes = self._source.read(wanted)
        self.left = 0 if len(data) < wanted else self.left - len(data)
        return data


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    # Headers and body leave in two writes: without this each answer waits 40 ms for an ACK.
    disable_nagle_algorithm = True
    timeout = IDLE_SECONDS
    wbufsize = 64 * 1024
    server: WsgiServer
    raw_requestline: bytes

    def do_GET(self) -> None:
        """Answer any request."""
        body = self._body()
        if body is None:
            self.send_error(400)
            self.close_connection = True
            return
        application = self.server.application
        self._sent: bool = False
        self._chunked: bool = False
        answer = application(self._environ(body), self._start)
        try:
            self._send(answer)
        finally:
            close = getattr(answer, "close", None)
            if close is not None:
                close()
        self._drain(body)

    # The base class calls a method named for the method of the request.
    do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Keep no log: paths carry signatures."""

    def parse_request(self) -> bool:
        """Read line and headers; the base class has them parsed as an e-mail, in 0.3 ms of CPU."""
        words = self.raw_requestline.decode("latin-1").rstrip("\r\n").split(" ")
        self.requestline, self.command = " ".join(words), words[0]
        self.request_version, self.close_connection = "HTTP/1.1", True
        headers = _read_headers(self.rfile)
        if len(words) != 3 or words[2] not in {"HTTP/1.0", "HTTP/1.1"} or headers is None:
            self.send_error(400)
            return False
        _, self.path, self.request_version = words
        self._fields = headers
        kept = headers.get("connection", "").lower()
        self.close_connection = kept == "close" or (
            self.request_version == "HTTP/1.0" and kept != "keep-alive"
        )
        if headers.get("expect", "").lower() == "100-continue":
            return self.handle_expect_100()
        return True

    def handle_expect_100(self) -> bool:
        """Tell the client to go on; at once, since it waits."""
        going_on = super().handle_expect_100()
        self.wfile.flush()
        return going_on

    def _body(self) -> _Body | None:
        """Return the request's body; None when nobody can tell where it ends."""
        coding = self._fields.get("transfer-encoding")
        length = self._fields.get("content-length")
        if coding is None:
            known = _LENGTH.fullmatch(length or "0")
            return _Body(self.rfile, int(known[0])) if known else None
        # Two lengths may differ: that one of them counts is how requests are smuggled (6.1).
        if length is not None or coding.lower() != "chunked":
            return None
        data = _read_chunks(self.rfile)
        return None if data is None else _Body(io.BytesIO(data), len(data))

    def _environ(self, body: _Body) -> dict[str, Any]:
        target = urlsplit(self.path)
        chunked = "transfer-encoding" in self._fields
        environ: dict[str, Any] = {
            "REQUEST_METHOD": self.command,
            # As PEP 3333 has it: bytes as Latin-1 characters.
            "PATH_INFO": unquote_to_bytes(target.path).decode("latin-1"),
            "QUERY_STRING": target.query,
            "SERVER_PROTOCOL": self.request_version,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": str(self.server.server_port),
            "wsgi.url_scheme": "http",
            "wsgi.input": body,
            "RAW_URI": self.path,
        }
        if not chunked:
            environ["CONTENT_LENGTH"] = self._fields.get("content-length", "")
        environ["CONTENT_TYPE"] = self._fields.get("content-type", "")
        for name, value in self._fields.items():
            if name not in {"content-length", "content-type"}:
                environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
        return environ

    def _start(self, status: str, headers: list[tuple[str, str]], _error: Any = None) -> None:
        code, _, phrase = status.partition(" ")
        self.send_response_only(int(code), phrase)
        names = {name.lower() for name, _ in headers}
        if "date" not in names:
            self.send_header("Date", self.date_time_string())
        for name, value in headers:
            self.send_header(name, value)
        bodiless = self.command == "HEAD" or code in {"204", "304"}
        self._chunked = "content-length" not in names and not bodiless
        if self._chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _send(self, answer: Iterable[bytes]) -> None:
        for data in answer:
            if not data or self.command == "HEAD":
                continue
            if self._chunked:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
            else:
                self.wfile.write(data)
        if self._chunked:
            self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _drain(self, body: _Body) -> None:
        """Read what nobody read, so that the next request begins where it should."""
        if body.left > DRAINED_BYTES:
            self.close_connection = True
            return
        body.read()


def _read_headers(source: Any) -> dict[str, str] | None:
    """Return headers by name in lower case, None when they are none or too many.

    A name that comes again is one list, as RFC 9110 5.3 has it.
    """
    found: dict[str, str] = {}
    for _ in range(MOST_HEADERS):
        line = source.readline(LONGEST_LINE_BYTES + 1)
        if line in {b"\r\n", b"\n"}:
            return found
        name, colon, value = line.decode("latin-1").partition(":")
        if not line.endswith(b"\n") or not colon or name != name.strip() or not name:
            return None
        name, text = name.lower(), value.strip()
        found[name] = f"{found[name]}, {text}" if name in found else text
    return None


def _read_chunks(source: Any) -> bytes | None:
    """Return a chunked body, or None when it is none or too large."""
    found = bytearray()
    while True:
        line = source.readline(1024).split(b";")[0].strip()
        if not _CHUNK_LENGTH.fullmatch(line):
            return None
        length = int(line, 16)
        if length == 0:
            while source.readline(1024).strip():
                pass  # trailers
            return bytes(found)
        if len(found) + length > LARGEST_CHUNKED_BYTES:
            return None
        found += source.read(length)
        source.readline(16)
