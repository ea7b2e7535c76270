"""The service as a whole: what outlives it, and that nothing else does."""

from __future__ import annotations

import signal
import urllib.request
from pathlib import Path
from typing import Any

from imageport.sandbox.aws.moto_patches import PATCHES
from imageport.sandbox.processes import SERVICE_MARK, marked_processes

BLOCK = 512 * 1024
SLEEPER = "#!/usr/bin/python3\nimport time\nprint('sleeps', flush=True)\ntime.sleep(611)\n"


def launch_sleeper(account: Any):
    image = account.ec2.describe_images(Owners=["136693071363"])["Images"][0]["ImageId"]
    answer = account.ec2.run_instances(
        ImageId=image, InstanceType="m6i.large", MinCount=1, MaxCount=1, UserData=SLEEPER
    )
    instance_id = answer["Instances"][0]["InstanceId"]
    account.until(lambda: "sleeps" in account.console(instance_id))


def test_snapshots_outlive_a_restart_with_their_tags(own_service: Any):
    first = own_service()
    parent = first.snapshot({0: b"a" * BLOCK})
    child = first.snapshot({1: b"b" * BLOCK}, ParentSnapshotId=parent)
    first.start()  # pending: lost, as a time-out would end it
    first.ec2.create_tags(Resources=[child], Tags=[{"Key": "role", "Value": "uploaded"}])
    first.ec2.delete_snapshot(SnapshotId=parent)
    first.service.stop()
    second = own_service()
    found = second.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
    assert [item["SnapshotId"] for item in found] == [child]
    assert found[0]["Tags"] == [{"Key": "role", "Value": "uploaded"}]
    assert second.read(child) == {0: b"a" * BLOCK, 1: b"b" * BLOCK}


def test_nothing_is_left_after_a_stop(own_service: Any, tmp_path: Path):
    account = own_service()
    launch_sleeper(account)
    account.volume()
    assert len(marked_processes(tmp_path / "aws", SERVICE_MARK)) >= 2
    account.service.stop()
    account.service.stop()
    assert marked_processes(tmp_path / "aws", SERVICE_MARK) == []
    assert not (tmp_path / "aws" / "volumes").exists()
    assert not (tmp_path / "aws" / "machines").exists()


def test_machines_of_a_killed_emulator_end_with_the_stop(own_service: Any, tmp_path: Path):
    account = own_service()
    launch_sleeper(account)
    account.service._child.kill(signal.SIGKILL)
    assert marked_processes(tmp_path / "aws", SERVICE_MARK)
    account.service.stop()
    assert marked_processes(tmp_path / "aws", SERVICE_MARK) == []


def test_presigned_urls_put_and_get_one_object(account: Any):
    account.s3.create_bucket(
        Bucket="jobs", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    where = {"Bucket": "jobs", "Key": "a/report.json"}
    put = account.s3.generate_presigned_url("put_object", Params=where, ExpiresIn=60)
    request = urllib.request.Request(put, data=b"{}", method="PUT")  # noqa: S310 - loopback
    request.add_header("Content-Type", "application/octet-stream")
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
        assert answer.status == 200
    get = account.s3.generate_presigned_url("get_object", Params=where, ExpiresIn=60)
    with urllib.request.urlopen(get, timeout=10) as answer:  # noqa: S310 - loopback
        assert answer.read() == b"{}"


def test_memory_stays_flat_while_blocks_are_written(account: Any):
    snapshot_id = account.start()
    account.put(snapshot_id, 0, b"x" * BLOCK)
    status = Path("/proc") / str(account.service._child.pid) / "status"
    before = resident_kib(status)
    for index in range(256):
        account.put(snapshot_id, index, bytes([index]) * BLOCK)
    assert resident_kib(status) - before < 48 * 1024  # 128 MiB were written


def resident_kib(status: Path) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


def test_every_patch_of_moto_has_a_reason():
    assert all(len(patch.why) > 10 for patch in PATCHES)
