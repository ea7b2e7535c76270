"""The engine machine: really launched by the emulator, really runs its user data and a zipapp."""

from __future__ import annotations

import logging
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from imageport.cloud import CloudDisk
from imageport.clouds import engine_setup, vm_bootstrap
from imageport.clouds.aws.instances import LaunchPlan
from imageport.clouds.engine_setup import user_data
from imageport.clouds.sweep import sweep
from imageport.compose.contract import Action, EngineDisk, EngineJob, EngineOptions
from imageport.errors import (
    EngineFailed,
    ImageportError,
    InputError,
    PermissionMissing,
    TransferCancelled,
)
from imageport.progress import Event
from imageport.state.ledger import Ledger
from tests.clouds.aws_laboratory import BUCKET, AwsLab
from tests.clouds.cloud_contract import BLOCKS, GUID, SITE, Killed, disk_of, ids, in_days
from tests.clouds.stand_in_engine import build_stand_in


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine_setup, "build_engine", build_stand_in)


def job(mode: str = "work", action: Action = Action.COMPOSE) -> EngineJob:
    options = EngineOptions(recommended=(mode,))
    return EngineJob(action=action, disk=EngineDisk(path="", disk_guid=GUID), options=options)


def instances(lab: AwsLab) -> list[dict[str, Any]]:
    """Every machine of this test's runs, the terminated ones too."""
    filters = [{"Name": "tag:imageport:site", "Values": [SITE]}]
    answer = lab.ec2.describe_instances(Filters=filters)
    return [item for entry in answer["Reservations"] for item in entry["Instances"]]


def objects(lab: AwsLab) -> list[str]:
    found = lab.s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])
    return [item["Key"] for item in found]


def only_disk_is_left(lab: AwsLab, disk: CloudDisk) -> bool:
    """Nothing but the disk and the snapshot it came from."""
    left = {item.kind: item.id for item in lab.cloud("look").list_ours(SITE)}
    volume = lab.ec2.describe_volumes(VolumeIds=[disk.id])["Volumes"][0]
    return (
        set(left) == {"volume", "snapshot"}
        and left["volume"] == disk.id
        and volume["State"] == "available"
        and objects(lab) == []
        and len(lab.state.ledger.open_entries()) == 2
    )


class DiesAtTheMachine(Ledger):
    """The process is killed when it is about to record the machine that was just launched."""

    def record(self, entry_id: str, resource_id: str) -> None:
        if resource_id.startswith("i-"):
            raise Killed(resource_id)
        super().record(entry_id, resource_id)


def test_the_engine_reads_and_edits_the_disk_and_nothing_else_remains(
    aws_lab: AwsLab, tmp_path: Path
):
    cloud = aws_lab.cloud("run-1")
    disk = disk_of(cloud)
    payload = tmp_path / "payload.zip"
    with zipfile.ZipFile(payload, "w") as archive:
        archive.writestr("ena.inf", "[Version]")
        archive.writestr("ena.sys", "MZ")
    events: list[Event] = []
    report = cloud.run_engine(disk, job(), payload, deadline_seconds=60, events=events.append)
    assert report.ok
    assert report.first_boot["first_bytes"] == BLOCKS[0][:16].hex()
    assert report.first_boot["payload"] == "ena.inf,ena.sys"
    assert only_disk_is_left(aws_lab, disk)
    with cloud.open_snapshot(cloud.snapshot(disk, "P")) as opened:
        assert opened.read_at(512, 8) == b"composed"
        assert opened.read_at(0, 512) == BLOCKS[0][:512]
    assert events[-1].stage == "engine compose"


def test_the_machine_has_no_role_no_public_address_and_asks_for_tokens(aws_lab: AwsLab):
    cloud = aws_lab.cloud("run-1")
    before = {item["InstanceId"] for item in instances(aws_lab)}
    groups_seen: list[Any] = []

    def watch(event: Event) -> None:
        if event.note.startswith("engine runs on"):
            groups_seen.extend(
                aws_lab.ec2.describe_security_groups(
                    Filters=[{"Name": "tag:imageport:site", "Values": [SITE]}]
                )["SecurityGroups"]
            )

    cloud.run_engine(disk_of(cloud), job(), deadline_seconds=60, events=watch)
    (machine,) = [item for item in instances(aws_lab) if item["InstanceId"] not in before]
    assert machine["MetadataOptions"]["HttpTokens"] == "required"
    assert "IamInstanceProfile" not in machine
    assert not machine.get("PublicIpAddress")
    (group,) = groups_seen
    assert group["IpPermissions"] == []


@pytest.mark.slow
def test_a_second_job_on_the_same_disk_gets_a_machine_of_its_own(aws_lab: AwsLab):
    cloud = aws_lab.cloud("run-1")
    disk = disk_of(cloud)
    cloud.run_engine(disk, job(), deadline_seconds=60)
    report = cloud.run_engine(disk, job(action=Action.VERIFY), deadline_seconds=60)
    assert report.action is Action.VERIFY
    assert cloud.run_engine(disk, job(action=Action.VERIFY), deadline_seconds=60).ok
    assert only_disk_is_left(aws_lab, disk)


@pytest.mark.parametrize(
    ("mode", "in_log"), [("crash", "no device today"), ("nonsense", "stand-in engine: nonsense")]
)
def test_an_engine_without_a_report_fails_with_its_log_and_leaves_nothing(
    aws_lab: AwsLab, mode: str, in_log: str
):
    cloud = aws_lab.cloud("run-1")
    disk = disk_of(cloud)
    with pytest.raises(EngineFailed) as caught:
        cloud.run_engine(disk, job(mode), deadline_seconds=60)
    assert in_log in caught.value.fields["log"]
    assert only_disk_is_left(aws_lab, disk)


def test_an_engine_that_hangs_is_ended_at_its_deadline(
    aws_lab: AwsLab, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine_setup, "GRACE_SECONDS", 1.0)
    cloud = aws_lab.cloud("run-1")
    disk = disk_of(cloud)
    with pytest.raises(EngineFailed, match=r"no report after 2 s|ended without a report"):
        cloud.run_engine(disk, job("hang"), deadline_seconds=2)
    assert only_disk_is_left(aws_lab, disk)
    assert not any(item["busy"] for item in aws_lab.service.machines())


@pytest.mark.slow
def test_a_cancelled_engine_run_leaves_nothing(aws_lab: AwsLab):
    cloud = aws_lab.cloud("run-1")
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
    assert only_disk_is_left(aws_lab, disk)


def test_a_run_killed_after_the_launch_takes_up_its_machine(aws_lab: AwsLab):
    disk = disk_of(aws_lab.cloud("run-1"))
    dying = aws_lab.aws_cloud("run-1", ledger=DiesAtTheMachine(aws_lab.state.folder))
    before = {item["InstanceId"] for item in instances(aws_lab)}
    # SIGKILL runs no clean-up; here the clean-up runs and dies too, in every step.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(dying._account), "undo_all", lambda *_: [])
        with pytest.raises(Killed):
            dying.run_engine(disk, job("slow"), deadline_seconds=60)
    assert aws_lab.cloud("run-1").run_engine(disk, job("slow"), deadline_seconds=60).ok
    launched = {item["InstanceId"] for item in instances(aws_lab)} - before
    assert len(launched) == 1
    assert only_disk_is_left(aws_lab, disk)


@pytest.mark.slow
def test_what_a_killed_engine_run_left_is_swept(aws_lab: AwsLab):
    cloud = aws_lab.cloud("run-1")
    disk = disk_of(cloud)
    dying = aws_lab.aws_cloud("run-1", ledger=DiesAtTheMachine(aws_lab.state.folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(dying._account), "undo_all", lambda *_: [])
        with pytest.raises(Killed):
            dying.run_engine(disk, job("hang"), deadline_seconds=60)
    kinds = {item.kind for item in cloud.list_ours(SITE)}
    assert {"instance", "security-group", "object", "volume", "snapshot"} <= kinds
    swept = sweep(aws_lab.cloud("sweep"), aws_lab.state, SITE, in_days(0), run="run-1")
    assert disk.id in ids(swept)
    assert cloud.list_ours(SITE) == []
    assert objects(aws_lab) == []
    assert aws_lab.state.ledger.open_entries() == []
    assert not any(item["busy"] for item in aws_lab.service.machines())


@pytest.mark.slow
def test_a_missing_permission_is_named_and_leaves_nothing(aws_lab: AwsLab):
    cloud = aws_lab.cloud("run-1")
    disk = disk_of(cloud)
    aws_lab.service.turn(denied=["ec2:RunInstances"])
    with pytest.raises(PermissionMissing, match="lack ec2:RunInstances"):
        cloud.run_engine(disk, job(), deadline_seconds=60)
    aws_lab.service.turn(denied=[])
    assert only_disk_is_left(aws_lab, disk)


def test_a_target_without_bucket_or_subnet_is_refused_before_anything_is_made(aws_lab: AwsLab):
    cloud = aws_lab.aws_cloud("run-1", bucket="", subnet_id="")
    with pytest.raises(InputError) as caught:
        cloud.run_engine(CloudDisk("vol-1", 1, GUID), job(), deadline_seconds=60)
    assert caught.value.fields["problems"] == ["bucket is missing", "subnet_id is missing"]
    assert aws_lab.state.ledger.open_entries() == []


def test_no_presigned_url_reaches_an_event_an_error_the_state_store_or_a_log(
    aws_lab: AwsLab, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    cloud = aws_lab.cloud("run-1")
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
    machines = [item["InstanceId"] for item in instances(aws_lab)]
    for machine in machines:
        told(aws_lab.ec2.get_console_output(InstanceId=machine).get("Output", ""))
    told(repr(vars(cloud)) + repr(aws_lab.settings()))
    told(repr(aws_lab.state.ledger.open_entries()))
    told(caplog.text)
    everything = "\n".join(texts)
    assert "stand-in engine" in everything  # the log was looked at
    for secret in ("X-Amz-Signature", "X-Amz-Credential", "AWSAccessKeyId", "Signature="):
        assert secret not in everything


def test_a_plan_that_is_printed_shows_no_user_data():
    plan = LaunchPlan("ami-1", "t3.large", "sg-1", "terminate", user_data="5ecre7")
    assert "5ecre7" not in f"{plan!r}{plan}"


def test_the_user_data_fits_into_what_ec2_takes():
    text = user_data("https://bucket.s3/" + "x" * 3000, "0" * 64, 60)
    assert len(text.encode()) < 16 * 1024
    assert text.startswith(f"#!{vm_bootstrap.PYTHON}\n")
    compile(text, "user-data", "exec")


@pytest.mark.slow
def test_the_engine_machine_ends_by_itself_when_nobody_watches(aws_lab: AwsLab):
    cloud = aws_lab.cloud("run-1")
    disk = disk_of(cloud)
    dying = aws_lab.aws_cloud("run-1", ledger=DiesAtTheMachine(aws_lab.state.folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(dying._account), "undo_all", lambda *_: [])
        with pytest.raises(Killed):
            dying.run_engine(disk, job("crash"), deadline_seconds=60)
    (machine,) = [item for item in cloud.list_ours(SITE) if item.kind == "instance"]
    running = aws_lab.ec2.get_waiter("instance_running")
    running.wait(InstanceIds=[machine.id], WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    aws_lab.ec2.attach_volume(VolumeId=disk.id, InstanceId=machine.id, Device="/dev/sdf")
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if not [item for item in cloud.list_ours(SITE) if item.kind == "instance"]:
            return
        time.sleep(0.3)
    pytest.fail("the machine is still there")
