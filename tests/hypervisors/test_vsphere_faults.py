"""What goes wrong between a vCenter and us: each leaves nothing, and a rerun finishes."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from imageport.errors import (
    BadDisk,
    CertificateRefused,
    ExportInterrupted,
    HypervisorLoginRefused,
    HypervisorRefused,
    HypervisorUnreachable,
    ImageportError,
    SourceChanged,
    VerificationFailed,
    VmMissing,
)
from imageport.hypervisor import FrozenDisk
from imageport.hypervisors.vsphere import changed_areas as tracking
from imageport.hypervisors.vsphere.hypervisor import VsphereHypervisor
from imageport.hypervisors.vsphere.lease import ExportLease, LeaseUrl
from imageport.model import MIB, ExtentState
from tests.hypervisors.hypervisor_contract import NEXT_SNAPSHOT, SNAPSHOT, received
from tests.hypervisors.vsphere_laboratory import DATA, GOLD, PLAIN, VsphereLab

_WIRE_BYTES = MIB
"""About what the boot disk is as a stream: its data does not compress."""


@pytest.fixture
def lab(vsphere_lab: VsphereLab) -> VsphereLab:
    return vsphere_lab


@pytest.fixture
def link(lab: VsphereLab) -> Iterator[VsphereHypervisor]:
    with lab.connect() as link:
        yield link


@pytest.fixture
def frozen(lab: VsphereLab, link: VsphereHypervisor) -> FrozenDisk:
    vm = link.find_vm(lab.path)
    return link.freeze(vm, link.take_snapshot(vm, SNAPSHOT), vm.disk())


def interrupted(
    link: VsphereHypervisor, frozen: FrozenDisk, kind: type[ImageportError]
) -> ImageportError:
    with pytest.raises(kind) as caught:
        received(link.open_stream(frozen))
    assert "/nfc/" not in str(caught.value)  # what is behind it opens the disk to anyone
    return caught.value


@contextlib.contextmanager
def once_it_exports(lab: VsphereLab, happens: Callable[[], object]) -> Iterator[None]:
    """Let something happen a moment after there is a lease, however long that takes."""

    def wait_for_it() -> None:
        deadline = time.monotonic() + 30
        while not lab.exports_under_way() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
        happens()

    thread = threading.Thread(target=wait_for_it)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.mark.parametrize("seed", range(10))
def test_a_connection_cut_anywhere_interrupts_and_a_rerun_finishes(
    lab: VsphereLab, link: VsphereHypervisor, frozen: FrozenDisk, seed: int
):
    lab.cut_next_stream(random.Random(seed).randrange(_WIRE_BYTES))  # noqa: S311 - repeatable
    assert interrupted(link, frozen, ExportInterrupted).retryable
    assert lab.exports_under_way() == 0
    assert received(link.open_stream(frozen)) == lab.content()
    link.remove_snapshot(frozen.vm, frozen.snapshot)
    assert lab.snapshot_names() == []


@pytest.mark.parametrize("wrong", ["checksum", "size"])
def test_a_manifest_that_says_otherwise_fails_the_export(
    lab: VsphereLab, link: VsphereHypervisor, frozen: FrozenDisk, wrong: str
):
    lab.service.turn(manifest=wrong)
    error = interrupted(link, frozen, VerificationFailed)
    assert "as the host's manifest says" in error.message
    assert lab.exports_under_way() == 0
    lab.service.turn(manifest="")
    assert received(link.open_stream(frozen)) == lab.content()


def test_a_manifest_without_the_disk_is_said_in_words(
    lab: VsphereLab, link: VsphereHypervisor, frozen: FrozenDisk
):
    lab.service.turn(manifest="missing")
    with link.open_stream(frozen) as stream:
        for _ in stream.pieces():
            pass
        assert "size and checksum not compared" in stream.finish()
    assert lab.exports_under_way() == 0


def test_what_was_compared_is_said_in_words(
    lab: VsphereLab, link: VsphereHypervisor, frozen: FrozenDisk
):
    with link.open_stream(frozen) as stream:
        assert stream.size_bytes == len(lab.content())
        for _ in stream.pieces():
            pass
        assert "bytes and sha1 as the host's manifest says" in stream.finish()


@pytest.mark.parametrize("place", [600, 70_000, _WIRE_BYTES // 2])
def test_a_byte_that_changed_on_the_way_fails_the_export(
    lab: VsphereLab, link: VsphereHypervisor, frozen: FrozenDisk, place: int
):
    lab.service.turn(corrupt=[place])
    with pytest.raises((BadDisk, VerificationFailed)):
        received(link.open_stream(frozen))
    assert lab.exports_under_way() == 0
    assert received(link.open_stream(frozen)) == lab.content()


def test_a_slow_export_keeps_its_lease_alive(
    lab: VsphereLab, link: VsphereHypervisor, frozen: FrozenDisk
):
    lab.service.turn(lease_timeout_seconds=1.0, bytes_per_second=MIB / 2)
    begun = time.monotonic()
    assert received(link.open_stream(frozen)) == lab.content()
    assert time.monotonic() - begun > 1.5


def test_a_consumer_that_stands_still_keeps_its_lease_alive(
    lab: VsphereLab, link: VsphereHypervisor, frozen: FrozenDisk
):
    lab.service.turn(lease_timeout_seconds=0.6)
    with link.open_stream(frozen) as stream:
        pieces = stream.pieces()
        next(pieces)
        time.sleep(1.2)
        for _ in pieces:
            pass
        time.sleep(1.2)
        assert "as the host's manifest says" in stream.finish()


def test_a_lease_that_is_lost_behind_the_last_byte_is_the_cause_that_is_said(
    lab: VsphereLab, link: VsphereHypervisor, frozen: FrozenDisk
):
    lab.service.turn(lease_timeout_seconds=0.6)
    with link.open_stream(frozen) as stream:
        for _ in stream.pieces():
            pass
        lab.service.expire_leases()
        time.sleep(0.6)
        with pytest.raises(ExportInterrupted, match="the lease is lost"):
            stream.finish()
    assert lab.exports_under_way() == 0
    assert not [one for one in threading.enumerate() if one.name == "lease"]


def test_a_lease_that_is_lost_ends_a_read_that_would_wait_for_long(
    lab: VsphereLab, link: VsphereHypervisor, frozen: FrozenDisk
):
    lab.service.turn(lease_timeout_seconds=1.0, bytes_per_second=1000.0)
    begun = time.monotonic()
    with once_it_exports(lab, lab.service.expire_leases):
        assert "the lease is lost" in interrupted(link, frozen, ExportInterrupted).message
    assert time.monotonic() - begun < 20
    lab.service.turn(bytes_per_second=0.0)
    assert lab.exports_under_way() == 0
    assert received(link.open_stream(frozen)) == lab.content()


@pytest.mark.slow
def test_a_lease_of_a_killed_worker_ends_by_itself(
    lab: VsphereLab, link: VsphereHypervisor, frozen: FrozenDisk
):
    lab.service.turn(lease_timeout_seconds=1.0, bytes_per_second=MIB / 2)
    settings = lab.settings()
    program = f"""
        from imageport.hypervisors.vsphere.hypervisor import VsphereHypervisor
        from imageport.hypervisors.vsphere.settings import VsphereSettings
        import os, signal
        link = VsphereHypervisor(VsphereSettings("{settings.host}", {settings.port},
            "{settings.username}", "{settings.password}", "{settings.thumbprint}"))
        vm = link.find_vm("{lab.path}")
        stream = link.open_stream(link.freeze(vm, vm.snapshot("{SNAPSHOT}"), vm.disk()))
        next(stream.pieces())
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, check=False
    )
    assert done.returncode == -9, done.stderr.decode()
    deadline = time.monotonic() + 15
    while lab.exports_under_way() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert lab.exports_under_way() == 0
    lab.service.turn(bytes_per_second=0.0, lease_timeout_seconds=300.0)
    assert received(link.open_stream(frozen)) == lab.content()


def test_a_snapshot_removed_under_a_stream_interrupts_it_and_then_is_missing(
    lab: VsphereLab, link: VsphereHypervisor, frozen: FrozenDisk
):
    lab.service.turn(bytes_per_second=MIB / 3)
    with once_it_exports(lab, lambda: lab.forget_snapshot(SNAPSHOT)):
        interrupted(link, frozen, ExportInterrupted)
    assert lab.exports_under_way() == 0
    with pytest.raises(VmMissing, match=SNAPSHOT):
        link.open_stream(frozen)
    with pytest.raises(VmMissing, match=SNAPSHOT):
        link.freeze(frozen.vm, frozen.snapshot, frozen.disk)


def test_a_snapshot_removed_under_a_reader_of_ranges_is_noticed(
    lab: VsphereLab, link: VsphereHypervisor, frozen: FrozenDisk
):
    lab.write(0, b"goes to the delta, and into the file when the snapshot goes")
    with link.open_ranges(frozen) as disk:
        disk.check_unchanged()
        lab.forget_snapshot(SNAPSHOT)
        with pytest.raises(SourceChanged):
            disk.check_unchanged()
    with pytest.raises(VmMissing):
        link.open_ranges(frozen)


def test_a_vcenter_without_an_answer_is_unreachable_and_then_goes_on(
    lab: VsphereLab, link: VsphereHypervisor, frozen: FrozenDisk
):
    lab.service.turn(drop=True)
    for ask in (
        lambda: link.find_vm(lab.path),
        lambda: link.take_snapshot(frozen.vm, NEXT_SNAPSHOT),
        lambda: link.open_stream(frozen),
        lambda: lab.connect().product(),
    ):
        with pytest.raises(HypervisorUnreachable) as caught:
            ask()
        assert caught.value.retryable
    lab.service.turn(drop=False)
    assert received(link.open_stream(frozen)) == lab.content()
    assert lab.snapshot_names() == [SNAPSHOT]


def test_a_session_that_expired_is_renewed(
    lab: VsphereLab, link: VsphereHypervisor, frozen: FrozenDisk
):
    with link.open_ranges(frozen) as disk:
        lab.service.expire_sessions()
        assert disk.read_at(0, 4 * MIB) == lab.content()[: 4 * MIB]
    lab.service.expire_sessions()
    assert link.find_vm(lab.path).snapshot(SNAPSHOT) == frozen.snapshot
    lab.service.expire_sessions()
    assert received(link.open_stream(frozen)) == lab.content()


def test_a_session_that_expires_under_a_stream_interrupts_it(
    lab: VsphereLab, link: VsphereHypervisor, frozen: FrozenDisk
):
    lab.service.turn(lease_timeout_seconds=1.0, bytes_per_second=MIB / 3)

    def expire() -> None:
        lab.service.expire_sessions()
        lab.service.expire_leases()  # they end with their session

    with once_it_exports(lab, expire):
        interrupted(link, frozen, ExportInterrupted)
    lab.service.turn(bytes_per_second=0.0)
    assert received(link.open_stream(frozen)) == lab.content()


def test_a_wrong_password_is_refused_without_showing_it(lab: VsphereLab):
    with (
        lab.connect(password="of somebody else") as link,
        pytest.raises(HypervisorLoginRefused) as caught,
    ):
        link.product()
    assert "somebody" not in str(caught.value)


def test_a_changed_certificate_is_refused_by_pin_and_taken_by_its_authority(lab: VsphereLab):
    pinned = lab.settings()
    by_authority = lab.settings(thumbprint="", ca_file=str(lab.service.ca_file))
    lab.service.change_certificate()
    with VsphereHypervisor(pinned) as link, pytest.raises(CertificateRefused) as caught:
        link.product()
    assert pinned.thumbprint in caught.value.message
    assert lab.service.thumbprint in caught.value.message
    with VsphereHypervisor(by_authority) as link:
        vm = link.find_vm(lab.path)
        frozen = link.freeze(vm, link.take_snapshot(vm, SNAPSHOT), vm.disk())
        assert received(link.open_stream(frozen)) == lab.content()


def test_a_certificate_that_changes_between_lease_and_stream_is_refused(
    lab: VsphereLab,
    link: VsphereHypervisor,
    frozen: FrozenDisk,
    monkeypatch: pytest.MonkeyPatch,
):
    take_url = ExportLease.url

    def change_then(*arguments: Any) -> LeaseUrl:
        monkeypatch.undo()
        found = take_url(*arguments)
        lab.service.change_certificate()
        return found

    monkeypatch.setattr(ExportLease, "url", change_then)
    with pytest.raises(CertificateRefused, match="thumbprint"):
        link.open_stream(frozen)
    assert lab.exports_under_way() == 0
    with lab.connect() as again:
        assert received(again.open_stream(frozen)) == lab.content()


def test_of_two_disks_each_is_exported_as_itself(
    lab: VsphereLab, link: VsphereHypervisor, frozen: FrozenDisk
):
    vm = frozen.vm
    (other,) = [disk for disk in vm.disks if not disk.is_boot]
    assert DATA.name in other.place
    data = link.freeze(vm, frozen.snapshot, other)
    assert received(link.open_stream(data)) == b"\x77" * other.size_bytes
    assert received(link.open_stream(frozen)) == lab.content()
    with link.open_ranges(data) as disk:
        assert disk.read_at(0, 512) == b"\x77" * 512


def test_a_missing_privilege_is_named_when_it_is_met(
    lab: VsphereLab, link: VsphereHypervisor, frozen: FrozenDisk
):
    lab.service.turn(denied=["VApp.Export"])
    error = interrupted(link, frozen, HypervisorRefused)
    assert "VApp.Export" in error.message
    assert "VApp.Export" in error.hint
    lab.service.turn(denied=["VirtualMachine.State.CreateSnapshot"])
    with pytest.raises(HypervisorRefused, match=r"State\.CreateSnapshot"):
        link.take_snapshot(frozen.vm, NEXT_SNAPSHOT)


def test_privileges_are_asked_for_by_what_the_export_does(
    lab: VsphereLab, link: VsphereHypervisor, frozen: FrozenDisk
):
    snapshot, ranges = "VirtualMachine.State.RemoveSnapshot", "Datastore.FileManagement"
    lab.service.turn(denied=[snapshot, ranges])
    gaps = link.check_permissions(frozen.vm, takes_snapshot=True)
    assert {gap.action: gap.optional for gap in gaps} == {snapshot: False, ranges: True}
    places = {gap.found for gap in gaps if gap.action == ranges}
    assert places == {"not granted on its datacenter", "not granted on datastore 'masters'"}
    gaps = link.check_permissions(frozen.vm, takes_snapshot=False)
    assert {gap.action for gap in gaps} == {ranges}
    with pytest.raises(HypervisorRefused, match="403"):
        link.open_ranges(frozen)


def test_ranges_leave_out_what_was_never_allocated(
    lab: VsphereLab, link: VsphereHypervisor, frozen: FrozenDisk
):
    with link.open_ranges(frozen) as disk:
        holes = [one for one in disk.extents() if one.state is ExtentState.HOLE]
        data = sum(one.length_bytes for one in disk.extents() if one.state is ExtentState.DATA)
    assert holes
    assert data < len(lab.content())


def test_an_answer_that_nothing_is_allocated_hides_nothing(
    lab: VsphereLab, link: VsphereHypervisor, frozen: FrozenDisk, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tracking, "allocated_areas", lambda *_: [])
    with link.open_ranges(frozen) as disk:
        data = [one for one in disk.extents() if one.state is ExtentState.DATA]
    assert sum(one.length_bytes for one in data) == len(lab.content())


def test_ranges_are_refused_where_an_older_snapshot_lies_below(
    lab: VsphereLab, link: VsphereHypervisor, frozen: FrozenDisk
):
    second = link.freeze(frozen.vm, link.take_snapshot(frozen.vm, NEXT_SNAPSHOT), frozen.disk)
    with pytest.raises(HypervisorRefused, match="an older snapshot"):
        link.open_ranges(second)
    assert received(link.open_stream(second)) == lab.content()
    with link.open_ranges(frozen) as disk:
        assert disk.read_at(0, MIB) == lab.content()[:MIB]


def test_an_untracked_machine_has_no_change_ids_and_is_all_data(link: VsphereHypervisor):
    vm = link.find_vm(PLAIN.name)
    frozen = link.freeze(vm, link.take_snapshot(vm, SNAPSHOT), vm.disk())
    assert frozen.change_id == ""
    assert link.changed_areas(frozen, "52 a4/3") is None
    with link.open_ranges(frozen) as disk:
        assert [one.state for one in disk.extents()] == [ExtentState.DATA]


@pytest.mark.parametrize("most", [1, 1000])
def test_changed_areas_are_asked_to_the_end_of_the_disk(
    lab: VsphereLab, link: VsphereHypervisor, frozen: FrozenDisk, most: int
):
    places = [MIB, 3 * MIB, 4 * MIB, 7 * MIB]
    for place in places:
        lab.write(place, b"\xa1" * 10)
    second = link.freeze(frozen.vm, link.take_snapshot(frozen.vm, NEXT_SNAPSHOT), frozen.disk)
    lab.service.turn(areas_per_answer=most)
    areas = link.changed_areas(second, frozen.change_id)
    assert areas is not None
    assert [offset for offset, _ in areas] == places


def test_a_path_that_leads_nowhere_says_how_far_it_leads(link: VsphereHypervisor):
    with pytest.raises(VmMissing, match="'/DC0/vm' is there, but 'nowhere' is not in it"):
        link.find_vm("/DC0/vm/nowhere/gold")
    with pytest.raises(VmMissing, match="it is a Folder"):
        link.find_vm("/DC0/vm/masters")
    with pytest.raises(VmMissing):
        link.find_vm("/")


def test_a_machine_found_by_another_connection_is_known(lab: VsphereLab, frozen: FrozenDisk):
    with lab.connect() as another:
        again = another.freeze(frozen.vm, frozen.snapshot, frozen.disk)
        assert again.key == frozen.key
        assert received(another.open_stream(again)) == lab.content()


def test_a_snapshot_goes_with_its_machine(lab: VsphereLab, frozen: FrozenDisk):
    deleted = replace(frozen.vm, id="00000000-0000-0000-0000-000000000000")
    with lab.connect() as another:
        another.remove_snapshot(deleted, frozen.snapshot)
    assert lab.snapshot_names() == [SNAPSHOT]


def test_a_vcenter_that_went_away_is_unreachable(lab: VsphereLab):
    with lab.connect(port=1) as link, pytest.raises(HypervisorUnreachable):
        link.find_vm(GOLD.name)
