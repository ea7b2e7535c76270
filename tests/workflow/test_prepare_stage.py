"""Prepare: one disk, five steps, and a power cut at every one of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from imageport.cloud import BootOutcome
from imageport.clouds.memory import MemoryBehaviour
from imageport.clouds.memory_blocks import MemoryVolume
from imageport.compose.contract import Action, EngineJob, EngineReport, Inspection, VerdictItem
from imageport.errors import (
    CloudUnavailable,
    FirstBootFailed,
    InputError,
    ResourceGone,
    VerdictFailed,
)
from imageport.model import GenerationRole
from tests.workflow.small_site import SmallSite


class Engine:
    """Writes one byte when it composes, twice if it is run twice on one disk; counts its jobs."""

    def __init__(self) -> None:
        self.jobs: list[Action] = []
        self.fails: Exception | None = None

    def __call__(self, volume: MemoryVolume, job: EngineJob, _: Path | None) -> EngineReport:
        self.jobs.append(job.action)
        if job.action is Action.COMPOSE:
            volume.write_at(0, bytes([volume.read_at(0, 1)[0] + 1]))
            if self.fails is not None:
                raise self.fails
        return EngineReport(action=job.action, ok=True)


@pytest.fixture
def engine(site: SmallSite) -> Engine:
    made = Engine()
    site.behaviour = MemoryBehaviour(run_job=made)
    return made


def first_byte(site: SmallSite, snapshot_id: str) -> int:
    return site.account.snapshots[snapshot_id].blocks[0][0]


def nothing_half_made(site: SmallSite) -> bool:
    handles = {item.handle["snapshot_id"] for item in site.state.catalogue.list()}
    return not site.account.volumes and set(site.account.snapshots) == handles


@pytest.mark.usefixtures("engine")
def test_p_is_a_composed_copy_and_u_stays_as_it_was(site: SmallSite):
    uploaded = site.uploaded()
    prepared = site.prepared(uploaded)
    assert first_byte(site, prepared.handle["snapshot_id"]) == 2
    assert first_byte(site, uploaded.handle["snapshot_id"]) == 1
    assert prepared.parent_id == uploaded.id
    assert nothing_half_made(site)


def test_the_same_options_again_need_no_work(site: SmallSite, engine: Engine):
    uploaded = site.uploaded()
    first = site.prepared(uploaded)
    jobs = list(engine.jobs)
    assert site.prepared(uploaded, "run-2").id == first.id
    assert engine.jobs == jobs == [Action.COMPOSE, Action.VERIFY]


@pytest.mark.usefixtures("engine")
def test_a_power_cut_at_any_change_is_taken_up_and_composes_no_disk_twice(site: SmallSite):
    cuts = 0
    while True:
        other = SmallSite(behaviour=site.behaviour)
        other.write_vdisk(1, 2, 0, 3)
        uploaded = other.uploaded()
        if not other.killed(cuts, lambda: other.prepared(uploaded)):  # noqa: B023 - called now
            break
        prepared = other.prepared(uploaded)
        assert first_byte(other, prepared.handle["snapshot_id"]) == 2, cuts
        assert nothing_half_made(other), cuts
        assert other.kept(GenerationRole.PREPARED) == [prepared.id], cuts
        cuts += 1
    assert cuts > 20


def test_a_converted_disk_is_verified_by_its_new_identity_also_after_a_power_cut(
    site: SmallSite,
) -> None:
    asked: list[tuple[Action, str]] = []

    def convert(_: MemoryVolume, job: EngineJob, __: Path | None) -> EngineReport:
        asked.append((job.action, job.disk.disk_guid))
        return EngineReport(job.action, ok=True, inspection=Inspection(disk_guid="new-guid"))

    site.behaviour = MemoryBehaviour(run_job=convert)
    uploaded = site.uploaded()
    old = uploaded.details["disk_guid"]
    cuts = 0
    while site.killed(cuts, lambda: site.prepared(uploaded)):
        cuts += 1
    assert cuts > 5
    assert {guid for action, guid in asked if action is Action.COMPOSE} == {old}
    assert {guid for action, guid in asked if action is Action.VERIFY} == {"new-guid"}


def test_a_disk_lost_while_composing_is_made_again_from_u(site: SmallSite, engine: Engine):
    uploaded = site.uploaded()
    engine.fails = CloudUnavailable("Cannot reach the machine.")
    with pytest.raises(CloudUnavailable):
        site.prepared(uploaded)
    (torn,) = site.account.volumes
    engine.fails = None
    prepared = site.prepared(uploaded)
    assert first_byte(site, prepared.handle["snapshot_id"]) == 2
    assert torn not in site.account.volumes
    assert any("made again from U" in event.note for event in site.events)


def test_a_boot_that_lost_the_cloud_is_tried_again_without_composing(
    site: SmallSite, engine: Engine
):
    outcomes = iter([None, BootOutcome(stopped_by_itself=True, seconds=1.0, console_text="")])

    def boot(_: MemoryVolume) -> BootOutcome:
        found = next(outcomes)
        if found is None:
            raise CloudUnavailable("Cannot reach the machine.")
        return found

    site.behaviour = replace(site.behaviour, boot=boot)
    uploaded = site.uploaded()
    with pytest.raises(CloudUnavailable):
        site.prepared(uploaded)
    site.prepared(uploaded)
    assert engine.jobs == [Action.COMPOSE, Action.VERIFY]


def test_a_boot_that_hangs_ends_the_run_with_its_console_and_leaves_nothing(site: SmallSite):
    hung = BootOutcome(stopped_by_itself=False, seconds=9.0, console_text="0x7B", reason="deadline")
    site.behaviour = MemoryBehaviour(boot=lambda _: hung)
    uploaded = site.uploaded()
    with pytest.raises(FirstBootFailed, match="deadline") as caught:
        site.prepared(uploaded)
    assert caught.value.fields["console"] == "0x7B"
    assert nothing_half_made(site)
    assert site.kept(GenerationRole.PREPARED) == []


def boots_after(site: SmallSite, report: EngineReport) -> list[str]:
    """Let the engine report this; return where the disks that are booted get noted."""
    booted: list[str] = []

    def boot(volume: MemoryVolume) -> BootOutcome:
        booted.append(volume.id)
        return BootOutcome(stopped_by_itself=True, seconds=0.0, console_text="")

    site.behaviour = MemoryBehaviour(run_job=lambda *_: report, boot=boot)
    return booted


def test_a_failed_verdict_ends_the_run_before_the_boot(site: SmallSite):
    item = VerdictItem(name="boot_drivers", passed=False, evidence="nvme: Start=3")
    report = EngineReport(action=Action.COMPOSE, ok=False, verdict=(item,))
    booted = boots_after(site, report)
    with pytest.raises(VerdictFailed, match="nvme: Start=3"):
        site.prepared(site.uploaded())
    assert booted == []
    assert nothing_half_made(site)


def test_an_image_that_boots_by_bios_is_refused_before_its_boot(site: SmallSite):
    report = EngineReport(Action.COMPOSE, ok=True, inspection=Inspection(firmware="bios"))
    booted = boots_after(site, report)
    with pytest.raises(InputError, match="it boots by BIOS, the machine of the one boot by UEFI"):
        site.prepared(site.uploaded())
    assert booted == []
    assert nothing_half_made(site)


def test_an_upload_deleted_outside_is_named(site: SmallSite):
    uploaded = site.uploaded()
    del site.account.snapshots[uploaded.handle["snapshot_id"]]
    with pytest.raises(ResourceGone, match=uploaded.id):
        site.prepared(uploaded)
