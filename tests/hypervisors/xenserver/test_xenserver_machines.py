"""Machines, their disks and snapshots: found as XenCenter shows them, removed only where ours."""

from __future__ import annotations

from typing import Any

import pytest

from imageport.errors import HypervisorRefused, InputError, VmMissing
from imageport.hypervisor import VmSnapshot
from imageport.hypervisors.xenserver import leftovers, snapshots
from imageport.hypervisors.xenserver.hypervisor import XenServerHypervisor
from imageport.hypervisors.xenserver.records import ApiRecord
from imageport.model import MIB
from imageport.sandbox.xenserver.pool import NewDisk
from imageport.sandbox.xenserver.records import NULL
from tests.hypervisors.hypervisor_contract import FOREIGN, NEXT_SNAPSHOT, SNAPSHOT, received
from tests.hypervisors.xenserver.xenserver_lab import XenServerLab

CALLER: dict[str, Any] = {"subject": NULL, "permissions": []}


def test_a_machine_is_found_by_uuid_and_by_a_folder_without_its_first_slash(
    lab: XenServerLab, link: XenServerHypervisor
):
    vm = link.find_vm(lab.path)
    assert link.find_vm(vm.id.upper()) == link.find_vm("masters/gold") == vm
    assert link.find_vm("/a/twin").location == "/a/twin"


def test_a_name_with_a_slash_is_a_name(lab: XenServerLab, link: XenServerHypervisor):
    lab.pool.add_machine("w10/w11", [NewDisk(MIB)])
    assert link.find_vm("w10/w11").location == "w10/w11"


def test_a_path_that_leads_astray_says_where_the_name_is(link: XenServerHypervisor):
    with pytest.raises(VmMissing, match=r"the only of that name are '/a/twin'"):
        link.find_vm("/c/twin")
    with pytest.raises(InputError, match=r"'/a/twin' \([0-9a-f-]{36}\); '/b/twin'"):
        link.find_vm("twin")


@pytest.mark.parametrize("kind", ["is_a_template", "is_a_snapshot", "is_control_domain"])
def test_what_is_no_machine_of_its_own_is_not_found(
    lab: XenServerLab, link: XenServerHypervisor, kind: str
):
    ref = lab.pool.add_machine("odd", [], **{kind: True})
    for path in ("odd", lab.pool.records.get("VM", ref)["uuid"]):
        with pytest.raises(VmMissing):
            link.find_vm(path)


def test_disks_come_by_position_without_drives_and_with_labels_of_their_own(lab: XenServerLab):
    disks = [
        NewDisk(2 * MIB, name="data", userdevice="10"),
        NewDisk(3 * MIB, name="data", userdevice="2"),
        NewDisk(4 * MIB, name="", userdevice="0"),
    ]
    ref = lab.pool.add_machine("many", disks, HVM_boot_params={"firmware": "uefi"})
    disc = lab.pool.add_disk(NewDisk(MIB, name="tools.iso"))
    lab.pool.machines.attach(ref, disc, {"type": "CD", "userdevice": "5"})
    with lab.connect() as link:
        vm = link.find_vm("many")
    assert [disk.label for disk in vm.disks] == [
        "disk at position 0",
        "data at position 2",
        "data at position 10",
    ]
    assert [disk.size_bytes // MIB for disk in vm.disks] == [4, 3, 2]
    assert vm.disk() == vm.disks[0]
    assert vm.disks[0].place == "Local storage 0"
    assert vm.firmware == "efi"
    assert not vm.is_running


def test_labels_that_differ_in_case_alone_are_told_apart(
    lab: XenServerLab, link: XenServerHypervisor
):
    disks = [NewDisk(MIB, name="Data"), NewDisk(2 * MIB, name="data", userdevice="1")]
    lab.pool.add_machine("alike", disks)
    vm = link.find_vm("alike")
    assert [vm.disk(disk.label) for disk in vm.disks] == list(vm.disks)


def test_what_a_backup_removes_while_it_is_listed_is_left_out(
    lab: XenServerLab, link: XenServerHypervisor, monkeypatch: pytest.MonkeyPatch
):
    lab.take_foreign_snapshot(FOREIGN)
    gone = "OpaqueRef:removed-meanwhile"
    plain = lab.pool.hosts[0].api._call

    def answer(method: str, parameters: object) -> object:
        value = plain(method, parameters)  # type: ignore[arg-type]
        if method == "VM.get_by_name_label":
            return [*value, gone]
        if method == "VM.get_record":
            return {**value, **{name: [gone, *value[name]] for name in ("snapshots", "VBDs")}}
        return value

    monkeypatch.setattr(lab.pool.hosts[0].api, "_call", answer)
    vm = link.find_vm("gold")
    assert [one.name for one in vm.snapshots] == [FOREIGN]
    assert len(vm.disks) == 1
    assert link.tidy_up(vm) == []


def test_the_disk_that_is_marked_bootable_is_the_boot_disk(lab: XenServerLab):
    disks = [NewDisk(MIB, name="a"), NewDisk(MIB, name="b", userdevice="1", bootable=True)]
    lab.pool.add_machine("marked", disks, power_state="Running")
    with lab.connect() as link:
        vm = link.find_vm("marked")
    assert vm.disk().label == "b"
    assert vm.is_running
    assert vm.firmware == "bios"


def test_a_machine_without_disks_has_no_boot_disk(lab: XenServerLab, link: XenServerHypervisor):
    lab.pool.add_machine("bare", [])
    with pytest.raises(VmMissing, match="it has none"):
        link.find_vm("bare").disk()


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("VDI", "virtual_size", "a lot"),
        ("VDI", "virtual_size", "9" * 30),
        ("VM", "snapshots", "none"),
        ("VM", "other_config", []),
        ("VBD", "empty", "no"),
        ("VM", "name_label", 7),
    ],
)
def test_a_record_that_is_not_as_documented_is_refused(
    lab: XenServerLab, link: XenServerHypervisor, kind: str, name: str, value: object
):
    vm = link.find_vm(lab.path)
    for record in lab.pool.records.all(kind).values():
        record[name] = value
    with pytest.raises(HypervisorRefused, match=rf"Bad {kind}\.{name}"):
        link.find_vm(vm.id)


def test_a_time_that_cannot_be_read_is_left_out():
    assert ApiRecord("VM", {"t": "20261126T08:15:00Z"}).time("t") == "2026-11-26T08:15:00Z"
    assert ApiRecord("VM", {"t": "yesterday"}).time("t") == ""


def test_snapshots_come_with_their_times(lab: XenServerLab, link: XenServerHypervisor):
    lab.take_foreign_snapshot(FOREIGN)
    (snapshot,) = link.find_vm(lab.path).snapshots
    assert snapshot.created.endswith("Z")
    assert not snapshot.is_ours


def test_a_full_storage_refuses_the_snapshot_with_its_reason(
    lab: XenServerLab, link: XenServerHypervisor
):
    lab.pool.knobs.snapshot_failure = ["SR_FULL", "requested", "maximum"]
    with pytest.raises(HypervisorRefused, match="SR_FULL"):
        link.take_snapshot(link.find_vm(lab.path), SNAPSHOT)


def test_a_disk_attached_after_the_snapshot_is_not_in_it(
    lab: XenServerLab, link: XenServerHypervisor
):
    vm = link.find_vm(lab.path)
    snapshot = link.take_snapshot(vm, SNAPSHOT)
    new = lab.pool.add_disk(NewDisk(MIB, name="new"))
    lab.pool.machines.attach(lab.machine, new, {"userdevice": "1"})
    with pytest.raises(VmMissing, match="was not attached"):
        link.freeze(vm, snapshot, link.find_vm(lab.path).disk("new"))


def test_a_frozen_disk_is_found_by_what_it_was_taken_of_then_by_position(
    lab: XenServerLab, link: XenServerHypervisor
):
    frozen = lab.freeze(link)
    record = lab.pool.records.get("VDI", lab.pool.records.by_uuid("VDI", frozen.change_id))
    (vbd,) = record["VBDs"]
    lab.pool.records.get("VBD", vbd)["userdevice"] = "9"
    assert lab.freeze(link).change_id == frozen.change_id
    record["snapshot_of"] = NULL
    with pytest.raises(VmMissing):
        lab.freeze(link)
    lab.pool.records.get("VBD", vbd)["userdevice"] = "0"
    assert lab.freeze(link).change_id == frozen.change_id


def test_a_snapshot_of_another_machine_is_none_of_this_one(
    lab: XenServerLab, link: XenServerHypervisor
):
    gold, twin = link.find_vm(lab.path), link.find_vm("/a/twin")
    snapshot = link.take_snapshot(twin, SNAPSHOT)
    with pytest.raises(InputError, match="no snapshot of 'gold'"):
        link.freeze(gold, snapshot, gold.disk())
    with pytest.raises(InputError, match="no snapshot of 'gold'"):
        link.remove_snapshot(gold, snapshot)


def test_removing_a_snapshot_spares_discs_and_what_others_use(
    lab: XenServerLab, link: XenServerHypervisor
):
    disc = lab.pool.add_disk(NewDisk(MIB, name="tools.iso"))
    lab.pool.machines.attach(lab.machine, disc, {"type": "CD", "userdevice": "4"})
    frozen = lab.freeze(link)
    borrowed = lab.pool.records.by_uuid("VDI", frozen.change_id)
    other = lab.pool.add_machine("borrower", [])
    lab.pool.machines.attach(other, borrowed, {"userdevice": "0"})
    link.remove_snapshot(frozen.vm, frozen.snapshot)
    assert lab.snapshot_names() == []
    assert lab.pool.records.find("VDI", disc)
    assert lab.pool.records.find("VDI", borrowed)


def test_a_suspended_machines_memory_stays_when_a_snapshot_goes(
    lab: XenServerLab, link: XenServerHypervisor
):
    memory = lab.pool.add_disk(NewDisk(MIB, name="suspend image"))
    lab.pool.records.get("VM", lab.machine)["suspend_VDI"] = memory
    frozen = lab.freeze(link)
    shared = lab.pool.records.get("VM", lab.pool.records.by_uuid("VM", frozen.snapshot.id))
    assert shared["suspend_VDI"] == NULL
    shared["suspend_VDI"] = memory  # as a checkpoint of a running machine has it
    link.remove_snapshot(frozen.vm, frozen.snapshot)
    assert lab.pool.records.find("VDI", memory)
    assert lab.pool.left_behind() == []


def test_a_removal_that_was_interrupted_is_finished_by_the_next(
    lab: XenServerLab, link: XenServerHypervisor
):
    frozen = lab.freeze(link)
    disk = lab.pool.records.by_uuid("VDI", frozen.change_id)
    lab.pool.machines.destroy_disk(CALLER, disk)
    link.remove_snapshot(frozen.vm, frozen.snapshot)
    assert lab.pool.left_behind() == []


def test_a_snapshot_of_a_machine_that_is_gone_is_removed_all_the_same(
    lab: XenServerLab, link: XenServerHypervisor
):
    frozen = lab.freeze(link)
    lab.pool.machines.destroy_machine(CALLER, lab.machine)
    link.remove_snapshot(frozen.vm, frozen.snapshot)
    assert lab.pool.left_behind() == []


def test_a_snapshot_that_somebody_renamed_is_theirs_now(
    lab: XenServerLab, link: XenServerHypervisor
):
    frozen = lab.freeze(link)
    ref = lab.pool.records.by_uuid("VM", frozen.snapshot.id)
    lab.pool.records.get("VM", ref)["name_label"] = "kept"
    with pytest.raises(InputError, match="another name now"):
        link.remove_snapshot(frozen.vm, frozen.snapshot)


def test_what_is_no_snapshot_is_not_removed_whatever_it_is_called(
    lab: XenServerLab, link: XenServerHypervisor
):
    vm = link.find_vm(lab.path)
    with pytest.raises(InputError, match="no snapshot"):
        link.remove_snapshot(vm, VmSnapshot(vm.id, SNAPSHOT))


def test_a_disk_that_stays_in_use_is_not_waited_for_endlessly(
    lab: XenServerLab, link: XenServerHypervisor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(snapshots, "IN_USE_SECONDS", 0.2)
    frozen = lab.freeze(link)
    with link.open_stream(frozen) as stream:
        next(stream.pieces())
        with pytest.raises(HypervisorRefused, match="VDI_IN_USE"):
            link.remove_snapshot(frozen.vm, frozen.snapshot)
    link.remove_snapshot(frozen.vm, frozen.snapshot)
    assert lab.pool.left_behind() == []


def abandoned(lab: XenServerLab, name: str = SNAPSHOT) -> str:
    """Leave what a killed run leaves: a failed task, its snapshot, its disk on a host."""
    lab.pool.knobs.keeps_disk_attached = True
    lab.pool.knobs.cuts = [3_000_000]
    with lab.connect() as killed:
        vm = killed.find_vm(lab.path)
        taken = next((one for one in vm.snapshots if one.name == name), None)
        frozen = killed.freeze(vm, taken or killed.take_snapshot(vm, name), vm.disk())
        stream = killed.open_stream(frozen)
        with pytest.raises(Exception, match="vhd-tool"):
            list(stream.pieces())
        stream._body.close()  # type: ignore[attr-defined]
        killed._leftovers._under_way.clear()
        return frozen.snapshot.name


def test_what_a_killed_run_left_is_ended_and_said(lab: XenServerLab, link: XenServerHypervisor):
    abandoned(lab)
    assert len(lab.pool.left_behind()) == 4
    said = link.tidy_up(link.find_vm(lab.path))
    assert [text.partition(" ")[0] for text in said] == ["ended", "detached"]
    left = lab.pool.left_behind()
    assert [text.partition(" ")[0] for text in left] == ["VM", "VDI"]
    assert link.tidy_up(link.find_vm(lab.path)) == []


def test_what_a_killed_run_left_on_somebody_elses_snapshot_is_ended_too(
    lab: XenServerLab, link: XenServerHypervisor
):
    lab.take_foreign_snapshot(FOREIGN)
    abandoned(lab, FOREIGN)
    assert len(link.tidy_up(link.find_vm(lab.path))) == 2
    assert lab.snapshot_names() == [FOREIGN]
    assert not [text for text in lab.pool.left_behind() if text.startswith("VBD")]


def test_a_disk_that_another_product_reads_stays_attached(
    lab: XenServerLab, link: XenServerHypervisor
):
    lab.take_foreign_snapshot(FOREIGN)
    snapshot = lab.pool.records.get("VM", lab.machine)["snapshots"][0]
    task = lab.pool.machines.create_task({**CALLER, "subject": "backup"}, "backup", "")
    lab.pool.exports._attach(lab.pool.disk_of(snapshot), task)
    assert link.tidy_up(link.find_vm(lab.path)) == []
    lab.pool.machines.end_task(task, ["INTERNAL_ERROR"])
    assert link.tidy_up(link.find_vm(lab.path)) == []
    assert [text.partition(" ")[0] for text in lab.pool.left_behind()] == [
        "VM", "VDI", "task", "VBD",
    ]  # fmt: skip


def test_an_export_of_this_process_goes_on_while_others_are_ended(
    lab: XenServerLab, link: XenServerHypervisor
):
    frozen = lab.freeze(link)
    with link.open_stream(frozen) as own:
        assert link.tidy_up(frozen.vm) == []
        assert received(own) == lab.content()


def test_exports_of_a_killed_run_end_with_its_snapshot(
    lab: XenServerLab, link: XenServerHypervisor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(leftovers, "CANCEL_SECONDS", 0.1)
    with lab.connect() as killed:
        frozen = lab.freeze(killed)
        killed._leftovers.begin(frozen, "never asked for")
        stream = killed.open_stream(frozen)
        next(stream.pieces())
        assert link.tidy_up(frozen.vm) == []
        assert lab.exports_under_way() == 2
        link.remove_snapshot(frozen.vm, frozen.snapshot)
        assert lab.pool.left_behind() == []
        stream.close()


def test_what_another_user_left_is_no_hindrance(
    lab: XenServerLab, link: XenServerHypervisor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(leftovers, "CANCEL_SECONDS", 0.1)
    with lab.connect(username="root") as killed:
        frozen = lab.freeze(killed)
        task = killed._leftovers.begin(frozen, "of root")
    lab.pool.machines.end_task(task, ["INTERNAL_ERROR"])
    assert link.tidy_up(frozen.vm) == []
    link.remove_snapshot(frozen.vm, frozen.snapshot)
    assert [text.partition(" ")[0] for text in lab.pool.left_behind()] == ["task"]


def test_a_user_without_the_role_for_snapshots_is_told_before(lab: XenServerLab):
    with lab.connect(username="admin") as link:
        vm = link.find_vm(lab.path)
        assert link.check_permissions(vm, takes_snapshot=False) == []
        (gap,) = link.check_permissions(vm, takes_snapshot=True)
        assert gap.action == "vm.snapshot"
        assert "vm-power-admin" in gap.found
        with pytest.raises(HypervisorRefused, match="RBAC_PERMISSION_DENIED"):
            link.take_snapshot(vm, NEXT_SNAPSHOT)


def test_the_local_superuser_may_do_everything(lab: XenServerLab):
    with lab.connect(username="root") as link:
        assert link.check_permissions(link.find_vm(lab.path), takes_snapshot=True) == []


def test_parts_are_refused_and_changes_are_not_told(lab: XenServerLab, link: XenServerHypervisor):
    frozen = lab.freeze(link)
    with pytest.raises(HypervisorRefused, match="in one go"):
        link.open_ranges(frozen)
    assert link.changed_areas(frozen, frozen.change_id) is None
