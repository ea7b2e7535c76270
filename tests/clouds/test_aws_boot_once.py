"""The one boot: the composed disk as the root of a stub machine that reaches nothing."""

from __future__ import annotations

from typing import Any

import pytest

from imageport.cloud import CloudDisk
from imageport.clouds import boot_console
from imageport.clouds.aws import boot_once as module
from imageport.clouds.aws.instances import existing_instance
from imageport.clouds.aws.network import isolated_group
from imageport.clouds.sweep import sweep
from imageport.errors import InputError, PermissionMissing, TransferCancelled
from imageport.progress import Event
from imageport.state.ledger import Ledger
from tests.clouds.aws_laboratory import BUCKET, AwsLab
from tests.clouds.cloud_contract import BLOCKS, SITE, Killed, disk_of, ids, in_days


@pytest.fixture(autouse=True)
def quick_console(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(boot_console, "PAUSE_SECONDS", 0.5)


class DiesOnceStarted(Ledger):
    """The process is killed when it would record the stub machine."""

    def record(self, entry_id: str, resource_id: str) -> None:
        super().record(entry_id, resource_id)
        if resource_id.startswith("i-"):
            raise Killed(resource_id)


def machines(lab: AwsLab) -> list[dict[str, Any]]:
    filters = [{"Name": "tag:imageport:role", "Values": ["boot"]}]
    answer = lab.ec2.describe_instances(Filters=filters)
    return [item for entry in answer["Reservations"] for item in entry["Instances"]]


def only_disk_is_left(lab: AwsLab, disk: CloudDisk) -> bool:
    left = sorted(item.kind for item in lab.cloud("look").list_ours(SITE))
    volume = lab.ec2.describe_volumes(VolumeIds=[disk.id])["Volumes"][0]
    return left == ["snapshot", "volume"] and volume["State"] == "available"


def test_the_guest_boots_from_the_disk_and_only_the_disk_remains(aws_lab: AwsLab, guest: Any):
    guest("work")
    cloud = aws_lab.cloud("run-1")
    disk = disk_of(cloud)
    before = len(machines(aws_lab))
    events: list[Event] = []
    outcome = cloud.boot_once(disk, deadline_seconds=60, events=events.append)
    assert outcome.stopped_by_itself
    assert outcome.reason == ""
    assert f"guest sees {BLOCKS[0][:8].hex()}" in outcome.console_text
    assert "imageport-firstboot: done" in outcome.console_text
    assert only_disk_is_left(aws_lab, disk)
    assert len(aws_lab.state.ledger.open_entries()) == 2
    assert len(machines(aws_lab)) == before + 1
    with cloud.open_snapshot(cloud.snapshot(disk, "P")) as opened:
        assert opened.read_at(1024, 6) == b"booted"
    assert events[-1].note.startswith("shut down by itself after")


def test_the_guest_is_alone(aws_lab: AwsLab, guest: Any):
    guest("work")
    cloud = aws_lab.cloud("run-1")
    before = {item["InstanceId"] for item in machines(aws_lab)}
    groups: list[Any] = []

    def watch(event: Event) -> None:
        if "takes" in event.note:
            filters = [{"Name": "tag:imageport:site", "Values": [SITE]}]
            answer = aws_lab.ec2.describe_security_groups(Filters=filters)
            groups.extend(answer["SecurityGroups"])

    assert cloud.boot_once(disk_of(cloud), deadline_seconds=60, events=watch).stopped_by_itself
    assert aws_lab.service.violations() == []
    (group,) = groups
    assert group["IpPermissions"] == []
    assert group["IpPermissionsEgress"] == []
    (machine,) = [item for item in machines(aws_lab) if item["InstanceId"] not in before]
    assert machine["MetadataOptions"]["HttpEndpoint"] == "disabled"
    assert not machine.get("PublicIpAddress")
    assert "IamInstanceProfile" not in machine


def test_a_guest_that_hangs_is_switched_off_with_console_and_screenshot(
    aws_lab: AwsLab, guest: Any
):
    guest("hang")
    cloud = aws_lab.cloud("run-1")
    disk = disk_of(cloud)
    outcome = cloud.boot_once(disk, deadline_seconds=5)
    assert not outcome.stopped_by_itself
    assert outcome.reason.startswith("still running after 5 s; screenshot at s3://")
    assert "STOP: 0x0000007B" in outcome.console_text
    key = outcome.reason.split(f"{BUCKET}/", 1)[1]
    assert aws_lab.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().startswith(b"\xff\xd8")
    left = sorted(item.kind for item in cloud.list_ours(SITE))
    assert left == ["object", "snapshot", "volume"]  # the screenshot stays until its expiry
    assert not any(item["busy"] for item in aws_lab.service.machines())


@pytest.mark.slow
def test_a_machine_that_a_person_stops_did_not_finish(aws_lab: AwsLab, guest: Any):
    guest("hang")
    cloud = aws_lab.cloud("run-1")
    disk = disk_of(cloud)

    def stop_it(event: Event) -> None:
        if event.note.startswith("console:"):
            running = [item for item in machines(aws_lab) if item["State"]["Name"] == "running"]
            aws_lab.ec2.stop_instances(InstanceIds=[running[0]["InstanceId"]], Force=True)

    outcome = cloud.boot_once(disk, deadline_seconds=60, events=stop_it)
    assert not outcome.stopped_by_itself
    assert "UserInitiated" in outcome.reason
    assert only_disk_is_left(aws_lab, disk)


def test_a_cancelled_boot_frees_the_disk(aws_lab: AwsLab, guest: Any):
    guest("hang")
    cloud = aws_lab.cloud("run-1")
    disk = disk_of(cloud)
    notes: list[str] = []
    with pytest.raises(TransferCancelled):
        cloud.boot_once(
            disk,
            deadline_seconds=60,
            events=lambda event: notes.append(event.note),
            cancelled=lambda: any(note.startswith("console:") for note in notes),
        )
    assert only_disk_is_left(aws_lab, disk)


def test_a_killed_run_takes_up_its_stub_machine(
    aws_lab: AwsLab, guest: Any, monkeypatch: pytest.MonkeyPatch
):
    guest("work")
    disk = disk_of(aws_lab.cloud("run-1"))
    before = len(machines(aws_lab))
    dying = aws_lab.aws_cloud("run-1", ledger=DiesOnceStarted(aws_lab.state.folder))
    with monkeypatch.context() as patch:
        patch.setattr(module, "_clean_up", lambda *_: [])
        with pytest.raises(Killed):
            dying.boot_once(disk, deadline_seconds=60)
    assert aws_lab.cloud("run-1").boot_once(disk, deadline_seconds=60).stopped_by_itself
    assert len(machines(aws_lab)) == before + 1
    assert only_disk_is_left(aws_lab, disk)


@pytest.mark.slow
def test_a_guest_in_the_middle_of_its_boot_is_waited_for_not_switched_off(
    aws_lab: AwsLab, guest: Any, monkeypatch: pytest.MonkeyPatch
):
    guest("slow")
    cloud = aws_lab.cloud("run-1")
    disk = disk_of(cloud)

    def die(event: Event) -> None:
        if event.note.startswith("console:"):
            raise Killed(event.note)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_clean_up", lambda *_: [])
        with pytest.raises(Killed):
            cloud.boot_once(disk, deadline_seconds=60, events=die)
    outcome = aws_lab.cloud("run-1").boot_once(disk, deadline_seconds=60)
    assert outcome.stopped_by_itself
    assert outcome.console_text.count("guest sees") == 1  # booted once, not twice
    assert only_disk_is_left(aws_lab, disk)


@pytest.mark.slow
def test_what_a_killed_boot_left_is_swept_down_to_nothing(
    aws_lab: AwsLab, guest: Any, monkeypatch: pytest.MonkeyPatch
):
    guest("hang")
    cloud = aws_lab.cloud("run-1")
    disk = disk_of(cloud)

    def die(event: Event) -> None:
        if event.note.startswith("console:"):
            raise Killed(event.note)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_clean_up", lambda *_: [])
        with pytest.raises(Killed):
            cloud.boot_once(disk, deadline_seconds=60, events=die)
    kinds = {item.kind for item in cloud.list_ours(SITE)}
    assert kinds >= {"instance", "machine-image", "snapshot", "volume", "security-group"}
    swept = sweep(aws_lab.cloud("sweep"), aws_lab.state, SITE, in_days(0), run="run-1")
    assert disk.id in ids(swept)
    assert cloud.list_ours(SITE) == []
    assert aws_lab.state.ledger.open_entries() == []


class DiesAt(Ledger):
    """The process is killed when it would record a resource of one kind."""

    def __init__(self, lab: AwsLab, prefix: str) -> None:
        super().__init__(lab.state.folder)
        self._prefix = prefix

    def record(self, entry_id: str, resource_id: str) -> None:
        if resource_id.startswith(self._prefix):
            raise Killed(resource_id)
        super().record(entry_id, resource_id)


@pytest.mark.parametrize("prefix", ["sg-", "snap-", "ami-", "i-"])
def test_what_was_made_for_the_boot_but_never_recorded_is_swept(
    aws_lab: AwsLab, guest: Any, monkeypatch: pytest.MonkeyPatch, prefix: str
):
    guest("work")
    cloud = aws_lab.cloud("run-1")
    disk = disk_of(cloud)
    monkeypatch.setattr(module, "_clean_up", lambda *_: [])
    with pytest.raises(Killed, match=prefix):
        aws_lab.cloud("run-1", ledger=DiesAt(aws_lab, prefix)).boot_once(disk, deadline_seconds=60)
    assert any(item.id.startswith(prefix) for item in cloud.list_ours(SITE))
    sweep(aws_lab.cloud("sweep"), aws_lab.state, SITE, in_days(2))
    assert cloud.list_ours(SITE) == []
    assert aws_lab.state.ledger.open_entries() == []


def test_a_snapshot_of_the_disk_that_was_never_recorded_is_found_or_swept(aws_lab: AwsLab):
    cloud = aws_lab.cloud("run-1")
    disk = disk_of(cloud)
    dying = aws_lab.cloud("run-1", ledger=DiesAt(aws_lab, "snap-"))
    with pytest.raises(Killed):
        dying.snapshot(disk, "P")
    made = {item.id for item in cloud.list_ours(SITE) if item.tags["imageport:role"] == "prepared"}
    assert {cloud.snapshot(disk, "P")} == made
    with pytest.raises(Killed):
        aws_lab.cloud("run-2", ledger=DiesAt(aws_lab, "snap-")).snapshot(disk, "P")
    sweep(aws_lab.cloud("sweep"), aws_lab.state, SITE, in_days(2))
    assert cloud.list_ours(SITE) == []


@pytest.mark.slow
def test_a_denied_start_frees_the_disk_and_names_the_action(aws_lab: AwsLab, guest: Any):
    guest("work")
    cloud = aws_lab.cloud("run-1")
    disk = disk_of(cloud)
    aws_lab.service.turn(denied=["ec2:StartInstances"])
    with pytest.raises(PermissionMissing, match="lack ec2:StartInstances"):
        cloud.boot_once(disk, deadline_seconds=60)
    aws_lab.service.turn(denied=[])
    assert only_disk_is_left(aws_lab, disk)


def test_a_boot_without_a_subnet_is_refused_before_anything_is_made(aws_lab: AwsLab):
    cloud = aws_lab.aws_cloud("run-1", subnet_id="")
    with pytest.raises(InputError, match="subnet_id"):
        cloud.boot_once(CloudDisk("vol-1", 1, ""), deadline_seconds=1)
    assert aws_lab.state.ledger.open_entries() == []


def test_named_destinations_are_the_only_way_out(aws_lab: AwsLab):
    account = aws_lab.account("run-1", boot_egress_cidrs=("10.0.0.5/32", "10.1.0.0/16"))
    group_id = isolated_group(account)
    assert isolated_group(account) == group_id
    (group,) = aws_lab.ec2.describe_security_groups(GroupIds=[group_id])["SecurityGroups"]
    out = {item["CidrIp"] for rule in group["IpPermissionsEgress"] for item in rule["IpRanges"]}
    assert out == {"10.0.0.5/32", "10.1.0.0/16"}
    assert group["IpPermissions"] == []


def test_a_group_that_the_operator_names_is_used_and_kept(aws_lab: AwsLab):
    account = aws_lab.account("run-1", isolated_security_group_id="sg-mine")
    assert isolated_group(account) == "sg-mine"
    assert aws_lab.state.ledger.open_entries() == []


@pytest.mark.slow
def test_a_terminated_machine_is_not_taken_up(aws_lab: AwsLab, guest: Any):
    guest("work")
    cloud = aws_lab.cloud("run-1")
    disk = disk_of(cloud)
    cloud.boot_once(disk, deadline_seconds=60)
    account = aws_lab.account("run-1")
    intent = account.intend("instance", "boot", "run-1", disk.id)
    assert existing_instance(account, intent) == ""
    account.void(intent)
