"""A machine boots a real disk: OVMF starts its loader, the guest player judges it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from imageport.sandbox.machines.left_mounts import mounts_below
from imageport.sandbox.sample.build import build_raw_sample

pytestmark = [pytest.mark.guest, pytest.mark.slow]
GIB = 1 << 30


@pytest.fixture(scope="session")
def raw_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_raw_sample(tmp_path_factory.mktemp("sample") / "sample.raw")


@pytest.fixture
def booting(own_service: Any, raw_sample: Path, tmp_path: Path):
    """Return a machine whose root is the sample as it left VMware."""
    account = own_service()
    vpc = account.ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    subnet = account.ec2.describe_subnets(
        Filters=[{"Name": "availability-zone", "Values": ["eu-central-1a"]}]
    )["Subnets"][0]["SubnetId"]
    group = account.ec2.create_security_group(GroupName="g", Description="d", VpcId=vpc)["GroupId"]
    everywhere = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    account.ec2.revoke_security_group_egress(GroupId=group, IpPermissions=[everywhere])
    size_gib = -(-raw_sample.stat().st_size // GIB)
    volume_id = account.volume(Size=size_gib)
    copy = ["cp", "--sparse=always", raw_sample, tmp_path / "aws/volumes" / f"{volume_id}.raw"]
    subprocess.run(copy, check=True)
    snapshot_id = account.ec2.create_snapshot(VolumeId=volume_id)["SnapshotId"]
    account.until(lambda: account.snapshot_state(snapshot_id) == "completed", 120)
    image_id = account.ec2.register_image(
        Name="sample",
        Architecture="x86_64",
        VirtualizationType="hvm",
        BootMode="uefi",
        RootDeviceName="/dev/sda1",
        BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot_id}}],
    )["ImageId"]
    interface = {
        "DeviceIndex": 0,
        "SubnetId": subnet,
        "Groups": [group],
        "AssociatePublicIpAddress": False,
        "DeleteOnTermination": True,
    }
    answer = account.ec2.run_instances(
        ImageId=image_id,
        InstanceType="m6i.large",
        MinCount=1,
        MaxCount=1,
        NetworkInterfaces=[interface],
    )
    return account, answer["Instances"][0]["InstanceId"]


def test_firmware_starts_the_disk_and_the_player_stops_it_for_its_missing_driver(booting: Any):
    account, instance_id = booting
    account.until(lambda: "STOP" in account.console(instance_id), 240)
    console = account.console(instance_id)
    assert "0x0000007B" in console, console
    assert account.instance(instance_id)["State"]["Name"] == "running"
    account.until(lambda: not account.service.machines()[0]["busy"])


def test_a_machine_that_is_cut_off_while_it_boots_leaves_nothing_mounted(
    booting: Any, tmp_path: Path
):
    account, instance_id = booting
    account.until(lambda: bool(mounts_below(tmp_path / "aws")), 240)
    account.ec2.stop_instances(InstanceIds=[instance_id], Force=True)
    account.until_state(instance_id, "stopped")
    account.service.stop()
    assert mounts_below(tmp_path) == []
