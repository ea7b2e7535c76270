"""Export: the folder holds what the snapshot froze, and nothing is left of what failed."""

from __future__ import annotations

import random

import pytest

from imageport.cloud import PermissionGap
from imageport.compose.contract import EngineOptions, Installer
from imageport.errors import (
    ExportInterrupted,
    HypervisorRefused,
    HypervisorUnreachable,
    InputError,
    NameTaken,
    PermissionMissing,
    TransferCancelled,
    VerificationFailed,
    VmMissing,
)
from imageport.formats.vhdx_writer import VhdxWriter
from imageport.formats.virtual_disk import VirtualDisk
from imageport.hypervisor import ExportTraits
from imageport.model import MIB, GenerationRole
from imageport.transfer.block_target import BlockTarget
from imageport.transfer.pipeline import TransferRequest, TransferResult, transfer
from imageport.workflow import export_bytes
from imageport.workflow.export import export
from imageport.workflow.export_preflight import identify, preflight_master
from imageport.workflow.facts import source_facts
from imageport.workflow.master import ExportWay, WantedMaster
from imageport.workflow.release_export import release
from imageport.workflow.upload import upload
from tests.workflow.export_site import SIZE_BYTES, VM, ExportSite
from tests.workflow.small_site import PowerCutError, SmallSite

STREAM_ONLY = ExportTraits()
RANGES_ONLY = ExportTraits(streams=False, ranges=True)
DIFFERENCES = ExportTraits(differences=True)


@pytest.fixture
def site() -> ExportSite:
    return ExportSite()


@pytest.mark.parametrize("way", list(ExportWay))
def test_what_is_exported_is_what_the_snapshot_froze(site: ExportSite, way: ExportWay) -> None:
    found = site.exported(way=way)
    assert site.content(found) == site.master()
    assert found.role is GenerationRole.SOURCE
    assert found.handle["file_name"] == "win11.vhdx"
    assert site.files() == ["win11.vhdx", "win11.xml"]
    assert not site.left_behind()


def test_a_named_snapshot_is_read_and_left_alone(site: ExportSite) -> None:
    site.machine.snapshot("golden-3")
    frozen = site.master()
    site.write(5 * MIB, b"\x07" * MIB)
    found = site.exported(snapshot="golden-3")
    assert site.content(found) == frozen
    assert [one.name for one, _ in site.machine.snapshots.values()] == ["golden-3"]


def test_the_same_snapshot_is_not_exported_twice(site: ExportSite) -> None:
    site.machine.snapshot("golden-3")
    first = site.exported(snapshot="golden-3")
    sent = site.pool.sent_bytes
    assert site.exported("run-2", snapshot="golden-3") == first
    assert site.pool.sent_bytes == sent


def test_an_unchanged_machine_moves_nothing_where_changes_can_be_asked(
    site: ExportSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_bytes, "SAMPLE_BLOCKS", 4)
    first = site.exported()
    sent = site.pool.sent_bytes
    again = site.exported("run-2")
    assert (again.id, again.source_key) == (first.id, first.source_key)
    assert site.pool.sent_bytes - sent <= 2 * MIB  # the sample that is compared
    assert not site.left_behind()


def test_an_unchanged_machine_keeps_its_file_where_nothing_tells(site: ExportSite) -> None:
    site.pool.traits = STREAM_ONLY
    first = site.exported()
    again = site.exported("run-2")
    assert (again.id, again.source_key) == (first.id, first.source_key)
    assert site.files() == ["win11.vhdx", "win11.xml"]
    assert not site.left_behind()


def test_only_what_changed_is_read_and_the_older_file_goes(
    site: ExportSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_bytes, "SAMPLE_BLOCKS", 4)
    site.exported()
    site.write(6 * MIB, b"\x09" * 4096)
    sent = site.pool.sent_bytes
    found = site.exported("run-2")
    assert site.content(found) == site.master()
    assert site.pool.sent_bytes - sent <= 64 * 1024 + 2 * MIB
    assert site.files() == ["win11.1.vhdx", "win11.xml"]
    assert [item.id for item in site.state.catalogue.list()] == [found.id]


def test_changes_that_a_hypervisor_hides_are_found_by_the_sample(site: ExportSite) -> None:
    site.exported()
    for index in list(site.disk.grains):  # written behind the back of what tracks changes
        site.disk.grains[index] = b"\x55" * len(site.disk.grains[index])
    found = site.exported("run-2")
    assert site.content(found) == site.master()
    assert "unchanged differs" in site.notes()


def test_a_difference_to_an_earlier_snapshot_is_merged_with_the_earlier_export(
    site: ExportSite,
) -> None:
    site.pool.traits = DIFFERENCES
    site.machine.snapshot("golden-1")
    site.exported(snapshot="golden-1")
    site.write(3 * MIB + 4096, b"\x0a" * 9000)
    site.machine.snapshot("golden-2")
    sent = site.pool.sent_bytes
    found = site.exported("run-2", snapshot="golden-2")
    assert site.content(found) == site.master()
    assert site.pool.sent_bytes - sent <= 128 * 1024


def test_a_difference_that_is_refused_becomes_a_whole_export(site: ExportSite) -> None:
    site.pool.traits = DIFFERENCES
    site.exported()  # its own snapshot is gone when it ends
    site.write(3 * MIB, b"\x0b" * 9000)
    found = site.exported("run-2")
    assert site.content(found) == site.master()
    assert "All is read" in site.notes()


def test_of_several_disks_the_boot_disk_is_taken_or_the_one_that_is_named(
    site: ExportSite,
) -> None:
    site.machine.add_disk(2 * MIB, b"\x0c" * 4096)
    assert site.content(site.exported()) == site.master()
    other = site.exported(disk="Hard disk 2", image="data")
    assert site.content(other)[:4096] == b"\x0c" * 4096
    with pytest.raises(VmMissing, match=r"Hard disk 1 .* Hard disk 2"):
        site.exported(disk="Hard disk 3")


def test_the_digests_of_an_export_spare_the_upload_every_hash(
    site: ExportSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = site.exported()
    target = SmallSite()
    target.state = site.state
    seen: list[TransferRequest] = []

    def moved(disk: VirtualDisk, to: BlockTarget, request: TransferRequest) -> TransferResult:
        seen.append(request)
        return transfer(disk, to, request)

    monkeypatch.setattr("imageport.workflow.upload.transfer", moved)
    key = source_facts(site.store, "win11").source_key
    found = upload(target.place(), site.store, "win11", source_key=key)
    assert seen[0].known is not None
    assert seen[0].known.image_digest() == exported.image_digest == found.image_digest


FAULTS = {
    "the connection is cut": ({"cut_after_bytes": [MIB]}, ExportInterrupted),
    "the checksum is wrong": ({"wrong_checksums": 1}, VerificationFailed),
    "the host is unreachable": ({"unreachable": 1}, HypervisorUnreachable),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_after_a_fault_a_rerun_finishes_and_nothing_is_left(site: ExportSite, fault: str) -> None:
    knobs, error = FAULTS[fault]
    for name, value in knobs.items():
        setattr(site.pool.faults, name, value)
    with pytest.raises(error):
        site.exported()
    assert not site.pool.exports
    found = site.exported()
    assert site.content(found) == site.master()
    assert not site.left_behind()


def test_a_wrong_checksum_leaves_nothing_at_once(site: ExportSite) -> None:
    site.pool.faults.wrong_checksums = 1
    with pytest.raises(VerificationFailed):
        site.exported()
    assert not site.left_behind()
    assert not site.files()


def test_what_will_not_go_on_is_released(site: ExportSite) -> None:
    site.pool.faults.cut_after_bytes = [MIB]
    with pytest.raises(ExportInterrupted):
        site.exported()
    assert set(site.left_behind()) == {"snapshots", "halves", "journals"}
    release(site.place(), WantedMaster(VM))
    assert not site.left_behind()


@pytest.mark.parametrize("seed", range(10))
def test_a_range_export_that_is_cut_anywhere_goes_on_where_it_was(
    site: ExportSite, seed: int
) -> None:
    site.pool.traits = RANGES_ONLY
    at = random.Random(seed).randrange(64 * 1024, 2 * MIB)  # noqa: S311 - of a test
    site.pool.faults.cut_after_bytes = [at]
    with pytest.raises(ExportInterrupted):
        site.exported()
    found = site.exported()
    assert site.content(found) == site.master()
    assert not site.left_behind()


def test_a_snapshot_removed_under_us_is_taken_anew(site: ExportSite) -> None:
    def remove(received: int) -> None:
        if received >= MIB:
            site.machine.snapshots.clear()

    site.pool.faults.on_piece = remove
    with pytest.raises(ExportInterrupted, match="snapshot is gone"):
        site.exported()
    site.pool.faults.on_piece = lambda _received: None
    assert site.content(site.exported()) == site.master()
    assert not site.left_behind()


def test_a_cancelled_export_leaves_nothing(site: ExportSite) -> None:
    with pytest.raises(TransferCancelled):
        export(site.place(cancelled=lambda: True), WantedMaster(VM))
    assert not site.left_behind()
    assert not site.files()


@pytest.mark.parametrize("way", [ExportWay.STREAM, ExportWay.RANGES])
def test_a_power_cut_at_any_change_ends_in_one_export(way: ExportWay) -> None:
    cuts = 0
    while True:
        site = ExportSite()
        if not site.killed(cuts, way=way):
            break
        site.state.leases.__init__(site.state.folder)  # type: ignore[misc] - another process
        found = site.exported("run-1", way=way)
        assert site.content(found) == site.master(), cuts
        assert site.files() == ["win11.vhdx", "win11.xml"], cuts
        assert not site.left_behind(), cuts
        cuts += 1
    assert cuts > 5


def test_another_run_removes_the_snapshot_that_a_killed_one_left(site: ExportSite) -> None:
    def die(received: int) -> None:
        if received:
            raise PowerCutError

    site.pool.faults.on_piece = die
    site.power.lives = 10**9
    with pytest.raises(PowerCutError):
        site.exported("run-1")
    site.pool.faults.on_piece = lambda _received: None
    site.machine.snapshot("imageport-by-hand")
    found = site.exported("run-2")
    assert site.content(found) == site.master()
    assert site.left_behind() == {"snapshots": ["imageport-by-hand"]}


def test_a_vdisk_that_was_not_exported_is_no_earlier_version(site: ExportSite) -> None:
    with site.store.folder.create("WIN11.vhdx") as file:
        VhdxWriter(file, SIZE_BYTES).finish()
    with pytest.raises(NameTaken, match=r"WIN11\.vhdx is there and was not exported"):
        site.exported()
    assert not site.left_behind()


@pytest.mark.parametrize("name", ["", "no/such", "/dc/vm/other"])
def test_a_machine_that_is_not_there_is_named(site: ExportSite, name: str) -> None:
    with pytest.raises(VmMissing, match="there are '/dc/vm/masters/win11'"):
        export(site.place(), WantedMaster(name))


def test_preflight_tells_everything_at_once(site: ExportSite) -> None:
    site.machine.is_running = True
    gap = PermissionGap("VApp.Export", "export", "denied")
    site.pool.faults.gaps = [gap]
    with pytest.raises(HypervisorRefused) as caught:
        preflight_master(site.place(), SmallSite().place(), WantedMaster(VM))
    assert "VApp.Export (export)" in caught.value.message
    assert "found it running" in caught.value.message
    site.pool.faults.gaps = []
    with pytest.raises(InputError, match="found it running"):
        preflight_master(site.place(), SmallSite().place(), WantedMaster(VM))


def test_preflight_lists_every_disk_and_says_what_stays_behind(site: ExportSite) -> None:
    site.machine.add_disk(2 * MIB)
    report = preflight_master(site.place(), SmallSite().place(), WantedMaster(VM))
    assert "exported, boots" in report.page()
    assert any("Hard disk 2" in warning for warning in report.warnings)
    assert not site.machine.snapshots


def test_identity_is_known_only_for_a_named_snapshot(site: ExportSite) -> None:
    site.machine.snapshot("golden")
    wanted = WantedMaster(VM, snapshot="golden")
    before = identify(site.place(), wanted)
    assert before.key
    assert not before.exported_id
    found = export(site.place(), wanted)
    assert identify(site.place(), wanted).exported_id == found.id
    assert identify(site.place(), WantedMaster(VM)).key == ""


def test_a_missing_permission_of_the_cloud_is_told_before_hours_of_export(
    site: ExportSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = SmallSite().place()
    gap = PermissionGap("ebs:StartSnapshot", "upload", "denied")
    monkeypatch.setattr(place.cloud, "check_permissions", lambda: [gap])
    with pytest.raises(PermissionMissing, match="ebs:StartSnapshot"):
        preflight_master(site.place(), place, WantedMaster(VM))


def test_two_machines_of_one_name_are_told_apart_before_one_takes_the_others_place(
    site: ExportSite,
) -> None:
    site.exported()
    twin = "/dc/vm/others/win11"
    site.pool.add(twin, content=b"\x0d" * 4096)
    with pytest.raises(InputError, match=f"is of '{VM}', another machine: name the image"):
        preflight_master(site.place(), SmallSite().place(), WantedMaster(twin))
    named = WantedMaster(twin, image="win11")
    report = preflight_master(site.place(), SmallSite().place(), named)
    assert any("takes the place" in warning for warning in report.warnings)
    del site.pool.machines[site.machine.id]  # what is built anew in its place needs no name
    preflight_master(site.place(), SmallSite().place(), WantedMaster(twin))


def test_an_installer_that_is_not_in_the_payload_is_told_before_the_export(
    site: ExportSite,
) -> None:
    missing = Installer("pvs_target", "PVS target", "2407", "0" * 64, "citrix/PVS.exe")
    options = EngineOptions(cloud="aws", installers=(missing,))
    with pytest.raises(InputError) as caught:
        preflight_master(site.place(), SmallSite().place(), WantedMaster(VM), options)
    assert "is no plain name" in caught.value.message
    assert "citrix/PVS.exe" in caught.value.message
    assert not site.machine.snapshots
