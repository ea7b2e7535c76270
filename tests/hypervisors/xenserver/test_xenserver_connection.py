"""Signing in: to the right hosts only, as the right user, and with bounded patience."""

from __future__ import annotations

import io
import random
import socket
import ssl
import tracemalloc
import xmlrpc.client
from pathlib import Path

import pytest

from imageport.errors import (
    CertificateRefused,
    HypervisorError,
    HypervisorLoginRefused,
    HypervisorRefused,
    HypervisorUnreachable,
    ImageportError,
    InputError,
)
from imageport.hypervisors.xenserver import connection, export, leftovers, snapshots, transport
from imageport.hypervisors.xenserver.hypervisor import XenServerHypervisor
from imageport.hypervisors.xenserver.pool_trust import PoolTrust
from imageport.hypervisors.xenserver.records import ApiRecord
from imageport.hypervisors.xenserver.refusals import export_failure, refusal, shown
from imageport.hypervisors.xenserver.settings import XenServerSettings
from tests.hypervisors.hypervisor_contract import SNAPSHOT
from tests.hypervisors.tls_server import Authority, Certificate, ConnectProxy, TlsServer
from tests.hypervisors.xenserver.xenserver_lab import PASSWORD, XenServerLab, run


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Authority(tmp_path_factory.mktemp("authority")).certificate()


def test_the_product_is_named_with_its_version_and_pool(link: XenServerHypervisor):
    assert link.product() == "XenServer 8.4.0, pool 'lab'"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"password": "guess"}, "SESSION_AUTHENTICATION_FAILED"),
        ({"username": "nobody"}, "RBAC_PERMISSION_DENIED"),
    ],
)
def test_a_login_that_is_refused_says_why_and_not_with_what(
    lab: XenServerLab, changes: dict[str, str], code: str
):
    with lab.connect(**changes) as link, pytest.raises(HypervisorError, match=code) as caught:
        link.product()
    assert isinstance(caught.value, (HypervisorLoginRefused, HypervisorRefused))
    assert not caught.value.retryable
    assert "guess" not in repr(caught.value) + str(caught.value)


def test_a_pool_where_nobody_listens_is_unreachable(lab: XenServerLab):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with lab.connect(port=port) as link, pytest.raises(HypervisorUnreachable) as caught:
        link.product()
    assert caught.value.retryable


def test_a_member_names_its_coordinator(lab: XenServerLab):
    with lab.connect(host="127.0.0.2") as link:
        assert link.find_vm(lab.path).name == "gold"
        assert link.location == f"127.0.0.2:{lab.pool.port}"
    assert lab.pool.hosts[1].calls == ["session.login_with_password"]


def test_a_coordinator_that_is_not_trusted_is_not_signed_in_to(lab: XenServerLab):
    thumbprint = lab.pool.hosts[1].certificate.thumbprint
    with (
        lab.connect(host="127.0.0.2", thumbprint=thumbprint) as link,
        pytest.raises(CertificateRefused),
    ):
        link.product()
    assert lab.pool.hosts[0].calls == []


def test_a_coordinator_that_becomes_a_member_is_left_for_the_new_one(lab: XenServerLab):
    with lab.connect() as link:
        link.product()
        lab.pool.hosts[0].coordinator, lab.pool.hosts[1].coordinator = "127.0.0.2", ""
        assert link.find_vm(lab.path).name == "gold"


def test_hosts_that_name_each_other_are_unreachable(lab: XenServerLab):
    lab.pool.hosts[0].coordinator = "127.0.0.2"
    with lab.connect() as link, pytest.raises(HypervisorUnreachable, match="name each other"):
        link.product()


def test_a_certificate_that_changed_is_refused_before_the_password_is_sent(lab: XenServerLab):
    settings = lab.settings()
    lab.pool.renew_certificate()
    with XenServerHypervisor(settings) as link, pytest.raises(CertificateRefused) as caught:
        link.product()
    assert lab.pool.hosts[0].certificate.thumbprint.upper() in caught.value.message.replace(":", "")
    assert lab.pool.hosts[0].calls == []


def test_authorities_of_a_file_are_trusted(lab: XenServerLab, tmp_path: Path):
    file = tmp_path / "pool.pem"
    file.write_bytes(b"".join(host.certificate.public_pem for host in lab.pool.hosts))
    with lab.connect(thumbprint="", ca_file=str(file)) as link:
        assert link.product()
    with lab.connect(thumbprint="") as link, pytest.raises(CertificateRefused):
        link.product()


def test_of_several_thumbprints_each_is_checked_and_any_is_enough(certificate: Certificate):
    trust = PoolTrust(f"{'0' * 64}, {certificate.thumbprint}")
    der = ssl.PEM_cert_to_DER_cert(certificate.file.read_text().partition("-----BEGIN PRIV")[0])
    trust.check(der, "host")
    with pytest.raises(CertificateRefused, match="one of the 2 that are pinned"):
        trust.check(b"another", "host")
    with pytest.raises(InputError, match="Bad thumbprint"):
        PoolTrust(f"{'0' * 64}, rubbish")
    with pytest.raises(CertificateRefused, match="needed 00:00"):
        PoolTrust("0" * 64).check(b"another", "host")


def test_a_proxy_is_asked_for_every_host(lab: XenServerLab):
    proxy = ConnectProxy()
    try:
        with lab.connect(proxy=f"http://127.0.0.1:{proxy.port}") as link:
            assert link.product()
        assert len(proxy.asked) == 1
    finally:
        proxy.close()


def test_a_connection_that_was_closed_while_idle_is_opened_again(lab: XenServerLab):
    with lab.connect() as link:
        link.product()
        drop_idle(link)
        assert link.find_vm(lab.path).name == "gold"


def drop_idle(link: XenServerHypervisor) -> None:
    link._connection._session("transport")._open.sock.shutdown(socket.SHUT_RDWR)


def test_a_call_that_must_not_be_sent_twice_is_sent_on_a_new_connection_after_a_pause(
    link: XenServerHypervisor, monkeypatch: pytest.MonkeyPatch
):
    link.product()
    drop_idle(link)
    with pytest.raises(HypervisorUnreachable):
        link._connection.text("task.create", "a", "b", repeatable=False)
    link.product()
    drop_idle(link)
    monkeypatch.setattr(transport, "IDLE_SECONDS", 0.0)
    assert link._connection.text("task.create", "a", "b", repeatable=False)


def test_a_snapshot_whose_answer_was_lost_is_found_by_the_next_run(
    lab: XenServerLab, link: XenServerHypervisor
):
    vm = link.find_vm(lab.path)
    lab.pool.knobs.lost_answers = 1
    with pytest.raises(HypervisorUnreachable):
        link.take_snapshot(vm, SNAPSHOT)
    assert lab.snapshot_names() == [SNAPSHOT]
    assert link.take_snapshot(vm, SNAPSHOT).name == SNAPSHOT
    assert lab.snapshot_names() == [SNAPSHOT]


STRUCT = xmlrpc.client.dumps(({"Status": "Success", "Value": 7},), methodresponse=True)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        ("200 OK", "<html>hello</html>", HypervisorRefused),
        ("200 OK", "not even XML", HypervisorRefused),
        ("200 OK", xmlrpc.client.dumps((7,), methodresponse=True), HypervisorRefused),
        ("200 OK", xmlrpc.client.dumps(({},), methodresponse=True), HypervisorRefused),
        (
            "200 OK",
            xmlrpc.client.dumps(
                ({"Status": "Failure", "ErrorDescription": []},), methodresponse=True
            ),
            HypervisorRefused,
        ),
        (
            "200 OK",
            xmlrpc.client.dumps(xmlrpc.client.Fault(1, "what?"), methodresponse=True),
            HypervisorRefused,
        ),
        ("200 OK", STRUCT, HypervisorRefused),
        ("404 Not Found", "", HypervisorRefused),
        ("503 Busy", "", HypervisorUnreachable),
        ("200 OK", "<" + "a" * 5000, HypervisorRefused),
    ],
    ids=[
        "html",
        "text",
        "no structure",
        "empty",
        "no code",
        "fault",
        "type",
        "404",
        "503",
        "large",
    ],
)
def test_a_server_that_is_no_xenserver_is_told_from_one(
    certificate: Certificate,
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    body: str,
    kind: type[HypervisorError],
):
    monkeypatch.setattr(transport, "LARGEST_ANSWER_BYTES", 4096)
    answer = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    with TlsServer(certificate, lambda _head, link: link.sendall(answer)) as server:
        settings = XenServerSettings(
            host="127.0.0.1",
            port=server.port,
            username="me",
            password=PASSWORD,
            thumbprint=certificate.thumbprint,
        )
        with XenServerHypervisor(settings) as link, pytest.raises(kind) as caught:
            link.product()
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 No\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_an_error_page_is_not_read(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, answer: bytes
):
    monkeypatch.setattr(connection, "CALL_SECONDS", 3.0)
    with TlsServer(certificate, lambda _head, link: link.sendall(answer)) as server:
        settings = XenServerSettings(
            host="127.0.0.1",
            port=server.port,
            username="me",
            password=PASSWORD,
            thumbprint=certificate.thumbprint,
        )
        with (
            XenServerHypervisor(settings) as link,
            pytest.raises(HypervisorUnreachable, match="HTTP 50"),
        ):
            link.product()


def parsed(text: str) -> tuple[object, ...]:
    body = f"<methodResponse><params><param>{text}</param></params></methodResponse>"
    return read(body)


def read(body: str) -> tuple[object, ...]:
    """Return what the transport finds in an answer."""
    answer = transport.PoolTransport(lambda: pytest.fail("it connects"))
    return tuple(answer.parse_response(io.BytesIO(body.encode())))


def test_a_text_of_many_lines_takes_no_more_memory_than_its_length():
    lines = "ab\n" * 300_000
    tracemalloc.start()
    try:
        assert parsed(f"<value><string>{lines}</string></value>") == (lines,)
        assert tracemalloc.get_traced_memory()[1] < 10 * len(lines)
    finally:
        tracemalloc.stop()


def test_entities_of_a_document_type_are_not_expanded():
    body = f"<!DOCTYPE a [<!ENTITY b '{'c' * 90}'>]><methodResponse>{'&b;' * 9}</methodResponse>"
    with pytest.raises(ValueError, match="document type"):
        read(body)


def test_values_that_are_nested_without_end_are_told_by_their_kind():
    depth = 10_000
    opened, closed = "<value><array><data>", "</data></array></value>"
    (nested,) = parsed(opened * depth + closed * depth)
    assert shown(["CODE", nested]) == "CODE (list)"
    assert refusal([nested], "ask").fields["xapi_code"] == "list"
    with pytest.raises(HypervisorRefused, match=r"Bad VM\.other_config"):
        ApiRecord("VM", {"other_config": {"folder": nested}}).mapping("other_config")


ODD_VALUES = (7, "", "OpaqueRef:none", [], [7], {}, {"a": 7}, True, 1.5)


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_answers_of_other_kinds_end_in_errors_of_ours_alone(
    lab: XenServerLab, monkeypatch: pytest.MonkeyPatch, seed: int
):
    """Recipe: one answer in sixteen, in later seeds ever fewer, becomes a value of any kind."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    plain = lab.pool.hosts[0].api._call
    monkeypatch.setattr(leftovers, "CANCEL_SECONDS", 0.05)
    monkeypatch.setattr(export, "REASON_SECONDS", 0.05)
    monkeypatch.setattr(export, "FINISH_SECONDS", 0.2)
    monkeypatch.setattr(snapshots, "IN_USE_SECONDS", 0.05)

    def answer(method: str, parameters: object) -> object:
        value = plain(method, parameters)  # type: ignore[arg-type]
        odd = chance.random() * 16 * (seed + 1) < 1 and not method.startswith("session.log")
        return chance.choice(ODD_VALUES) if odd else value

    monkeypatch.setattr(lab.pool.hosts[0].api, "_call", answer)
    refused = 0
    for _ in range(8):
        try:
            with lab.connect() as link:
                vm = link.find_vm(lab.path)
                link.check_permissions(vm, takes_snapshot=True)
                link.tidy_up(vm)
                run(lab, link)
        except ImageportError:
            refused += 1
    assert refused


def test_settings_say_all_that_is_wrong_at_once_and_hide_the_password():
    with pytest.raises(InputError) as caught:
        XenServerSettings(
            host="pool:8443", port=0, password=PASSWORD, proxy="pool", thumbprint=f"{'0' * 64},1"
        )
    assert len(caught.value.fields["problems"]) == 4
    good = XenServerSettings(host="pool", username="me", password=PASSWORD)
    assert PASSWORD not in repr(good) + repr(XenServerHypervisor(good))


@pytest.mark.parametrize(
    ("host", "port", "location"),
    [
        ("pool", 443, "pool"),
        ("pool", 8443, "pool:8443"),
        ("[2001:db8::7]", 443, "[2001:db8::7]"),
        ("2001:db8::7", 8443, "[2001:db8::7]:8443"),
    ],
)
def test_a_pool_is_called_by_its_host_and_by_its_port_where_that_is_another(
    host: str, port: int, location: str
):
    pinned = "0" * 64
    settings = XenServerSettings(host, port, "me", PASSWORD, pinned)
    assert XenServerHypervisor(settings).location == location


def test_an_address_in_brackets_is_connected_to(lab: XenServerLab):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        lab.connect(host="[::1]", port=port) as link,
        pytest.raises(HypervisorUnreachable, match=rf"\[::1\]:{port}"),
    ):
        link.product()


def test_a_refusal_shows_no_reference_no_control_sign_and_no_novel():
    text = shown(["SR_BACKEND", "OpaqueRef:0af1-22", "a\nb\x1b[31m", "x" * 5000])
    assert "0af1" not in text
    assert text.isprintable()
    assert len(text) < 400
    assert shown([]) == "no reason"
    assert refusal(["HOST_STILL_BOOTING"], "ask").retryable
    assert export_failure(["INTERNAL_ERROR", "vhd-tool"], "gold").retryable
    assert not export_failure(["HANDLE_INVALID", "VDI", "x"], "gold").retryable
