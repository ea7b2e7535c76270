from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from imageport.errors import (
    CertificateRefused,
    FileMissing,
    HypervisorRefused,
    HypervisorUnreachable,
    SourceChanged,
)
from imageport.formats.raw import RawDisk
from imageport.hypervisors.tls_trust import TlsTrust, TrustedConnection
from imageport.model import MIB
from imageport.storage import http_file
from imageport.storage.http_file import HttpFile
from tests.hypervisors.tls_server import Authority, Certificate, TlsServer

CONTENT = b"".join(index.to_bytes(8, "little") for index in range(11 * MIB // 8))
TICKET = "ticket-nobody-may-read"
Turn = Callable[[ssl.SSLSocket, int, int], bool]
"""Answers a request itself (True), or leaves it to the server (False)."""


class RangeServer(TlsServer):
    """Answers byte ranges of `content` to who has the ticket of the day."""

    def __init__(self, certificate: Certificate) -> None:
        self.content = CONTENT
        self.etag = '"one"'
        self.ticket = TICKET
        self.turns: list[Turn] = []
        super().__init__(certificate, self._range)

    def _range(self, head: bytes, connection: ssl.SSLSocket) -> None:
        found = re.search(rb"Range: bytes=(\d+)-(\d+)", head)
        assert found
        first, last = int(found[1]), int(found[2])
        if self.turns and self.turns.pop(0)(connection, first, last):
            return
        if f"Cookie: {self.ticket}".encode() not in head:
            connection.sendall(b"HTTP/1.1 401 Who\r\nContent-Length: 0\r\n\r\n")
            return
        connection.sendall(self.head(first, last) + self.content[first : last + 1])

    def head(self, first: int, last: int, length: int | None = None) -> bytes:
        count = last - first + 1 if length is None else length
        return (
            f"HTTP/1.1 206 Partial Content\r\nContent-Length: {count}\r\nETag: {self.etag}\r\n"
            f"Content-Range: bytes {first}-{last}/{len(self.content)}\r\n"
            f"Last-Modified: Thu, 01 Jan 2026 10:00:00 GMT\r\n\r\n"
        ).encode()


class Place:
    """Where the server's file is."""

    location = "[store] gold/gold-flat.vmdk"
    target = "/folder/gold/gold-flat.vmdk?dsName=store"

    def __init__(self, server: RangeServer, trust: TlsTrust) -> None:
        self._server = server
        self._trust = trust
        self.ticket = server.ticket
        self.logins = 0

    def connect(self) -> TrustedConnection:
        return TrustedConnection("127.0.0.1", self._server.port, self._trust, timeout_seconds=10)

    def headers(self) -> Mapping[str, str]:
        return {"Cookie": self.ticket}

    def renew(self) -> None:
        self.logins += 1
        self.ticket = self._server.ticket


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def server(authority: Authority) -> Iterator[RangeServer]:
    with RangeServer(authority.certificate()) as server:
        yield server


@pytest.fixture
def place(server: RangeServer, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(http_file, "_WAITS_SECONDS", (0.0, 0.0, 0.0))
    return Place(server, TlsTrust(ca_file=str(authority.file)))


def status(line: str) -> Turn:
    def answer(connection: ssl.SSLSocket, _first: int, _last: int) -> bool:
        connection.sendall(f"HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n".encode())
        return True

    return answer


def hang_up(connection: ssl.SSLSocket, _first: int, _last: int) -> bool:
    connection.shutdown(socket.SHUT_RDWR)
    return True


def pass_by(_connection: ssl.SSLSocket, _first: int, _last: int) -> bool:
    return False


def test_any_range_is_read(place: Place):
    with HttpFile(place) as file:
        assert file.size_bytes == len(CONTENT)
        for offset, length in ((0, 1), (5, 100_000), (MIB - 1, 9 * MIB), (len(CONTENT) - 7, 7)):
            assert file.read_at(offset, length) == CONTENT[offset : offset + length]
        assert file.read_at(3, 0) == b""


def test_many_ranges_come_in_order_in_pieces_of_a_megabyte(place: Place):
    wanted = [(0, 5 * MIB + 3), (6 * MIB, 10), (7 * MIB, 4 * MIB)]
    with HttpFile(place) as file:
        pieces = list(file.read_many(wanted))
    assert max(len(data) for _, data in pieces) <= MIB
    assert [offset for offset, _ in pieces] == sorted(offset for offset, _ in pieces)
    assert all(data == CONTENT[offset : offset + len(data)] for offset, data in pieces)
    assert sum(len(data) for _, data in pieces) == sum(length for _, length in wanted)


def test_several_reads_are_in_flight(server: RangeServer, place: Place):
    together = threading.Barrier(3)

    def meet(_connection: ssl.SSLSocket, _first: int, _last: int) -> bool:
        together.wait(10)  # passes only when three requests wait at once
        return False

    with HttpFile(place) as file:
        server.turns = [meet, meet, meet]
        assert b"".join(data for _, data in file.read_many([(0, len(CONTENT))])) == CONTENT
    assert server.handshakes <= 4


def test_a_reader_that_stops_early_leaves_nothing_running(server: RangeServer, place: Place):
    with HttpFile(place) as file:
        pieces = file.read_many([(0, len(CONTENT))])
        next(pieces)
        pieces.close()  # type: ignore[attr-defined]
        assert file.read_at(7, 9) == CONTENT[7:16]
    assert len(server.requests) <= 6


@pytest.mark.parametrize("fault", [hang_up, status("503 Busy"), status("429 Slow")])
def test_a_server_that_fails_for_a_while_is_asked_again(
    server: RangeServer, place: Place, fault: Turn
):
    with HttpFile(place) as file:
        server.turns = [fault, pass_by, fault, fault]
        assert file.read_at(0, len(CONTENT)) == CONTENT


def test_dropped_connections_are_made_again(server: RangeServer, place: Place):
    with HttpFile(place) as file:
        assert file.read_at(0, 10) == CONTENT[:10]
        server.drop_connections()
        assert file.read_at(10, 10) == CONTENT[10:20]


def test_connections_that_were_all_dropped_while_idle_cost_one_attempt(
    server: RangeServer, place: Place
):
    together = threading.Barrier(4)

    def meet(_connection: ssl.SSLSocket, _first: int, _last: int) -> bool:
        together.wait(10)
        return False

    with HttpFile(place) as file:
        server.turns = [meet] * 4
        assert len(list(file.read_many([(0, 4), (8, 4), (16, 4), (24, 4)]))) == 4
        server.drop_connections()
        assert file.read_at(0, 10) == CONTENT[:10]


def test_a_body_that_ends_early_is_asked_for_again(server: RangeServer, place: Place):
    def send_half(connection: ssl.SSLSocket, first: int, last: int) -> bool:
        connection.sendall(server.head(first, last) + CONTENT[first : (first + last) // 2])
        return hang_up(connection, first, last)

    with HttpFile(place) as file:
        server.turns = [send_half]
        assert file.read_at(4096, 8192) == CONTENT[4096 : 4096 + 8192]


def test_a_server_that_stays_away_is_unreachable(server: RangeServer, place: Place):
    with HttpFile(place) as file:
        server.turns = [hang_up] * 4
        with pytest.raises(HypervisorUnreachable, match="in 4 attempts") as caught:
            file.read_at(0, 10)
        assert caught.value.retryable
        assert TICKET not in str(caught.value)


def test_a_file_that_is_locked_for_good_cannot_be_opened(server: RangeServer, place: Place):
    server.turns = [status("500 Locked")] * 4
    with pytest.raises(HypervisorRefused, match="a host has locked"):
        HttpFile(place)
    with HttpFile(place) as file:
        server.turns = [status("500 Busy")] * 4
        with pytest.raises(HypervisorUnreachable, match="answers 500"):
            file.read_at(0, 10)


def test_an_expired_session_logs_in_again_once(server: RangeServer, place: Place):
    with HttpFile(place) as file:
        server.ticket = "of the next day"
        assert b"".join(data for _, data in file.read_many([(0, len(CONTENT))])) == CONTENT
    assert place.logins == 1


def test_a_reader_who_is_not_let_in_is_refused(server: RangeServer, place: Place):
    with HttpFile(place) as file:
        server.turns = [status("403 No"), status("403 No")]
        with pytest.raises(HypervisorRefused, match="answers 403"):
            file.read_at(0, 10)


def test_a_server_that_ignores_ranges_is_refused(server: RangeServer, place: Place):
    server.turns = [status("200 OK")]
    with pytest.raises(HypervisorRefused, match="ignores ranges"):
        HttpFile(place)


@pytest.mark.parametrize(
    "answered", ["bytes 0-8/11534336", "bytes 1-10/11534336", "0-9", "bytes 0-9/*", ""]
)
def test_an_answer_to_another_range_is_refused(server: RangeServer, place: Place, answered: str):
    def answer(connection: ssl.SSLSocket, _first: int, _last: int) -> bool:
        head = f"HTTP/1.1 206 OK\r\nContent-Length: 10\r\nContent-Range: {answered}\r\n\r\n"
        connection.sendall(head.encode() + CONTENT[:10])
        return True

    with HttpFile(place) as file:
        server.turns = [answer]
        with pytest.raises(HypervisorRefused, match="another range than bytes 0-9"):
            file.read_at(0, 10)


def test_a_file_that_was_written_meanwhile_is_noticed_with_the_next_range(
    server: RangeServer, place: Place
):
    with HttpFile(place) as file:
        before = file.identity()
        assert file.identity() == before
        server.etag = '"two"'
        with pytest.raises(SourceChanged, match="Cannot go on reading"):
            file.read_at(0, 10)
        with pytest.raises(SourceChanged):
            file.identity()
    with HttpFile(place) as file:
        assert file.identity().key() != before.key()


def test_a_file_that_grew_or_went_is_noticed(server: RangeServer, place: Place):
    with HttpFile(place) as file:
        server.turns = [status("404 Gone")]
        with pytest.raises(SourceChanged, match="404"):
            file.read_at(0, 10)
        server.content += b"more"
        with pytest.raises(SourceChanged, match=f"found {len(CONTENT) + 4} bytes"):
            file.read_at(0, 10)
        with pytest.raises(SourceChanged, match="found its end"):
            file.read_at(len(CONTENT) - 1, 2)


def test_a_file_that_is_not_there_is_missing(server: RangeServer, place: Place):
    server.turns = [status("404 Not found")]
    with pytest.raises(FileMissing, match="there is no such file"):
        HttpFile(place)


def test_a_changed_certificate_stops_the_reading(server: RangeServer, place: Place, tmp_path: Path):
    with HttpFile(place) as file:
        server.show(Authority(tmp_path, "intruder").certificate())
        server.drop_connections()
        asked = len(server.requests)
        with pytest.raises(CertificateRefused):
            file.read_at(0, 10)
        assert len(server.requests) == asked


def test_a_closed_file_is_not_read(place: Place):
    file = HttpFile(place)
    file.close()
    file.close()
    with pytest.raises(HypervisorRefused, match="it was closed"):
        file.read_at(0, 1)
    with pytest.raises(HypervisorRefused, match="it was closed"):
        list(file.read_many([(0, 1)]))


def test_a_raw_disk_lies_in_it(place: Place):
    with RawDisk(HttpFile(place)) as disk:
        assert disk.size_bytes == len(CONTENT)
        assert disk.read_at(MIB, 512) == CONTENT[MIB : MIB + 512]
        disk.check_unchanged()
