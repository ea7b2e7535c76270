"""The engine machine: really made by the emulator, really runs its script and a zipapp."""

from __future__ import annotations

import logging
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from imageport.cloud import CloudDisk
from imageport.clouds import engine_setup
from imageport.clouds.gcp.disks import describe_disk
from imageport.clouds.gcp.instances import console_text, describe_machine
from imageport.clouds.gcp.inventory import list_ours
from imageport.clouds.gcp.job_folder import job_root
from imageport.clouds.sweep import sweep
from imageport.compose.contract import Action, EngineDisk, EngineJob, EngineOptions
from imageport.errors import (
    CloudRefused,
    CloudUnavailable,
    EngineFailed,
    ImageportError,
    InputError,
    PermissionMissing,
    TransferCancelled,
)
from imageport.progress import Event
from imageport.sandbox.gcp.account import ENGINE_IMAGE, PROJECT, ZONE
from imageport.state.ledger import Ledger
from tests.clouds.cloud_contract import BLOCKS, GUID, SITE, Killed, disk_of, ids, in_days
from tests.clouds.gcp_laboratory import CALM, GcpLab
from tests.clouds.stand_in_engine import build_stand_in


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine_setup, "build_engine", build_stand_in)


def job(mode: str = "work", action: Action = Action.COMPOSE) -> EngineJob:
    options = EngineOptions(cloud="gcp", recommended=(mode,))
    return EngineJob(action=action, disk=EngineDisk(path="", disk_guid=GUID), options=options)


def only_disk_is_left(lab: GcpLab, disk: CloudDisk) -> bool:
    """Nothing but the disk and the image it came from."""
    left = {item.kind: item.id for item in list_ours(lab.account("look"), SITE)}
    account = lab.account("look")
    facts = describe_disk(account, disk.id)
    return (
        set(left) == {"disk", "snapshot"}
        and left["disk"] == disk.id
        and facts is not None
        and not facts.machines
        and lab.machines() == []
        and lab.rules() == []
        and lab.objects(job_root(account.settings)) == []
        and len(lab.state.ledger.open_entries()) == 2
    )


class DiesAtTheMachine(Ledger):
    """The process is killed when it is about to record the machine that was just made."""

    def record(self, entry_id: str, resource_id: str) -> None:
        if "/instances/" in resource_id:
            raise Killed(resource_id)
        super().record(entry_id, resource_id)


def killed_run(lab: GcpLab, disk: CloudDisk, mode: str) -> None:
    """Run an engine in a process that dies once its machine is made; no clean-up runs."""
    dying = lab.gcp_cloud("run-1", ledger=DiesAtTheMachine(lab.state.folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(dying._account), "undo_all", lambda *_: [])
        with pytest.raises(Killed):
            dying.run_engine(disk, job(mode), deadline_seconds=60)


def started(lab: GcpLab) -> set[str]:
    """Ids of every machine that was ever switched on."""
    return {str(item["id"]) for item in lab.service.machines()}


def test_the_engine_reads_and_edits_the_disk_and_nothing_else_remains(
    gcp_lab: GcpLab, tmp_path: Path
):
    cloud = gcp_lab.cloud("run-1")
    disk = disk_of(cloud)
    payload = tmp_path / "payload.zip"
    with zipfile.ZipFile(payload, "w") as archive:
        archive.writestr("gvnic.inf", "[Version]")
        archive.writestr("gvnic.sys", "MZ")
    events: list[Event] = []
    report = cloud.run_engine(disk, job(), payload, deadline_seconds=60, events=events.append)
    assert report.ok
    assert report.first_boot["first_bytes"] == BLOCKS[0][:16].hex()
    assert report.first_boot["payload"] == "gvnic.inf,gvnic.sys"
    assert only_disk_is_left(gcp_lab, disk)
    assert events[-1].stage == "engine compose"


def watch_machine(lab: GcpLab, seen: dict[str, Any]) -> Any:
    """Look at the machine and the firewall rules while it runs."""

    def watch(event: Event) -> None:
        if not event.note.startswith("engine runs on"):
            return
        name = event.note.rsplit("/", maxsplit=1)[-1]
        clients = lab.clients
        seen["machine"] = clients.instances.get(project=PROJECT, zone=ZONE, instance=name)
        seen["rules"] = list(clients.firewalls.list(project=PROJECT))

    return watch


@pytest.mark.parametrize(
    ("image", "ports"),
    [("", ["443", "80"]), pytest.param(ENGINE_IMAGE, ["443"], marks=pytest.mark.slow)],
)
def test_the_machine_has_no_identity_and_no_external_address(
    gcp_lab: GcpLab, image: str, ports: list[str]
):
    cloud = gcp_lab.gcp_cloud("run-1", engine_image=image)
    seen: dict[str, Any] = {}
    watch = watch_machine(gcp_lab, seen)
    assert cloud.run_engine(disk_of(cloud), job(), deadline_seconds=60, events=watch).ok
    machine = seen["machine"]
    assert not machine.service_accounts
    assert not machine.network_interfaces[0].access_configs
    assert not machine.scheduling.automatic_restart
    assert machine.scheduling.max_run_duration.seconds > 60
    assert machine.scheduling.instance_termination_action == "DELETE"
    assert [disk.auto_delete for disk in machine.disks] == [True, False]
    ours = [rule for rule in seen["rules"] if set(rule.target_tags) & set(machine.tags.items)]
    allowed = [rule for rule in ours if rule.allowed]
    assert [rule.direction for rule in allowed] == ["EGRESS"]
    # Package mirrors speak plain HTTP; an engine image of one's own needs no packages.
    assert sorted(port for item in allowed[0].allowed for port in item.ports) == ports


@pytest.mark.slow
def test_a_second_job_on_the_same_disk_gets_a_machine_of_its_own(gcp_lab: GcpLab):
    cloud = gcp_lab.cloud("run-1")
    disk = disk_of(cloud)
    cloud.run_engine(disk, job(), deadline_seconds=60)
    report = cloud.run_engine(disk, job(action=Action.VERIFY), deadline_seconds=60)
    assert report.action is Action.VERIFY
    assert cloud.run_engine(disk, job(action=Action.VERIFY), deadline_seconds=60).ok
    assert only_disk_is_left(gcp_lab, disk)


@pytest.mark.parametrize(
    ("mode", "in_log"),
    [
        ("crash", "no device today"),
        pytest.param("nonsense", "stand-in engine: nonsense", marks=pytest.mark.slow),
    ],
)
def test_an_engine_without_a_report_fails_with_its_log_and_leaves_nothing(
    gcp_lab: GcpLab, mode: str, in_log: str
):
    cloud = gcp_lab.cloud("run-1")
    disk = disk_of(cloud)
    with pytest.raises(EngineFailed) as caught:
        cloud.run_engine(disk, job(mode), deadline_seconds=60)
    assert in_log in caught.value.fields["log"]
    assert only_disk_is_left(gcp_lab, disk)


def test_an_engine_that_hangs_is_ended_at_its_deadline(
    gcp_lab: GcpLab, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine_setup, "GRACE_SECONDS", 1.0)
    cloud = gcp_lab.cloud("run-1")
    disk = disk_of(cloud)
    with pytest.raises(EngineFailed, match=r"no report after 2 s|ended without a report"):
        cloud.run_engine(disk, job("hang"), deadline_seconds=2)
    assert only_disk_is_left(gcp_lab, disk)
    assert not any(item["busy"] for item in gcp_lab.service.machines())


@pytest.mark.slow
def test_a_cancelled_engine_run_leaves_nothing(gcp_lab: GcpLab):
    cloud = gcp_lab.cloud("run-1")
    disk = disk_of(cloud)
    seen: list[str] = []
    with pytest.raises(TransferCancelled):
        cloud.run_engine(
            disk,
            job("hang"),
            deadline_seconds=60,
            events=lambda event: seen.append(event.note),
            cancelled=lambda: any(note.startswith("engine runs on") for note in seen),
        )
    assert only_disk_is_left(gcp_lab, disk)


def test_a_run_killed_after_the_launch_takes_up_its_machine(gcp_lab: GcpLab):
    disk = disk_of(gcp_lab.cloud("run-1"))
    before = started(gcp_lab)
    killed_run(gcp_lab, disk, "slow")
    assert gcp_lab.cloud("run-1").run_engine(disk, job("slow"), deadline_seconds=60).ok
    assert len(started(gcp_lab) - before) == 1
    assert only_disk_is_left(gcp_lab, disk)


@pytest.mark.slow
def test_what_a_killed_engine_run_left_is_swept(gcp_lab: GcpLab):
    cloud = gcp_lab.cloud("run-1")
    disk = disk_of(cloud)
    killed_run(gcp_lab, disk, "hang")
    kinds = {item.kind for item in cloud.list_ours(SITE)}
    assert kinds == {"instance", "security-group", "object", "disk", "snapshot"}
    swept = sweep(gcp_lab.cloud("sweep"), gcp_lab.state, SITE, in_days(0), run="run-1")
    assert disk.id in ids(swept)
    assert cloud.list_ours(SITE) == []
    assert gcp_lab.everything() == []
    assert gcp_lab.state.ledger.open_entries() == []
    assert not any(item["busy"] for item in gcp_lab.service.machines())


@pytest.mark.slow
def test_a_machine_that_ended_while_nobody_watched_has_left_its_report(gcp_lab: GcpLab):
    disk = disk_of(gcp_lab.cloud("run-1"))
    before = started(gcp_lab)
    killed_run(gcp_lab, disk, "work")
    (machine,) = gcp_lab.machines()
    wait_until_over(gcp_lab, machine)
    assert "imageport: engine ended with 0" in console_text(gcp_lab.account("look"), machine)
    assert gcp_lab.cloud("run-1").run_engine(disk, job("work"), deadline_seconds=60).ok
    assert len(started(gcp_lab) - before) == 1
    assert only_disk_is_left(gcp_lab, disk)


def wait_until_over(lab: GcpLab, machine_id: str) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        facts = describe_machine(lab.account("look"), machine_id)
        if facts is not None and facts.is_over:
            return
        time.sleep(0.2)
    pytest.fail("the machine did not shut down by itself")


@pytest.mark.parametrize(
    ("knobs", "error", "message"),
    [
        (
            {"denied": ["compute.instances.create"]},
            PermissionMissing,
            r"lack compute\.instances\.create",
        ),
        pytest.param(
            {"missing_machine_types": ["e2-standard-2"]},
            CloudUnavailable,
            r"e2-standard-2 is not to be had in europe-west3-a",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"quotas": {"CPUS": 1}}, CloudRefused, r"Raise the quota", marks=pytest.mark.slow
        ),
    ],
)
def test_a_machine_that_cannot_be_had_says_what_to_do_and_leaves_nothing(
    gcp_lab: GcpLab, knobs: dict[str, Any], error: Any, message: str
):
    cloud = gcp_lab.cloud("run-1")
    disk = disk_of(cloud)
    gcp_lab.service.turn(**knobs)
    with pytest.raises(error, match=message):
        cloud.run_engine(disk, job(), deadline_seconds=60)
    gcp_lab.service.turn(**CALM)
    assert only_disk_is_left(gcp_lab, disk)


@pytest.mark.slow
def test_faults_of_both_apis_are_waited_out(gcp_lab: GcpLab):
    cloud = gcp_lab.cloud("run-1")
    disk = disk_of(cloud)
    gcp_lab.service.turn(fault_rate=0.1, seed=7)
    assert cloud.run_engine(disk, job("slow"), deadline_seconds=60).ok
    gcp_lab.service.turn(fault_rate=0.0)
    assert only_disk_is_left(gcp_lab, disk)


def test_a_target_without_a_subnet_is_refused_before_anything_is_made(gcp_lab: GcpLab):
    cloud = gcp_lab.gcp_cloud("run-1", subnet="")
    disk = CloudDisk(f"projects/{PROJECT}/zones/{ZONE}/disks/x", 1, GUID)
    with pytest.raises(InputError) as caught:
        cloud.run_engine(disk, job(), deadline_seconds=60)
    assert caught.value.fields["problems"] == ["subnet is missing"]
    assert gcp_lab.state.ledger.open_entries() == []


def test_no_signed_url_reaches_an_event_an_error_the_state_store_or_a_log(
    gcp_lab: GcpLab, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    cloud = gcp_lab.cloud("run-1")
    disk = disk_of(cloud)
    texts: list[str] = []
    told = texts.append
    for mode in ("work", "crash"):
        try:
            report = cloud.run_engine(
                disk, job(mode), deadline_seconds=60, events=lambda event: told(repr(event))
            )
            told(report.to_json())
        except ImageportError as error:
            told(f"{error!s} {error!r} {error.as_dict()}")
    told(repr(vars(cloud)) + repr(gcp_lab.settings()))
    told(repr(gcp_lab.state.ledger.open_entries()))
    told(caplog.text + repr([vars(record) for record in caplog.records]))
    everything = "\n".join(texts)
    assert "stand-in engine" in everything  # the log was looked at
    for secret in ("X-Goog-Signature", "Bearer ", "PRIVATE KEY", "run_job("):
        assert secret not in everything
