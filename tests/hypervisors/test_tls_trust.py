from __future__ import annotations

import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from imageport.errors import (
    CertificateRefused,
    ExportInterrupted,
    HypervisorUnreachable,
    InputError,
)
from imageport.hypervisors.http_stream import ResponseStream, ask
from imageport.hypervisors.tls_trust import TlsTrust, TrustedConnection
from tests.hypervisors.tls_server import Authority, Certificate, ConnectProxy, TlsServer

COOKIE = {"Cookie": "session=very-secret"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.certificate()


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Authority(tmp_path_factory.mktemp("other"), "another authority").certificate()


def answer_hello(_head: bytes, connection: ssl.SSLSocket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


def hello(server: TlsServer, trust: TlsTrust, **options: str) -> bytes:
    connection = TrustedConnection(
        options.get("host", "127.0.0.1"),
        server.port,
        trust,
        proxy=options.get("proxy", ""),
        timeout_seconds=5,
    )
    try:
        response = ask(connection, "GET", "/", COOKIE, server=connection.server)
        return response.read()
    finally:
        connection.close()


def test_a_pinned_thumbprint_is_taken_with_and_without_colons(certificate: Certificate):
    with TlsServer(certificate, answer_hello) as server:
        assert hello(server, TlsTrust(certificate.thumbprint)) == b"hello"
        plain = certificate.thumbprint.replace(":", "").lower()
        assert hello(server, TlsTrust(plain)) == b"hello"


def test_another_certificate_is_refused_with_both_thumbprints_before_a_byte_is_sent(
    certificate: Certificate, other: Certificate
):
    with TlsServer(other, answer_hello) as server, pytest.raises(CertificateRefused) as caught:
        hello(server, TlsTrust(certificate.thumbprint))
    assert server.requests == []
    assert other.thumbprint in caught.value.message
    assert certificate.thumbprint in caught.value.message
    assert not caught.value.retryable


def test_a_connection_that_was_closed_meanwhile_is_checked_again(
    certificate: Certificate, other: Certificate
):
    with TlsServer(certificate, answer_hello) as server:
        connection = TrustedConnection("127.0.0.1", server.port, TlsTrust(certificate.thumbprint))
        assert ask(connection, "GET", "/", COOKIE, server="it").read() == b"hello"
        connection.close()  # as http.client does when the server ends a connection
        server.show(other)
        with pytest.raises(CertificateRefused):
            ask(connection, "GET", "/", COOKIE, server="it")
    assert len(server.requests) == 1


def test_a_private_authority_vouches_for_its_servers_only(
    authority: Authority, certificate: Certificate, other: Certificate
):
    trust = TlsTrust(ca_file=str(authority.file))
    with TlsServer(certificate, answer_hello) as server:
        assert hello(server, trust) == b"hello"
        server.show(other)
        with pytest.raises(CertificateRefused, match=other.thumbprint) as caught:
            hello(server, trust)
        assert str(authority.file) in caught.value.message
    assert len(server.requests) == 1


def test_an_authority_does_not_vouch_for_another_name(authority: Authority):
    with (
        TlsServer(authority.certificate("vcenter.example"), answer_hello) as server,
        pytest.raises(CertificateRefused, match="IP address mismatch"),
    ):
        hello(server, TlsTrust(ca_file=str(authority.file)))
    assert server.requests == []


def test_authority_and_thumbprint_must_both_hold(authority: Authority, certificate: Certificate):
    renewed = authority.certificate()
    trust = TlsTrust(certificate.thumbprint, str(authority.file))
    with TlsServer(certificate, answer_hello) as server:
        assert hello(server, trust) == b"hello"
        server.show(renewed)
        with pytest.raises(CertificateRefused, match=renewed.thumbprint):
            hello(server, trust)


def test_without_any_setting_the_systems_authorities_decide(certificate: Certificate):
    with (
        TlsServer(certificate, answer_hello) as server,
        pytest.raises(CertificateRefused, match="the system's authorities"),
    ):
        hello(server, TlsTrust())
    assert server.requests == []


def test_the_environment_neither_changes_trust_nor_proxy(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with TlsServer(certificate, answer_hello) as server:
        assert hello(server, TlsTrust(certificate.thumbprint)) == b"hello"


def test_a_proxy_is_used_when_it_is_named_and_the_certificate_is_still_the_servers(
    authority: Authority, other: Certificate
):
    proxy = ConnectProxy()
    try:
        with TlsServer(authority.certificate("vcenter.example"), answer_hello) as server:
            where = {"host": "vcenter.example", "proxy": f"http://127.0.0.1:{proxy.port}"}
            assert hello(server, TlsTrust(ca_file=str(authority.file)), **where) == b"hello"
            assert proxy.asked == [f"vcenter.example:{server.port}"]
            with pytest.raises(CertificateRefused):
                hello(server, TlsTrust(other.thumbprint), **where)
    finally:
        proxy.close()


def test_a_thumbprint_that_a_trusted_server_gave_may_be_sha1(
    certificate: Certificate, other: Certificate
):
    with TlsServer(certificate, answer_hello) as server:
        assert hello(server, TlsTrust.given(certificate.sha1_thumbprint)) == b"hello"
        with pytest.raises(CertificateRefused, match=certificate.sha1_thumbprint):
            hello(server, TlsTrust.given(other.sha1_thumbprint))


def test_no_thumbprint_at_all_is_no_trust():
    with pytest.raises(InputError, match="found none"):
        TlsTrust.given("")


@pytest.mark.parametrize("thumbprint", ["AB:CD", "z" * 64, "1" * 40, "none"])
def test_what_is_no_sha256_thumbprint_is_refused(thumbprint: str):
    with pytest.raises(InputError, match="needed 64 hexadecimal digits"):
        TlsTrust(thumbprint)


def test_a_file_without_certificates_is_refused(tmp_path: Path):
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    for path in (empty, tmp_path / "missing.pem"):
        with pytest.raises(InputError, match="Cannot read the certificate authorities"):
            TlsTrust(ca_file=str(path))


@pytest.mark.parametrize(
    "proxy", ["127.0.0.1:80", "http://user:secret@proxy:3128", "http://proxy", "http://p:x"]
)
def test_a_proxy_that_is_none_is_refused_without_showing_it(proxy: str):
    with pytest.raises(InputError) as caught:
        TrustedConnection("vcenter", 443, TlsTrust(), proxy=proxy)
    assert "secret" not in str(caught.value)


def test_no_listener_is_an_unreachable_server():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(HypervisorUnreachable, match=f"127.0.0.1:{port}") as caught:
        TrustedConnection("127.0.0.1", port, TlsTrust()).connect()
    assert caught.value.retryable


def test_a_server_that_closes_without_an_answer_is_unreachable(certificate: Certificate):
    def hang_up(_head: bytes, connection: ssl.SSLSocket) -> None:
        connection.shutdown(socket.SHUT_RDWR)

    with (
        TlsServer(certificate, hang_up) as server,
        pytest.raises(HypervisorUnreachable),
    ):
        hello(server, TlsTrust(certificate.thumbprint))


def test_an_address_that_a_server_made_up_is_not_shown(certificate: Certificate):
    with TlsServer(certificate, answer_hello) as server:
        connection = TrustedConnection("127.0.0.1", server.port, TlsTrust(certificate.thumbprint))
        for target, headers in (
            ("/a b\r\n?ticket=secret", {}),
            ("/", {"Cookie": "secret\r\nX: y"}),
        ):
            with pytest.raises(HypervisorUnreachable) as caught:
                ask(connection, "GET", target, headers, server="it")
            assert "secret" not in str(caught.value)
            assert caught.value.__cause__ is None
        connection.close()
    assert server.requests == []


def stream_of(
    certificate: Certificate, head: bytes, body: bytes
) -> tuple[TlsServer, ResponseStream]:
    def send(_head: bytes, connection: ssl.SSLSocket) -> None:
        connection.sendall(head + b"\r\n" + body)
        connection.shutdown(socket.SHUT_RDWR)

    server = TlsServer(certificate, send)
    connection = TrustedConnection("127.0.0.1", server.port, TlsTrust(certificate.thumbprint))
    response = ask(connection, "GET", "/disk?ticket=secret", {}, server="it")
    return server, ResponseStream(connection, response, "disk of it")


def test_a_body_shorter_than_declared_is_an_interrupted_export(certificate: Certificate):
    server, stream = stream_of(certificate, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n", b"12345")
    with server, pytest.raises(ExportInterrupted, match="after 5 bytes: 4 bytes are missing"):
        stream.read(100)
    stream.close()


def test_a_body_of_unknown_length_ends_where_the_server_closes(certificate: Certificate):
    server, stream = stream_of(certificate, b"HTTP/1.1 200 OK\r\n", b"12345")
    with server:
        assert stream.read(3) == b"123"
        assert stream.read(100) == b"45"
        assert stream.read(100) == b""
        assert stream.received_bytes == 5
    stream.close()


@pytest.mark.parametrize("body", [b"5\r\n12345\r\n5\r\n12", b"5\r\n12345\r\n", b"zz\r\n"])
def test_a_chunked_body_without_its_end_is_an_interrupted_export(
    certificate: Certificate, body: bytes
):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
    server, stream = stream_of(certificate, head, body)
    with server, pytest.raises(ExportInterrupted):
        stream.read(100)
    stream.close()


def test_a_stream_that_was_closed_says_so_as_interrupted(certificate: Certificate):
    server, stream = stream_of(certificate, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", b"12345")
    with server:
        stream.close()
        stream.close()
        with pytest.raises(ExportInterrupted):
            stream.read(1)


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"])
def test_a_read_that_waits_is_ended_by_another_thread(certificate: Certificate, more: bytes):
    def stall(_head: bytes, connection: ssl.SSLSocket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + more + b"Content-Length: 5\r\n\r\n12")
        connection.recv(1)  # until the client goes

    with TlsServer(certificate, stall) as server:
        connection = TrustedConnection("127.0.0.1", server.port, TlsTrust(certificate.thumbprint))
        response = ask(connection, "GET", "/", {}, server="it")
        stream = ResponseStream(connection, response, "disk of it")
        timer = threading.Timer(0.2, stream.interrupt)
        timer.start()
        begun = time.monotonic()
        with pytest.raises(ExportInterrupted):
            stream.read(5)
        assert time.monotonic() - begun < 10
        timer.join()
        stream.close()
        stream.interrupt()
