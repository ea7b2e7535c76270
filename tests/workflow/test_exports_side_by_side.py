"""Several exports at once, and exports that end badly: turns, snapshots, what is released."""

from __future__ import annotations

import threading
import time

import pytest

from imageport.errors import (
    ExportInterrupted,
    HypervisorRefused,
    HypervisorUnreachable,
    TransferCancelled,
    VmMissing,
)
from imageport.hypervisor import Vm, VmSnapshot
from imageport.hypervisors.memory import MemoryHypervisor
from imageport.model import MIB
from imageport.state.records import Generation
from imageport.workflow import export_turn
from imageport.workflow.export import export
from imageport.workflow.master import WantedMaster
from imageport.workflow.release_export import release
from tests.workflow.export_site import VM, ExportSite


class TerminatedError(BaseException):
    """What a termination signal becomes."""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> ExportSite:
    monkeypatch.setattr(export_turn, "WAIT_SECONDS", 0.02)
    return ExportSite()


def exported_while(site: ExportSite, lease: str, **wanted: str) -> tuple[Generation, float]:
    """Export while another run holds a lease for a moment; return when that was given back."""
    held, given_back = threading.Event(), [0.0]

    def hold() -> None:
        with site.state.lease(lease, "other-run"):
            held.set()
            while "waiting" not in site.notes():
                time.sleep(0.01)
            given_back[0] = time.monotonic()

    other = threading.Thread(target=hold)
    other.start()
    assert held.wait(10)
    found = site.exported(**wanted)
    ended = time.monotonic()
    other.join(10)
    return found, ended - given_back[0]


def test_an_export_waits_for_another_of_the_same_image_however_it_is_spelled(
    site: ExportSite,
) -> None:
    found, after = exported_while(site, "win11@export/onprem", image="WIN11")
    assert after > 0
    assert site.content(found) == site.master()
    assert "other-run holds it" in site.notes()


def test_an_export_waits_for_another_of_the_same_machine(site: ExportSite) -> None:
    found, after = exported_while(site, f"machine {site.machine.id}@export/onprem", image="data")
    assert after > 0
    assert site.content(found) == site.master()


def test_two_disks_of_one_machine_do_not_end_each_others_exports(site: ExportSite) -> None:
    site.machine.add_disk(2 * MIB, b"\x0c" * MIB)
    first: list[Generation] = []
    other = threading.Thread(
        target=lambda: first.append(site.exported("run-2", disk="Hard disk 2", image="data"))
    )

    def start_other(received: int) -> None:
        if received and not other.ident:
            other.start()
            while "waiting" not in site.notes():
                time.sleep(0.01)

    site.pool.faults.on_piece = start_other
    found = site.exported()
    other.join(20)
    assert site.content(found) == site.master()
    assert site.content(first[0])[:MIB] == b"\x0c" * MIB
    assert not site.left_behind()


def test_a_run_that_is_cancelled_while_it_waits_ends(site: ExportSite) -> None:
    waits = lambda: "waiting" in site.notes()  # noqa: E731 - what a run is asked
    with (
        site.state.lease("win11@export/onprem", "other-run"),
        pytest.raises(TransferCancelled, match="while another export ran"),
    ):
        export(site.place(cancelled=waits), WantedMaster(VM))
    assert not site.left_behind()


def test_a_snapshot_whose_taking_was_not_seen_to_its_end_is_removed(
    site: ExportSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = MemoryHypervisor.take_snapshot

    def taken(self: MemoryHypervisor, vm: Vm, name: str) -> VmSnapshot:
        take(self, vm, name)
        raise TerminatedError

    monkeypatch.setattr(MemoryHypervisor, "take_snapshot", taken)
    with pytest.raises(TerminatedError):
        site.exported()
    assert not site.left_behind()


def test_a_snapshot_that_the_platform_does_not_let_go_yet_stops_no_export(
    site: ExportSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.pool.faults.cut_after_bytes = [MIB]
    with pytest.raises(ExportInterrupted):
        site.exported("run-1")
    remove = MemoryHypervisor.remove_snapshot
    left = {one.name for one, _ in site.machine.snapshots.values()}

    def refused(self: MemoryHypervisor, vm: Vm, snapshot: VmSnapshot) -> None:
        if snapshot.name in left:
            raise HypervisorRefused(f"Cannot remove '{snapshot.name}': a lease holds its files.")
        remove(self, vm, snapshot)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryHypervisor, "remove_snapshot", refused)
        assert site.content(site.exported("run-2")) == site.master()
    assert "stays for now" in site.notes()
    site.exported("run-3")
    assert not site.left_behind()


def test_a_machine_that_is_renamed_meanwhile_keeps_no_snapshot(site: ExportSite) -> None:
    def rename(received: int) -> None:
        if received:
            site.machine.location = "/dc/vm/masters/win11-old"
            raise TerminatedError

    site.pool.faults.on_piece = rename
    with pytest.raises(TerminatedError):
        site.exported()
    assert not site.left_behind()


@pytest.mark.parametrize("error", [VmMissing, HypervisorUnreachable])
def test_half_files_are_released_also_when_the_hypervisor_cannot_be_asked(
    site: ExportSite, error: type[Exception]
) -> None:
    site.pool.faults.cut_after_bytes = [MIB]
    with pytest.raises(ExportInterrupted):
        site.exported()
    if error is VmMissing:
        site.pool.machines.clear()
    else:
        site.pool.faults.unreachable = 1
    with pytest.raises(error):
        release(site.place(), WantedMaster(VM))
    assert set(site.left_behind()) == {"snapshots"}
    assert not site.files()


def test_what_is_released_is_not_taken_from_a_live_export_of_the_machine(site: ExportSite) -> None:
    site.pool.faults.cut_after_bytes = [MIB]
    with pytest.raises(ExportInterrupted):
        site.exported()
    site.pool.exports["alive"] = (site.machine.id, "another connection")
    with site.state.lease(f"machine {site.machine.id}@export/onprem", "other-run"):
        release(site.place(), WantedMaster(VM))
    assert site.left_behind() == {"exports": ["alive"]}
