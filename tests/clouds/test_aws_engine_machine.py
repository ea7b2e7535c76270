"""The engine machine: launched without a role, works by presigned URLs and ends itself."""

from __future__ import annotations

import time
from typing import Any

import pytest

from imageport.clouds import vm_bootstrap
from imageport.clouds.aws.instances import LaunchPlan
from imageport.clouds.engine_setup import user_data
from imageport.clouds.tags import TAG_SITE
from tests.clouds.aws_laboratory import AwsLab
from tests.clouds.cloud_contract import SITE, disk_of
from tests.clouds.engine_contract import EngineMachineContract, killed_run
from tests.clouds.machine_lab import MachineLab


class TestAwsEngineMachine(EngineMachineContract):
    @pytest.fixture
    def lab(self, aws_lab: AwsLab) -> MachineLab:
        return aws_lab

    def look(self, lab: MachineLab, machine: str) -> Any:
        assert isinstance(lab, AwsLab)
        [found] = [item for item in lab.instances() if item["InstanceId"] == machine]
        filters: Any = [{"Name": f"tag:{TAG_SITE}", "Values": [SITE]}]
        return found, lab.ec2.describe_security_groups(Filters=filters)["SecurityGroups"]

    def check_bounds(self, seen: Any, *, installs: bool) -> None:  # noqa: ARG002 - alike
        machine, [group] = seen
        assert machine["MetadataOptions"]["HttpTokens"] == "required"
        assert "IamInstanceProfile" not in machine
        assert not machine.get("PublicIpAddress")
        assert group["IpPermissions"] == []

    @pytest.mark.slow
    def test_the_engine_machine_ends_by_itself_when_nobody_watches(self, aws_lab: AwsLab):
        cloud = aws_lab.cloud("run-1")
        disk = disk_of(cloud)
        killed_run(aws_lab, disk, "crash")
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


def test_a_plan_that_is_printed_shows_no_user_data():
    plan = LaunchPlan("ami-1", "t3.large", "sg-1", "terminate", user_data="5ecre7")
    assert "5ecre7" not in f"{plan!r}{plan}"


def test_the_user_data_fits_into_what_ec2_takes():
    text = user_data("https://bucket.s3/" + "x" * 3000, "0" * 64, 60)
    assert len(text.encode()) < 16 * 1024
    assert text.startswith(f"#!{vm_bootstrap.PYTHON}\n")
    compile(text, "user-data", "exec")
