"""The self-test names every denied action and creates nothing."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from imageport.clouds.aws import permissions
from imageport.clouds.aws.permissions import check_permissions, probes
from imageport.doctor.places import cloud_checks
from imageport.errors import CloudRefused
from tests.clouds.aws_laboratory import BUCKET, AwsLab

SOURCES = Path(inspect.getfile(permissions)).parent
ASKED = re.compile(r'asked\(\s*"([a-z0-9]+:[A-Za-z]+)"')


def resources(lab: AwsLab) -> list[Any]:
    """Ids of everything in the account that a run could make."""
    groups = lab.ec2.describe_security_groups()["SecurityGroups"]
    reservations = lab.ec2.describe_instances()["Reservations"]
    return [
        sorted(item["SnapshotId"] for item in lab.ec2.describe_snapshots()["Snapshots"]),
        sorted(item["VolumeId"] for item in lab.ec2.describe_volumes()["Volumes"]),
        sorted(item["ImageId"] for item in lab.ec2.describe_images(Owners=["self"])["Images"]),
        sorted(item["GroupId"] for item in groups),
        sorted(one["InstanceId"] for item in reservations for one in item["Instances"]),
        lab.s3.list_objects_v2(Bucket=BUCKET).get("KeyCount"),
    ]


def test_nothing_is_missing_and_nothing_is_made_when_all_is_granted(aws_lab: AwsLab):
    before = resources(aws_lab)
    assert check_permissions(aws_lab.account("run-1", boot_egress_cidrs=("10.0.0.0/8",))) == []
    assert resources(aws_lab) == before


EMULATED = [
    "ebs:StartSnapshot", "ebs:PutSnapshotBlock", "ebs:CompleteSnapshot", "ebs:ListSnapshotBlocks",
    "ebs:GetSnapshotBlock", "ec2:CreateVolume", "ec2:RunInstances", "ec2:RegisterImage",
    "ec2:CreateTags", "ec2:DescribeSnapshots", "ec2:DeleteSecurityGroup",
    "ec2:RevokeSecurityGroupEgress", "ec2:GetConsoleScreenshot", "s3:PutObject",
    "s3:GetBucketLocation", "servicequotas:GetServiceQuota",
]  # fmt: skip


def test_every_denied_action_is_named_with_what_needs_it(aws_lab: AwsLab):
    aws_lab.service.turn(denied=EMULATED)
    gaps = {gap.action: gap for gap in check_permissions(aws_lab.account("run-1"))}
    assert set(gaps) == set(EMULATED)
    assert gaps["servicequotas:GetServiceQuota"].needed_for == "preflight"
    assert gaps["ebs:PutSnapshotBlock"].needed_for == "upload"
    assert gaps["ec2:RegisterImage"].needed_for == "prepare (first boot)"
    assert {gap.found for gap in gaps.values()} == {"denied"}


def test_every_action_that_the_sources_ask_for_has_a_probe(aws_lab: AwsLab):
    account = aws_lab.account(
        "run-1", boot_egress_cidrs=("10.0.0.0/8",), encrypted=True, kms_key_id="key"
    )
    probed = {probe.action for probe in probes(account)}
    asked = {action for path in SOURCES.glob("*.py") for action in ASKED.findall(path.read_text())}
    # The first probe of all: nobody can be denied to ask who they are.
    assert asked - probed == {"sts:GetCallerIdentity"}


def test_groups_and_destinations_that_are_not_used_need_no_permission(aws_lab: AwsLab):
    account = aws_lab.account(
        "run-1", engine_security_group_id="sg-1", isolated_security_group_id="sg-2", bucket=""
    )
    actions = {probe.action for probe in probes(account)}
    assert not {action for action in actions if "SecurityGroupEgress" in action}
    assert "ec2:CreateSecurityGroup" not in actions
    assert not {action for action in actions if action.startswith("s3:")}


def test_credentials_that_are_refused_are_no_list_of_missing_actions(
    aws_lab: AwsLab, monkeypatch: pytest.MonkeyPatch
):
    account = aws_lab.account("run-1")
    answer: Any = {
        "Error": {"Code": "InvalidClientTokenId", "Message": "The security token is invalid"},
        "ResponseMetadata": {"HTTPStatusCode": 403},
    }

    def refuse() -> None:
        raise ClientError(answer, "GetCallerIdentity")

    monkeypatch.setattr(account.clients.sts, "get_caller_identity", refuse)
    with pytest.raises(CloudRefused) as caught:
        check_permissions(account)
    assert "credentials of the worker" in caught.value.hint


def test_the_doctor_notes_what_only_preflight_needs_and_fails_for_the_rest(aws_lab: AwsLab):
    aws_lab.service.turn(denied=["servicequotas:GetServiceQuota", "ec2:CreateVolume"])
    checks = cloud_checks("aws", lambda: aws_lab.aws_cloud("doctor"), lambda _: "the role")
    marks = {check.name: check.mark for check in checks}
    assert marks["servicequotas:GetServiceQuota"] == "note"
    assert marks["ec2:CreateVolume"] == "FAIL"
