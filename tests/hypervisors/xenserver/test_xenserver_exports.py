"""What an export does when anything fails: it says so, leaves nothing, and the next is whole."""

from __future__ import annotations

import random

import pytest

from imageport.errors import (
    CertificateRefused,
    ExportInterrupted,
    HypervisorError,
    HypervisorRefused,
    HypervisorUnreachable,
    InputError,
    VerificationFailed,
    VmMissing,
)
from imageport.hypervisors.xenserver import export, export_request
from imageport.hypervisors.xenserver.hypervisor import XenServerHypervisor
from imageport.hypervisors.xenserver.inventory import Inventory
from imageport.hypervisors.xenserver.records import ApiRecord
from imageport.model import MIB
from imageport.sandbox.xenserver.pool import NewDisk
from tests.hypervisors.hypervisor_contract import NEXT_SNAPSHOT, received
from tests.hypervisors.tls_server import ConnectProxy
from tests.hypervisors.xenserver.xenserver_lab import CONTENT, SIZE, XenServerLab, run

STREAM_BYTES = 3 * 512 + 1024 + 512 + 4 * (2 * MIB + 512)
"""Of the laboratory's disk: footers, header, table, four blocks."""
POINTS = sorted(random.Random(20261126).sample(range(STREAM_BYTES), 8))  # noqa: S311 - no secret


def failed(
    lab: XenServerLab, link: XenServerHypervisor, kind: type[Exception], match: str | None = None
) -> HypervisorError | VerificationFailed:
    """Run an export that fails; check that nothing is left, and return the error."""
    with pytest.raises(kind, match=match) as caught:
        run(lab, link)
    assert lab.pool.left_behind() == []
    assert link._connection.session_id() not in str(caught.value)
    assert isinstance(caught.value, (HypervisorError, VerificationFailed))
    return caught.value


@pytest.mark.parametrize("point", [0, 3, *POINTS])
def test_a_cut_leaves_nothing_and_the_next_export_is_whole(
    lab: XenServerLab, link: XenServerHypervisor, point: int
):
    lab.pool.knobs.cuts = [point]
    lab.pool.knobs.cut_hard = point % 2 == 0
    lab.pool.knobs.keeps_disk_attached = point % 3 == 0
    assert failed(lab, link, ExportInterrupted).retryable
    assert run(lab, link) == lab.content()
    assert lab.pool.left_behind() == []


def test_a_stream_without_its_last_byte_is_not_whole(lab: XenServerLab, link: XenServerHypervisor):
    lab.pool.knobs.cuts = [STREAM_BYTES - 1]
    failed(lab, link, ExportInterrupted, "vhd-tool")


@pytest.mark.parametrize("keeps", [False, True], ids=["detached", "left attached"])
@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (["SR_BACKEND_FAILURE_46", "", "the LUN is gone"], ExportInterrupted),
        (["VDI_IO_ERROR", "Device I/O errors"], ExportInterrupted),
        (["VDI_INCOMPATIBLE_TYPE", "OpaqueRef:1", "metadata"], HypervisorRefused),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_an_error_page_behind_200_is_the_tasks_failure(
    lab: XenServerLab,
    link: XenServerHypervisor,
    failure: list[str],
    kind: type[Exception],
    keeps: bool,
):
    lab.pool.knobs.failure_before_data = failure
    lab.pool.knobs.keeps_disk_attached = keeps
    failed(lab, link, kind, failure[0])


def test_a_task_that_fails_after_the_last_byte_is_a_failure(
    lab: XenServerLab, link: XenServerHypervisor
):
    lab.pool.knobs.failure_at_end = ["VDI_IO_ERROR", "Device I/O errors"]
    failed(lab, link, ExportInterrupted, "VDI_IO_ERROR")
    lab.pool.knobs.failure_at_end = ["RBAC_PERMISSION_DENIED", "http/get_export_raw_vdi"]
    assert "role" in failed(lab, link, HypervisorRefused).hint


def test_a_task_that_succeeds_late_is_waited_for(lab: XenServerLab, link: XenServerHypervisor):
    lab.pool.knobs.task_seconds = 0.4
    assert run(lab, link) == lab.content()
    assert lab.pool.left_behind() == []


def test_a_disk_that_is_detached_after_its_task_has_ended_is_no_hindrance(
    lab: XenServerLab, link: XenServerHypervisor
):
    lab.pool.knobs.detach_seconds = 0.3
    assert run(lab, link) == lab.content()
    assert lab.pool.left_behind() == []


def test_a_user_who_may_detach_nothing_waits_for_the_pool_to_do_it(
    lab: XenServerLab, link: XenServerHypervisor
):
    link.product()
    for session in lab.pool.records.all("session").values():
        session["permissions"].remove("vbd.unplug")
    lab.pool.knobs.detach_seconds = 0.3
    assert run(lab, link) == lab.content()
    assert lab.pool.left_behind() == []


def test_a_pool_that_cannot_be_asked_for_a_moment_loses_no_export(
    lab: XenServerLab, link: XenServerHypervisor, monkeypatch: pytest.MonkeyPatch
):
    asked: list[str] = []
    plain = Inventory.record

    def record(inventory: Inventory, kind: str, ref: str) -> ApiRecord:
        asked.append(kind)
        if asked.count("task") in {1, 2}:
            raise HypervisorUnreachable("Cannot reach it: it restarts.")
        return plain(inventory, kind, ref)

    monkeypatch.setattr(Inventory, "record", record)
    assert run(lab, link) == lab.content()
    assert lab.pool.left_behind() == []


def test_a_task_that_somebody_removed_interrupts_the_export(
    lab: XenServerLab, link: XenServerHypervisor
):
    frozen = lab.freeze(link)
    with link.open_stream(frozen) as stream:
        assert list(stream.pieces())
        lab.pool.records.all("task").clear()
        with pytest.raises(ExportInterrupted, match="its task is gone"):
            stream.finish()


def test_a_task_without_an_end_is_given_up(
    lab: XenServerLab, link: XenServerHypervisor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(export, "FINISH_SECONDS", 0.2)
    monkeypatch.setattr("imageport.hypervisors.xenserver.leftovers.CANCEL_SECONDS", 0.2)
    lab.pool.knobs.endless_task = True
    failed(lab, link, ExportInterrupted, "still pending")


def test_a_host_that_sends_nothing_is_given_up(
    lab: XenServerLab, link: XenServerHypervisor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(export_request, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(export, "REASON_SECONDS", 0.1)
    lab.pool.knobs.silent_before_data = True
    failed(lab, link, ExportInterrupted, "timed out")


def test_bytes_behind_the_end_are_refused(lab: XenServerLab, link: XenServerHypervisor):
    lab.pool.knobs.trailing_bytes = 1
    failed(lab, link, VerificationFailed, "behind the disk's end")


def test_a_disk_on_another_host_comes_from_there(lab: XenServerLab, link: XenServerHypervisor):
    lab.pool.add_machine("far", [NewDisk(SIZE, CONTENT, host=1)])
    lab.path = "far"
    lab.machine = next(
        ref for ref, vm in lab.pool.records.all("VM").items() if vm["name_label"] == "far"
    )
    assert run(lab, link) == lab.content()
    assert len(lab.pool.exports.requests) == 2
    assert not any("session_id" in query for query in lab.pool.exports.requests)


def test_an_export_takes_the_proxy_to_every_host(lab: XenServerLab):
    lab.pool.add_machine("far", [NewDisk(SIZE, CONTENT, host=1)])
    lab.path = "far"
    proxy = ConnectProxy()
    try:
        with lab.connect(proxy=f"http://127.0.0.1:{proxy.port}") as link:
            assert run(lab, link) == lab.content()
    finally:
        proxy.close()
    port = lab.pool.port
    assert proxy.asked[:3] == [f"127.0.0.1:{port}", f"127.0.0.1:{port}", f"127.0.0.2:{port}"]
    assert lab.pool.left_behind() == []


def test_a_host_with_another_certificate_is_sent_no_session(lab: XenServerLab):
    lab.pool.add_machine("far", [NewDisk(SIZE, CONTENT, host=1)])
    lab.path = "far"
    thumbprint = lab.pool.hosts[0].certificate.thumbprint
    with lab.connect(thumbprint=thumbprint) as link:
        failed(lab, link, CertificateRefused, r"127\.0\.0\.2")
    assert len(lab.pool.exports.requests) == 1


def test_a_host_that_is_off_is_unreachable(lab: XenServerLab, link: XenServerHypervisor):
    lab.pool.add_machine("far", [NewDisk(SIZE, CONTENT, host=1)])
    lab.path = "far"
    lab.pool.hosts[1].socket.close()
    failed(lab, link, HypervisorUnreachable, r"127\.0\.0\.2")


@pytest.mark.parametrize(
    ("address", "match"),
    [
        ("http://127.0.0.1/export_raw_vdi?a=1", "needed https"),
        ("https://127.0.0.1/elsewhere?session=1", "needed https to a host's"),
        ("https://[::1/export_raw_vdi", "found no address"),
        ("", "needed https"),
    ],
)
def test_a_redirection_that_leads_elsewhere_is_refused(
    lab: XenServerLab,
    link: XenServerHypervisor,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    match: str,
):
    monkeypatch.setattr(lab.pool.exports, "_elsewhere", lambda _vdi, _host: "x")
    answer = lab.pool.exports._checked

    def elsewhere(request: object, host: str) -> object:
        found = answer(request, host)  # type: ignore[arg-type]
        found.headers = [("Location", address)]
        return found

    monkeypatch.setattr(lab.pool.exports, "_checked", elsewhere)
    error = failed(lab, link, HypervisorRefused, match)
    assert "session=" not in str(error)


def test_hosts_that_send_an_export_round_in_circles_are_left(
    lab: XenServerLab, link: XenServerHypervisor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lab.pool.exports, "_elsewhere", lambda _vdi, _host: "127.0.0.1")
    failed(lab, link, ExportInterrupted, "sent on 3 times")


def test_a_user_whose_role_was_taken_is_told_which_permission_is_missing(
    lab: XenServerLab, link: XenServerHypervisor
):
    frozen = lab.freeze(link)
    for session in lab.pool.records.all("session").values():
        session["permissions"].remove("http/get_export_raw_vdi")
    with pytest.raises(HypervisorRefused, match="http/get_export_raw_vdi") as caught:
        link.open_stream(frozen)
    assert "vm-admin" in caught.value.message
    link.remove_snapshot(frozen.vm, frozen.snapshot)
    assert lab.pool.left_behind() == []


def test_a_session_that_ended_is_opened_again(lab: XenServerLab, link: XenServerHypervisor):
    frozen = lab.freeze(link)
    lab.pool.end_sessions()
    assert received(link.open_stream(frozen)) == lab.content()


def test_a_snapshot_that_was_destroyed_under_us_is_missing(
    lab: XenServerLab, link: XenServerHypervisor
):
    frozen = lab.freeze(link)
    lab.forget_snapshot(frozen.snapshot.name)
    with pytest.raises(VmMissing, match="UUID_INVALID"):
        link.open_stream(frozen)
    link.remove_snapshot(frozen.vm, frozen.snapshot)
    assert lab.pool.left_behind() == []


def test_a_disk_too_large_for_a_vhd_comes_raw(
    lab: XenServerLab, link: XenServerHypervisor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(export, "LARGEST_VHD_BYTES", SIZE - 1)
    lab.pool.knobs.largest_vhd_bytes = SIZE - 1
    assert run(lab, link) == lab.content()
    assert lab.pool.exports.requests[-1]["format"] == "raw"
    lab.pool.knobs.cuts = [SIZE - 10]
    failed(lab, link, ExportInterrupted)
    first = lab.freeze(link)
    with pytest.raises(HypervisorRefused, match="larger than"):
        link.open_stream(lab.freeze(link, NEXT_SNAPSHOT), since=first)


def test_differences_come_as_zeros_where_the_guest_wrote_zeros(
    lab: XenServerLab, link: XenServerHypervisor
):
    base = lab.content()
    first = lab.freeze(link)
    lab.write(6 * MIB, bytes(2 * MIB))
    second = lab.freeze(link, NEXT_SNAPSHOT)
    stream = link.open_stream(second, since=first)
    assert stream.format_name == "vhd-stream"
    assert received(stream, base) == lab.content() != base
    for frozen in (first, second):
        link.remove_snapshot(frozen.vm, frozen.snapshot)
    assert lab.pool.left_behind() == []


def test_storage_that_sends_all_where_differences_were_asked_for_is_refused(
    lab: XenServerLab, link: XenServerHypervisor
):
    lab.pool.knobs.ignores_base = True
    first, second = lab.freeze(link), lab.freeze(link, NEXT_SNAPSHOT)
    with pytest.raises(HypervisorRefused, match="its storage sends all of it"):
        link.open_stream(second, since=first)
    assert lab.exports_under_way() == 0


@pytest.mark.parametrize("cut", [[], [0], [700]])
def test_differences_that_fail_before_a_block_came_are_refused_and_all_is_read(
    lab: XenServerLab, link: XenServerHypervisor, cut: list[int]
):
    lab.pool.knobs.failure_before_data = [] if cut else ["INTERNAL_ERROR", "vhd-tool: no parent"]
    lab.pool.knobs.cuts = cut
    first, second = lab.freeze(link), lab.freeze(link, NEXT_SNAPSHOT)
    with pytest.raises(HypervisorRefused, match=r"Cannot send what changed.*vhd-tool"):
        link.open_stream(second, since=first)
    assert lab.exports_under_way() == 0
    lab.pool.knobs.failure_before_data = []
    assert received(link.open_stream(second)) == lab.content()


def test_differences_are_to_an_earlier_snapshot_of_the_same_disk(lab: XenServerLab):
    disks = [
        NewDisk(SIZE, name="system", bootable=True),
        NewDisk(SIZE, name="data", userdevice="1"),
    ]
    lab.pool.add_machine("two", disks)
    with lab.connect() as link:
        vm = link.find_vm("two")
        snapshot = link.take_snapshot(vm, NEXT_SNAPSHOT)
        system, data = (link.freeze(vm, snapshot, disk) for disk in vm.disks)
        with pytest.raises(InputError, match="Bad earlier snapshot"):
            link.open_stream(data, since=system)


def test_differences_to_a_disk_that_grew_are_refused(lab: XenServerLab, link: XenServerHypervisor):
    first = lab.freeze(link)
    lab.pool.records.get("VDI", lab.disk)["virtual_size"] = str(SIZE + 2 * MIB)
    second = lab.freeze(link, NEXT_SNAPSHOT)
    with pytest.raises(HypervisorRefused, match="bytes then"):
        link.open_stream(second, since=first)


def test_a_disk_of_another_size_than_the_snapshots_is_not_taken(
    lab: XenServerLab, link: XenServerHypervisor
):
    frozen = lab.freeze(link)
    lab.pool.records.get("VDI", lab.pool.records.by_uuid("VDI", frozen.change_id))[
        "virtual_size"
    ] = str(SIZE - MIB)
    with pytest.raises(VerificationFailed, match=str(SIZE - MIB)):
        link.open_stream(frozen)
    assert lab.exports_under_way() == 0


def test_of_two_disks_the_one_that_is_named_is_sent(lab: XenServerLab):
    disks = [
        NewDisk(SIZE, [(0, b"data")], name="data", userdevice="1"),
        NewDisk(SIZE, [(0, b"system")], name="system", bootable=True),
    ]
    lab.pool.add_machine("two", disks)
    with lab.connect() as link:
        vm = link.find_vm("two")
        assert [disk.label for disk in vm.disks] == ["system", "data"]
        snapshot = link.take_snapshot(vm, NEXT_SNAPSHOT)
        for disk, first in ((vm.disk(), b"system"), (vm.disk("DATA"), b"data")):
            assert received(link.open_stream(link.freeze(vm, snapshot, disk))).startswith(first)
        link.remove_snapshot(vm, snapshot)
    assert lab.pool.left_behind() == []
