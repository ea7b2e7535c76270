"""The one boot: the composed disk as the root of a stub machine that reaches nothing."""

from __future__ import annotations

from typing import Any

import pytest

from imageport.clouds.aws.network import isolated_group
from imageport.clouds.sweep import sweep
from imageport.clouds.tags import TAG_SITE
from tests.clouds.aws_laboratory import AwsLab
from tests.clouds.boot_contract import BootOnceContract
from tests.clouds.cloud_contract import SITE, Killed, disk_of, in_days
from tests.clouds.machine_lab import DiesAt, MachineLab


class TestAwsBootOnce(BootOnceContract):
    @pytest.fixture
    def lab(self, aws_lab: AwsLab) -> MachineLab:
        return aws_lab

    def look(self, lab: MachineLab, machine: str) -> Any:
        assert isinstance(lab, AwsLab)
        [found] = [item for item in lab.instances() if item["InstanceId"] == machine]
        filters: Any = [{"Name": f"tag:{TAG_SITE}", "Values": [SITE]}]
        return found, lab.ec2.describe_security_groups(Filters=filters)["SecurityGroups"]

    def check_alone(self, seen: Any) -> None:
        machine, [group] = seen
        assert group["IpPermissions"] == []
        assert group["IpPermissionsEgress"] == []
        assert machine["MetadataOptions"]["HttpEndpoint"] == "disabled"
        assert not machine.get("PublicIpAddress")
        assert "IamInstanceProfile" not in machine


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
