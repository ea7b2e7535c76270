"""The emulated pool says no where xapi does; asked by the vendor's own client alone."""

from __future__ import annotations

import contextlib
import http.client
import ssl
import subprocess
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import XenAPI  # type: ignore[import-untyped]

from imageport.sandbox.xenserver.pool import EmulatedPool, NewDisk

MIB = 1 << 20
PASSWORD = "toor"
USERS = {
    "root": (PASSWORD, ""),
    "reader": (PASSWORD, "read-only"),
    "admin": (PASSWORD, "vm-admin"),
    "power": (PASSWORD, "vm-power-admin"),
    "nobody": (PASSWORD, ""),
}
SIZE = 9 * MIB
CONTENT = [(0, b"first"), (4 * MIB + 5, b"\x77" * 3_000_000), (SIZE - 512, b"last")]


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[EmulatedPool]:
    with EmulatedPool(tmp_path, USERS) as made:
        made.add_machine("gold", [NewDisk(SIZE, CONTENT)])
        yield made


def client(pool: EmulatedPool, host: int = 0) -> Any:
    """Return the vendor's client as its documentation makes one, trusting this host alone."""
    server = pool.hosts[host]
    context = ssl.create_default_context(cadata=server.certificate.public_pem.decode())
    transport = xmlrpc.client.SafeTransport(context=context)
    address, port = server.server_address[:2]
    return XenAPI.Session(f"https://{address!s}:{port}/", transport=transport)


@contextlib.contextmanager
def signed_in(pool: EmulatedPool, user: str = "root") -> Iterator[Any]:
    session = client(pool)
    session.login_with_password(user, PASSWORD, "1.0", "test")
    try:
        yield session
    finally:
        session("close")()


def get(pool: EmulatedPool, query: dict[str, str], host: int = 0) -> tuple[int, str, bytes]:
    """Send a GET; return status, Location and body."""
    server = pool.hosts[host]
    context = ssl.create_default_context(cadata=server.certificate.public_pem.decode())
    address, port = server.server_address[:2]
    link = http.client.HTTPSConnection(str(address), port, context=context, timeout=30)
    with contextlib.closing(link):
        link.request("GET", f"/export_raw_vdi?{urlencode(query)}")
        answer = link.getresponse()
        return answer.status, answer.getheader("Location") or "", answer.read()


def snapshot_disk(session: Any) -> str:
    (machine,) = session.xenapi.VM.get_by_name_label("gold")
    snapshot = session.xenapi.VM.snapshot(machine, "frozen")
    for vbd in session.xenapi.VM.get_VBDs(snapshot):
        if session.xenapi.VBD.get_type(vbd) == "Disk":
            return str(session.xenapi.VBD.get_VDI(vbd))
    raise AssertionError("no disk")


def export(session: Any, pool: EmulatedPool, **query: str) -> tuple[bytes, str, list[str]]:
    """Export with a task of its own; return body, the task's status and its reason."""
    task = session.xenapi.task.create("test", "")
    _, _, body = get(pool, {"session_id": session.handle, "task_id": task, **query})
    record = session.xenapi.task.get_record(task)
    return body, record["status"], record["error_info"]


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda api: api.VM.get_record("OpaqueRef:1"), "HANDLE_INVALID"),
        (lambda api: api.VDI.get_by_uuid("1"), "UUID_INVALID"),
        (lambda api: api.VM.get_sunshine("OpaqueRef:1"), "HANDLE_INVALID"),
        (lambda api: api.VM.levitate("OpaqueRef:1"), "MESSAGE_METHOD_UNKNOWN"),
        (lambda api: api.VM.get_all("more"), "MESSAGE_PARAMETER_COUNT_MISMATCH"),
        (lambda api: api.VM.snapshot("OpaqueRef:1"), "MESSAGE_PARAMETER_COUNT_MISMATCH"),
        (lambda api: api.VM.snapshot("OpaqueRef:1", "name"), "HANDLE_INVALID"),
        (lambda api: api.task.set_status(api.task.create("a", ""), "well"), "FIELD_TYPE_ERROR"),
    ],
)
def test_a_wrong_call_fails_with_xapis_code(pool: EmulatedPool, call: Any, code: str):
    with signed_in(pool) as session, pytest.raises(XenAPI.Failure) as caught:
        call(session.xenapi)
    assert caught.value.details[0] == code


def test_signing_in_needs_the_password_a_role_and_the_coordinator(pool: EmulatedPool):
    for host, user, password, code in (
        (0, "root", "guess", "SESSION_AUTHENTICATION_FAILED"),
        (0, "nobody", PASSWORD, "RBAC_PERMISSION_DENIED"),
        (1, "root", PASSWORD, "HOST_IS_SLAVE"),
    ):
        session = client(pool, host)
        with pytest.raises(XenAPI.Failure) as caught:
            session.login_with_password(user, password, "1.0", "test")
        assert caught.value.details[0] == code
        session("close")()
    assert caught.value.details[1] == "127.0.0.1"


def test_a_session_that_has_ended_is_opened_again_by_the_client(pool: EmulatedPool):
    with signed_in(pool) as session:
        first = session.handle
        pool.end_sessions()
        assert session.xenapi.VM.get_all()
        assert session.handle != first


def test_each_role_may_do_what_xapi_lets_it_do(pool: EmulatedPool):
    with signed_in(pool, "power") as session:
        disk = snapshot_disk(session)
        assert session.xenapi.session.get_is_local_superuser(session.handle) is False
        assert "vm.snapshot" in session.xenapi.session.get_rbac_permissions(session.handle)
    with signed_in(pool, "admin") as session:
        with pytest.raises(XenAPI.Failure, match="vm-power-admin"):
            snapshot_disk(session)
        session.xenapi.VDI.destroy(disk)
    with signed_in(pool, "reader") as session:
        with pytest.raises(XenAPI.Failure, match="RBAC_PERMISSION_DENIED"):
            session.xenapi.VDI.destroy(disk)
        assert session.xenapi.task.destroy(session.xenapi.task.create("own", "")) == ""
        query = {"session_id": session.handle, "vdi": disk}
        assert get(pool, query)[0] == http.client.FORBIDDEN


def test_a_task_of_somebody_else_is_not_destroyed(pool: EmulatedPool):
    with signed_in(pool) as root, signed_in(pool, "admin") as admin:
        task = root.xenapi.task.create("of root", "")
        with pytest.raises(XenAPI.Failure, match=r"task\.destroy/any"):
            admin.xenapi.task.destroy(task)


def test_a_pending_task_outlives_cancel_and_destroy_until_it_is_completed(pool: EmulatedPool):
    with signed_in(pool) as session:
        tasks = session.xenapi.task
        task = tasks.create("idle", "")
        tasks.cancel(task)
        tasks.destroy(task)
        assert tasks.get_status(task) == "pending"
        tasks.set_status(task, "cancelled")
        with pytest.raises(XenAPI.Failure, match="OPERATION_NOT_ALLOWED"):
            tasks.cancel(task)
        tasks.destroy(task)
        assert tasks.get_all() == []


def test_a_snapshot_shares_the_disc_in_the_drive_and_freezes_the_disk(pool: EmulatedPool):
    with signed_in(pool) as session:
        (machine,) = session.xenapi.VM.get_by_name_label("gold")
        disc = pool.add_disk(NewDisk(MIB, name="tools.iso"))
        pool.machines.attach(machine, disc, {"type": "CD", "userdevice": "4"})
        disk = snapshot_disk(session)
        record = session.xenapi.VDI.get_record(disk)
        assert record["is_a_snapshot"]
        assert record["snapshot_of"] == pool.disk_of(machine)
        assert len(session.xenapi.VDI.get_VBDs(disc)) == 2
        session.xenapi.VM.destroy(session.xenapi.VBD.get_VM(record["VBDs"][0]))
        assert session.xenapi.VDI.get_VBDs(disk) == []
        assert session.xenapi.VDI.get_uuid(disk) == record["uuid"]


def test_qemu_reads_the_exported_vhd_as_the_disk(pool: EmulatedPool, tmp_path: Path):
    with signed_in(pool) as session:
        disk = snapshot_disk(session)
        body, status, _ = export(session, pool, vdi=disk, format="vhd")
        assert status == "success"
        raw = pool.disks.path(session.xenapi.VDI.get_uuid(disk))
    vhd = tmp_path / "exported.vhd"
    vhd.write_bytes(body)
    image = f"driver=vpc,force_size_calc=current_size,file.filename={vhd}"
    expected = f"driver=raw,file.filename={raw}"
    subprocess.run(
        ["qemu-img", "compare", "--image-opts", image, expected], check=True, capture_output=True
    )
    assert len(body) < SIZE


def test_a_raw_export_is_the_disk(pool: EmulatedPool):
    with signed_in(pool) as session:
        disk = snapshot_disk(session)
        body, status, _ = export(session, pool, vdi=session.xenapi.VDI.get_uuid(disk), format="raw")
        assert status == "success"
        assert body == pool.disks.path(session.xenapi.VDI.get_uuid(disk)).read_bytes()


def test_differences_are_the_blocks_that_changed_also_to_zeros(pool: EmulatedPool):
    (machine,) = (ref for ref, vm in pool.records.all("VM").items() if vm["name_label"] == "gold")
    with signed_in(pool) as session:
        first = snapshot_disk(session)
        pool.write(pool.disk_of(machine), [(4 * MIB, bytes(2 * MIB)), (8 * MIB, b"new")])
        second = snapshot_disk(session)
        body, status, _ = export(session, pool, vdi=second, format="vhd", base=first)
    assert status == "success"
    table = body[2048:2068]
    used = [index for index in range(5) if table[index * 4 : index * 4 + 4] != b"\xff" * 4]
    assert used == [2, 4]
    assert body[60:64] == b"\0\0\0\x04"


def test_a_disk_on_another_host_is_fetched_there(pool: EmulatedPool):
    with signed_in(pool) as session:
        disk = pool.add_disk(NewDisk(MIB, [(0, b"elsewhere")], host=1))
        task = session.xenapi.task.create("test", "")
        query = {"session_id": session.handle, "task_id": task, "vdi": disk, "format": "raw"}
        status, address, _ = get(pool, query)
        assert status == http.client.FOUND
        assert urlsplit(address).netloc == "127.0.0.2"
        assert f"session_id={session.handle}" in address
        assert get(pool, query, host=1)[2].startswith(b"elsewhere")
        assert session.xenapi.task.get_status(task) == "success"


def test_what_fails_after_the_headers_is_an_error_page_in_the_body(pool: EmulatedPool):
    pool.knobs.largest_vhd_bytes = MIB
    with signed_in(pool) as session:
        disk = snapshot_disk(session)
        for query, code in (
            ({"format": "vhd"}, "VDI_TOO_LARGE"),
            ({"format": "raw", "base": "none"}, "UUID_INVALID"),
        ):
            body, status, reason = export(session, pool, vdi=disk, **query)
            assert body.startswith(b"HTTP/1.1 500")
            assert (status, reason[0]) == ("failure", code)


def test_a_session_that_is_none_fails_the_task_and_is_unauthorized(pool: EmulatedPool):
    with signed_in(pool) as session:
        disk = snapshot_disk(session)
        task = session.xenapi.task.create("test", "")
        query = {"session_id": "OpaqueRef:1", "task_id": task, "vdi": disk}
        assert get(pool, query)[0] == http.client.UNAUTHORIZED
        assert session.xenapi.task.get_error_info(task) == ["SESSION_AUTHENTICATION_FAILED"]


def test_a_disk_that_is_read_cannot_be_destroyed(pool: EmulatedPool):
    pool.knobs.failure_before_data = ["SR_BACKEND_FAILURE_46", "the LUN is gone"]
    pool.knobs.keeps_disk_attached = True
    with signed_in(pool) as session:
        disk = snapshot_disk(session)
        _, status, reason = export(session, pool, vdi=disk)
        assert (status, reason[0]) == ("failure", "SR_BACKEND_FAILURE_46")
        with pytest.raises(XenAPI.Failure, match="VDI_IN_USE"):
            session.xenapi.VDI.destroy(disk)
        (left,) = [
            vbd
            for vbd in session.xenapi.VDI.get_VBDs(disk)
            if session.xenapi.VM.get_is_control_domain(session.xenapi.VBD.get_VM(vbd))
        ]
        assert session.xenapi.VBD.get_other_config(left)["task_id"].startswith("OpaqueRef:")
        session.xenapi.VBD.unplug(left)
        session.xenapi.VBD.destroy(left)
        session.xenapi.VDI.destroy(disk)
