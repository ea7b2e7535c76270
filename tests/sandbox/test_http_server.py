"""The server under the emulator: lengths, chunks, and connections that stay open."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from imageport.sandbox.http_server import DRAINED_BYTES, WsgiServer


def application(environ: dict[str, Any], start_response: Any) -> Any:
    """Echo what arrived; paths say how."""
    path = environ["PATH_INFO"]
    if path == "/unread":
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]
    body = environ["wsgi.input"].read(-1)
    if path == "/stream":
        start_response("200 OK", [])
        return iter([body[:3], b"", body[3:]])
    facts = f"{environ['REQUEST_METHOD']} {path} {environ['QUERY_STRING']} ".encode("latin-1")
    facts += environ.get("HTTP_X_WORD", "").encode() + b" "
    start_response("200 OK", [("Content-Length", str(len(facts + body)))])
    return [facts + body]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = WsgiServer(0, application)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def connection(port: int) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    yield connection
    connection.close()


def ask(connection: http.client.HTTPConnection, method: str, path: str, **more: Any) -> bytes:
    connection.request(method, path, **more)
    return connection.getresponse().read()


def test_many_requests_share_a_connection(connection: Any):
    answers = set()
    sockets = set()
    for method in ("PUT", "GET", "POST", "PATCH", "DELETE"):
        answers.add(ask(connection, method, "/a%2Fb?x=1", body=b"B", headers={"X-Word": "w"}))
        sockets.add(connection.sock)
    assert answers == {
        f"{method} /a/b x=1 w B".encode() for method in ("PUT", "GET", "POST", "PATCH", "DELETE")
    }
    assert len(sockets) == 1


def test_a_head_request_gets_the_length_and_no_body(connection: Any):
    connection.request("HEAD", "/a")
    answer = connection.getresponse()
    assert answer.getheader("Content-Length") == str(len(b"HEAD /a   "))
    assert answer.read() == b""
    assert ask(connection, "GET", "/b") == b"GET /b   "


def test_chunks_are_read_and_written(connection: Any):
    chunks = iter([b"first", b"second"])
    assert ask(connection, "PUT", "/stream", body=chunks, encode_chunked=True) == b"firstsecond"
    assert ask(connection, "GET", "/b") == b"GET /b   "


def test_what_nobody_read_does_not_reach_the_next_request(connection: Any):
    assert ask(connection, "PUT", "/unread", body=bytes(100_000)) == b"ok"
    assert ask(connection, "GET", "/b") == b"GET /b   "


def test_behind_a_large_body_that_nobody_read_the_connection_ends(port: int):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        length = DRAINED_BYTES + 1
        client.sendall(f"PUT /unread HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode())
        received = b""
        while chunk := client.recv(4096):
            received += chunk
    assert received.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: -1\r\n\r\n",
        "Content-Length: \xb2\r\n\r\n",
        "Content-Length: 1, 1\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "Transfer-Encoding: chunked\r\n\r\n-5\r\n",
        "Transfer-Encoding: gzip\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
    ],
)
def test_a_body_without_a_sensible_length_is_refused(port: int, head: str):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(f"PUT /a HTTP/1.1\r\n{head}".encode("latin-1"))
        received = b""
        while chunk := client.recv(4096):
            received += chunk
    assert received.startswith(b"HTTP/1.1 400 ")


def spoken(port: int, request: bytes) -> bytes:
    """Send bytes as they are; return all that comes until the server hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(request)
        received = b""
        while chunk := client.recv(4096):
            received += chunk
    return received


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /a\r\n\r\n",
        b"GET /a HTTP/2.0\r\n\r\n",
        b"GET /a HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /a HTTP/1.1\r\n: no name\r\n\r\n",
        b"GET /a HTTP/1.1\r\nX-Word : w\r\n\r\n",
        b"GET /a HTTP/1.1\r\nX-Word: w\r\n continued\r\n\r\n",
        b"GET /a HTTP/1.1\r\n" + b"X-Word: w\r\n" * 101 + b"\r\n",
        b"GET /a HTTP/1.1\r\nX-Word: " + b"w" * 65_540 + b"\r\n\r\n",
    ],
)
def test_a_malformed_head_is_refused(port: int, request_: bytes):
    assert spoken(port, request_).startswith(b"HTTP/1.1 400 ")


def test_a_header_that_comes_again_is_one_list(port: int):
    head = b"GET /a HTTP/1.1\r\nX-Word: a\r\nConnection: close\r\nx-word:  b \r\n\r\n"
    assert spoken(port, head).endswith(b"GET /a  a, b ")


@pytest.mark.parametrize(
    "head", [b"GET /a HTTP/1.0\r\n\r\n", b"GET /a HTTP/1.1\r\nConnection: close\r\n\r\n"]
)
def test_the_connection_ends_where_the_client_says_so(port: int, head: bytes):
    assert spoken(port, head).endswith(b"GET /a   ")


def test_a_body_that_waits_for_leave_gets_it(port: int):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"PUT /a HTTP/1.1\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 100 ")
        client.sendall(b"B")
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
