"""The datastore over HTTP: who may read it, what must be named, and that ranges are exact."""

from __future__ import annotations

from pyVmomi import vim

from tests.sandbox.vcenter.vcenter_lab import GOLD, GOLD_BYTES, VcenterLab

FLAT = "gold/gold-flat.vmdk"


def test_a_session_reads_any_range(lab: VcenterLab):
    wanted = GOLD.flat_file(lab.service.datastore, GOLD.disks[0]).read_bytes()
    path = lab.folder_path(FLAT)
    status, body, headers = lab.get(path, Cookie=lab.cookie, Range="bytes=1000-70999")
    assert (status, body) == (206, wanted[1000:71000])
    assert headers["Content-Range"] == f"bytes 1000-70999/{GOLD_BYTES}"
    assert lab.get(path, Cookie=lab.cookie, Range=f"bytes={GOLD_BYTES}-")[0] == 416


def test_nobody_else_reads_it(lab: VcenterLab):
    path = lab.folder_path(FLAT)
    assert lab.get(path)[0] == 401
    assert lab.get(path, Cookie="vmware_soap_session=made-up")[0] == 401
    assert lab.get(path, Cookie="vmware_cgi_ticket=made-up")[0] == 401


def test_a_session_that_ended_reads_nothing(own_lab: VcenterLab):
    path, cookie = own_lab.folder_path(FLAT), own_lab.cookie
    assert own_lab.get(path, Cookie=cookie, Range="bytes=0-9")[0] == 206
    assert own_lab.service.expire_sessions() == 1
    assert own_lab.get(path, Cookie=cookie, Range="bytes=0-9")[0] == 401


def test_a_ticket_is_good_once_and_for_its_url(lab: VcenterLab):
    path = lab.folder_path(FLAT)
    spec = vim.SessionManager.HttpServiceRequestSpec(
        method="httpGet", url=f"https://{lab.service.host}:{lab.service.port}{path}"
    )

    def ticket() -> str:
        found = lab.content.sessionManager.AcquireGenericServiceTicket(spec)
        return f"vmware_cgi_ticket={found.id}"

    first = ticket()
    assert lab.get(path, Cookie=first, Range="bytes=0-9")[0] == 206
    assert lab.get(path, Cookie=first, Range="bytes=0-9")[0] == 401
    other = lab.folder_path("gold/gold.vmdk")
    assert lab.get(other, Cookie=ticket())[0] == 401


def test_datacenter_and_datastore_must_be_named(lab: VcenterLab):
    for wrong in ({"dcPath": "DC1"}, {"dsName": "other"}, {"dcPath": ""}):
        assert lab.get(lab.folder_path(FLAT, **wrong), Cookie=lab.cookie)[0] == 404
    assert lab.get(f"/folder/{FLAT}", Cookie=lab.cookie)[0] == 404


def test_nothing_outside_the_datastore_is_read(lab: VcenterLab):
    for name in ("../password", "gold/../../password", "%2e%2e/password"):
        assert lab.get(lab.folder_path(name), Cookie=lab.cookie)[0] in {301, 404}


def test_a_missing_privilege_keeps_files_back(lab: VcenterLab):
    lab.service.turn(denied=["Datastore.FileManagement"])
    assert lab.get(lab.folder_path(FLAT), Cookie=lab.cookie)[0] == 403


def test_a_cut_leaves_what_was_sent(lab: VcenterLab):
    lab.service.turn(cuts=[12_345, -1])
    path = lab.folder_path(FLAT)
    status, body, _ = lab.get(path, Cookie=lab.cookie, Range="bytes=0-99999")
    assert (status, len(body)) == (206, 12_345)
    assert len(lab.get(path, Cookie=lab.cookie, Range="bytes=0-99999")[1]) == 100_000
