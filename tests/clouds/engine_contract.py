"""What an engine machine promises in every cloud; one suite, as `tests.clouds.cloud_contract`.

The machine is really made by the emulator and really runs its script and a zipapp.
"""

from __future__ import annotations

import re
import time
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imageport.cloud import Cloud, CloudDisk
from imageport.clouds import boot_console, engine_setup
from imageport.clouds.sweep import sweep
from imageport.compose.contract import Action, EngineDisk, EngineJob, EngineOptions, EngineReport
from imageport.errors import EngineFailed, InputError, PermissionMissing, TransferCancelled
from imageport.progress import Event
from tests.clouds.cloud_contract import BLOCKS, GUID, SITE, disk_of, ids, in_days
from tests.clouds.machine_lab import ChooseGuest, DiesAt, MachineLab, killed
from tests.clouds.stand_in_engine import build_stand_in
from tests.clouds.stand_in_guest import guest_of

DEADLINE_SECONDS = 60.0


def job(lab: MachineLab, mode: str = "work", action: Action = Action.COMPOSE) -> EngineJob:
    """Return a job for the stand-in, which acts as ``mode`` says."""
    options = EngineOptions(cloud=lab.name, recommended=(mode,))
    return EngineJob(action=action, disk=EngineDisk(path="", disk_guid=GUID), options=options)


def killed_run(lab: MachineLab, disk: CloudDisk, mode: str) -> None:
    """Run an engine in a process that dies once its machine is made."""
    dying = lab.cloud_with("run-1", ledger=DiesAt(lab, lab.boot_ids[-1]))
    with killed():
        dying.run_engine(disk, job(lab, mode), deadline_seconds=DEADLINE_SECONDS)


class EngineMachineContract(ABC):
    """The suite; a cloud's class says how its machine has to look."""

    @pytest.fixture
    def lab(self) -> MachineLab:
        raise NotImplementedError

    @abstractmethod
    def look(self, lab: MachineLab, machine: str) -> Any:
        """Return what the cloud shows of a running engine machine and of its network."""

    @abstractmethod
    def check_bounds(self, seen: Any, *, installs: bool) -> None:
        """Fail unless that machine is nobody and only fetches and delivers its job.

        ``installs`` tells that it fetches packages, too: it was made of no engine image.
        """

    def run_and_look(
        self, lab: MachineLab, cloud: Cloud, disk: CloudDisk, payload: Path | None = None
    ) -> tuple[EngineReport, list[Event], Any]:
        """Run a job; return report, events and what the cloud showed of the machine meanwhile."""
        seen: list[Any] = []
        events: list[Event] = []

        def watch(event: Event) -> None:
            events.append(event)
            if event.note.startswith("engine runs on "):
                seen.append(self.look(lab, event.note.split()[-1]))

        report = cloud.run_engine(
            disk, job(lab), payload, deadline_seconds=DEADLINE_SECONDS, events=watch
        )
        [machine] = seen
        return report, events, machine

    @pytest.fixture(autouse=True)
    def stand_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine_setup, "build_engine", build_stand_in)
        monkeypatch.setattr(boot_console, "PAUSE_SECONDS", 0.5)

    @pytest.fixture(autouse=True)
    def told(self, lab: MachineLab, caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
        """Texts that people see: with logs and ledger, none has a secret, in no test here."""
        caplog.set_level(lab.log_level)
        texts: list[str] = []
        yield texts
        texts += [f"{item.getMessage()} {vars(item)}" for item in caplog.get_records("call")]
        texts += [repr(lab.state.ledger.open_entries()), *lab.consoles()]
        for secret in lab.secrets:
            assert [text for text in texts if secret in text] == []

    # --- an engine that works -------------------------------------------------------------------

    def test_the_engine_edits_the_disk_within_its_bounds_and_nothing_else_remains(
        self, lab: MachineLab, tmp_path: Path, told: list[str]
    ):
        cloud = lab.cloud("run-1")
        disk = disk_of(cloud)
        payload = tmp_path / "payload.zip"
        with zipfile.ZipFile(payload, "w") as archive:
            archive.writestr(f"{lab.driver}.inf", "[Version]")
            archive.writestr(f"{lab.driver}.sys", "MZ")
        report, events, seen = self.run_and_look(lab, cloud, disk, payload)
        assert report.ok
        assert report.first_boot["first_bytes"] == BLOCKS[0][:16].hex()
        assert report.first_boot["payload"] == f"{lab.driver}.inf,{lab.driver}.sys"
        assert events[-1].stage == "engine compose"
        assert lab.only_disk_is_left(disk)
        self.check_bounds(seen, installs=True)
        told += [repr(events), report.to_json(), repr(vars(cloud)) + repr(cloud)]
        if lab.reads_disks:
            with cloud.open_snapshot(cloud.snapshot(disk, "P")) as opened:
                assert opened.read_at(512, 8) == b"composed"
                assert opened.read_at(0, 512) == BLOCKS[0][:512]

    @pytest.mark.slow
    def test_a_second_job_on_the_same_disk_gets_a_machine_of_its_own(self, lab: MachineLab):
        cloud = lab.cloud("run-1")
        disk = disk_of(cloud)
        cloud.run_engine(disk, job(lab), deadline_seconds=DEADLINE_SECONDS)
        verify = job(lab, action=Action.VERIFY)
        report = cloud.run_engine(disk, verify, deadline_seconds=DEADLINE_SECONDS)
        assert report.action is Action.VERIFY
        assert cloud.run_engine(disk, verify, deadline_seconds=DEADLINE_SECONDS).ok
        assert lab.only_disk_is_left(disk)

    # --- an engine that does not deliver ----------------------------------------------------------

    @pytest.mark.parametrize(
        ("mode", "in_log"),
        [
            ("crash", "no device today"),
            pytest.param("nonsense", "stand-in engine: nonsense", marks=pytest.mark.slow),
        ],
    )
    def test_an_engine_without_a_report_fails_with_its_log_and_leaves_nothing(
        self, lab: MachineLab, told: list[str], mode: str, in_log: str
    ):
        cloud = lab.cloud("run-1")
        disk = disk_of(cloud)
        events: list[Event] = []
        with pytest.raises(EngineFailed) as caught:
            cloud.run_engine(
                disk, job(lab, mode), deadline_seconds=DEADLINE_SECONDS, events=events.append
            )
        assert in_log in caught.value.fields["log"]
        assert lab.only_disk_is_left(disk)
        error = caught.value
        told += [repr(events), f"{error!s} {error!r} {error.as_dict()}"]

    def test_an_engine_that_hangs_is_ended_at_its_deadline(
        self, lab: MachineLab, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(engine_setup, "GRACE_SECONDS", 1.0)
        cloud = lab.cloud("run-1")
        disk = disk_of(cloud)
        with pytest.raises(EngineFailed, match=r"no report after 2 s|ended without a report"):
            cloud.run_engine(disk, job(lab, "hang"), deadline_seconds=2)
        assert lab.only_disk_is_left(disk)

    @pytest.mark.slow
    def test_a_cancelled_engine_run_leaves_nothing(self, lab: MachineLab):
        cloud = lab.cloud("run-1")
        disk = disk_of(cloud)
        seen: list[str] = []
        with pytest.raises(TransferCancelled):
            cloud.run_engine(
                disk,
                job(lab, "hang"),
                deadline_seconds=DEADLINE_SECONDS,
                events=lambda event: seen.append(event.note),
                cancelled=lambda: any(note.startswith("engine runs on") for note in seen),
            )
        assert lab.only_disk_is_left(disk)

    # --- a worker that is killed ------------------------------------------------------------------

    def test_a_run_killed_after_the_launch_takes_up_its_machine(self, lab: MachineLab):
        disk, before = disk_of(lab.cloud("run-1")), lab.started()
        killed_run(lab, disk, "slow")
        again = lab.cloud("run-1")
        assert again.run_engine(disk, job(lab, "slow"), deadline_seconds=DEADLINE_SECONDS).ok
        assert len(lab.started() - before) == 1
        assert lab.only_disk_is_left(disk)

    @pytest.mark.slow
    def test_what_a_killed_engine_run_left_is_swept(self, lab: MachineLab):
        cloud = lab.cloud("run-1")
        disk = disk_of(cloud)
        killed_run(lab, disk, "hang")
        kinds = {item.kind for item in cloud.list_ours(SITE)}
        assert kinds == {"instance", "security-group", "object", lab.disk_kind, "snapshot"}
        swept = sweep(lab.cloud("sweep"), lab.state, SITE, in_days(0), run="run-1")
        assert disk.id in ids(swept)
        assert cloud.list_ours(SITE) == []
        assert lab.leftovers() == []
        assert lab.state.ledger.open_entries() == []
        assert not any(item["busy"] for item in lab.service.machines())

    # --- what cannot be had, and bad days ---------------------------------------------------------

    def test_a_denied_machine_is_named_and_leaves_nothing(self, lab: MachineLab):
        cloud = lab.cloud("run-1")
        disk = disk_of(cloud)
        lab.turn(denied=[lab.engine_denied])
        with pytest.raises(PermissionMissing, match=re.escape(f"lack {lab.engine_denied}")):
            cloud.run_engine(disk, job(lab), deadline_seconds=DEADLINE_SECONDS)
        lab.turn(denied=[])
        assert lab.only_disk_is_left(disk)

    def test_everything_that_is_not_set_is_named_before_anything_is_made(self, lab: MachineLab):
        cloud = lab.cloud_with("run-1", **dict.fromkeys(lab.engine_needs, ""))
        with pytest.raises(InputError) as caught:
            cloud.run_engine(CloudDisk("x", 1, GUID), job(lab), deadline_seconds=60)
        assert caught.value.fields["problems"] == [
            f"{name} is missing" for name in lab.engine_needs
        ]
        assert lab.state.ledger.open_entries() == []

    @pytest.mark.slow
    def test_faults_are_waited_out_by_both_machines(self, lab: MachineLab, tmp_path: Path):
        choose: ChooseGuest = guest_of(lab.service, tmp_path)
        choose("work")
        cloud = lab.cloud("run-1")
        disk = disk_of(cloud)
        lab.turn(**lab.bad_day)
        assert cloud.run_engine(disk, job(lab, "slow"), deadline_seconds=DEADLINE_SECONDS).ok
        assert cloud.boot_once(disk, deadline_seconds=DEADLINE_SECONDS).stopped_by_itself
        lab.turn(**lab.calm)
        assert lab.only_disk_is_left(disk)


class MachineThatStaysContract(ABC):
    """Of clouds that keep a machine that shut down until somebody deletes it."""

    @abstractmethod
    def is_off(self, lab: MachineLab, machine: str) -> bool:
        """Tell whether a machine is there and has shut down."""

    @pytest.mark.slow
    def test_a_machine_that_ended_while_nobody_watched_has_left_its_report(self, lab: MachineLab):
        disk, before = disk_of(lab.cloud("run-1")), lab.started()
        killed_run(lab, disk, "work")
        found = lab.cloud("look").list_ours(SITE)
        [machine] = [item.id for item in found if item.kind == "instance"]
        end = time.monotonic() + 30
        while not self.is_off(lab, machine):
            assert time.monotonic() < end, "the machine did not shut down by itself"
            time.sleep(0.2)
        again = lab.cloud("run-1")
        assert again.run_engine(disk, job(lab), deadline_seconds=DEADLINE_SECONDS).ok
        assert len(lab.started() - before) == 1
        assert lab.only_disk_is_left(disk)
