"""Preflight looks at the account, the zone and the settings, and says everything at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from imageport.cloud import PlaceProblem
from imageport.clouds.aws import instances
from imageport.clouds.aws.place import check_place
from imageport.errors import CloudRefused, InputError
from imageport.model import GIB
from tests.clouds.aws_laboratory import REGION, AwsLab
from tests.clouds.cloud_contract import BLOCKS, GUID, uploaded

SIZE = 64 * GIB
PREFLIGHT = [
    "ec2:DescribeInstanceTypes", "ec2:DescribeInstanceTypeOfferings", "ec2:DescribeSubnets",
    "ec2:DescribeSecurityGroups", "ec2:DescribeInstances", "servicequotas:GetServiceQuota",
    "s3:GetBucketLocation", "kms:DescribeKey",
]  # fmt: skip


def problems(lab: AwsLab, image: str = "gold", size: int = SIZE, **changes: Any) -> list[str]:
    found = check_place(lab.account("run-1", **changes), image, size)
    return [str(problem) for problem in found]


@pytest.fixture
def network(aws_lab: AwsLab) -> Iterator[dict[str, str]]:
    """Another network in the region, with a group of its own and one that lets everybody in."""
    ec2 = aws_lab.ec2
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    home = ec2.describe_subnets(SubnetIds=[aws_lab.settings().subnet_id])["Subnets"][0]["VpcId"]
    made = {
        "far": ec2.create_security_group(GroupName="far", Description="x", VpcId=vpc)["GroupId"],
        "open": ec2.create_security_group(GroupName="open", Description="x", VpcId=home)["GroupId"],
    }
    ec2.authorize_security_group_ingress(
        GroupId=made["open"],
        IpPermissions=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}],
    )
    try:
        yield made
    finally:
        for group in made.values():
            ec2.delete_security_group(GroupId=group)
        ec2.delete_vpc(VpcId=vpc)


def test_a_place_that_fits_has_no_problem_and_stays_as_it_is(aws_lab: AwsLab):
    groups = aws_lab.ec2.describe_security_groups()["SecurityGroups"]
    group = next(item["GroupId"] for item in groups if item["GroupName"] == "default")
    aws_lab.service.forget_calls()
    assert problems(aws_lab, engine_security_group_id=group) == []
    assert problems(aws_lab, availability_zone="") == []
    assert all(
        action.split(":")[1].startswith(("Describe", "Get")) for action in aws_lab.service.calls()
    )


def test_a_volume_goes_where_the_subnet_is_when_no_zone_is_named(aws_lab: AwsLab):
    cloud = aws_lab.aws_cloud("run-1", availability_zone="")
    disk = cloud.make_disk(uploaded(cloud, BLOCKS), GUID)
    volume = aws_lab.ec2.describe_volumes(VolumeIds=[disk.id])["Volumes"][0]
    assert volume["AvailabilityZone"] == aws_lab.settings().availability_zone


def test_everything_wrong_is_said_at_once(aws_lab: AwsLab, network: dict[str, str]):
    found = problems(
        aws_lab,
        "g" * 300,
        65537 * GIB,
        site="frankfurt/main",
        availability_zone="eu-central-1z",
        engine_security_group_id=network["far"],
        isolated_security_group_id=network["open"],
        engine_instance_type="m6g.large",
        boot_instance_type="c4.large",
        bucket="imageport-nowhere",
        encrypted=True,
        kms_key_id="00000000-0000-0000-0000-000000000000",
    )
    joined = "\n".join(found)
    for words in (
        "300 characters",
        "'frankfurt/main'",
        "65537 GiB",
        "'eu-central-1z'",
        f"'{network['far']}' in 'vpc-",
        "1 rules that let others in",
        "'m6g.large' without x86_64 processors",
        "'c4.large' without the Nitro hypervisor",
        "no 'imageport-nowhere'",
        "no '00000000-0000-0000-0000-000000000000'",
    ):
        assert words in joined, joined
    assert len(found) == 10


def test_a_subnet_that_is_not_there_hides_no_other_problem(aws_lab: AwsLab):
    found = problems(aws_lab, subnet_id="subnet-0123456789abcdef0", bucket="imageport-nowhere")
    assert [line.split(":")[0] for line in found] == ["Bad subnet_id", "Bad bucket"]


def test_a_bucket_in_another_region_is_named_with_its_region(aws_lab: AwsLab):
    place: Any = {"LocationConstraint": "eu-west-3"}
    paris = aws_lab.session.client(
        "s3", endpoint_url=aws_lab.service.endpoint, region_name="eu-west-3"
    )
    paris.create_bucket(Bucket="imageport-paris", CreateBucketConfiguration=place)
    paris.close()
    try:
        assert problems(aws_lab, bucket="imageport-paris") == [
            f"Bad bucket: found 'imageport-paris' in 'eu-west-3', needed one in '{REGION}'."
        ]
    finally:
        aws_lab.s3.delete_bucket(Bucket="imageport-paris")


def test_a_type_that_the_zone_does_not_offer_is_named_before_the_launch_fails(aws_lab: AwsLab):
    aws_lab.service.turn(missing_types=["m7i.large"])
    try:
        (problem,) = check_place(aws_lab.account("r", boot_instance_type="m7i.large"), "g", SIZE)
        assert problem.subject == "boot_instance_type"
        assert problem.found == "'m7i.large', which 'eu-central-1a' does not offer"
        with pytest.raises(CloudRefused, match="Unsupported"):
            launch(aws_lab, "m7i.large")
    finally:
        aws_lab.service.turn(missing_types=[])
    assert problems(aws_lab, boot_instance_type="m7i.large") == []


def launch(lab: AwsLab, kind: str) -> str:
    account = lab.account("run-q")
    images = lab.ec2.describe_images(Owners=["136693071363"])["Images"]
    groups = lab.ec2.describe_security_groups()["SecurityGroups"]
    group = next(item["GroupId"] for item in groups if item["GroupName"] == "default")
    plan = instances.LaunchPlan(
        images[0]["ImageId"], kind, group, "terminate", "#!/bin/sh\nsleep 600\n"
    )
    return instances.launch(account, account.intend("instance", "engine", "run-q", kind), plan)


def test_the_quota_counts_what_runs_and_what_this_run_needs(aws_lab: AwsLab):
    aws_lab.service.turn(quota_vcpus=3.0)
    try:
        assert problems(aws_lab) == []
        instance_id = launch(aws_lab, "m6i.large")
        (line,) = problems(aws_lab)
        assert "found 3, of which 2 are in use, needed 2 more" in line
        with pytest.raises(CloudRefused, match="VcpuLimitExceeded"):
            launch(aws_lab, "m7i.large")
        # Families with a quota of their own are not judged by this one.
        graphics = {"engine_instance_type": "g4dn.xlarge", "boot_instance_type": "g4dn.xlarge"}
        assert problems(aws_lab, **graphics) == []
        aws_lab.ec2.terminate_instances(InstanceIds=[instance_id])
        assert problems(aws_lab) == []
    finally:
        aws_lab.service.turn(quota_vcpus=64.0)


def test_a_key_that_is_switched_off_or_cannot_encrypt_is_a_problem(aws_lab: AwsLab):
    kms = aws_lab.session.client("kms", endpoint_url=aws_lab.service.endpoint)
    off = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.disable_key(KeyId=off)
    signing = kms.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    good = kms.create_key()["KeyMetadata"]["Arn"]
    kms.close()
    assert problems(aws_lab, encrypted=True, kms_key_id=good) == []
    assert problems(aws_lab, encrypted=True, kms_key_id=off) == [
        "Bad kms_key_id: found state Disabled, needed Enabled."
    ]
    (line,) = problems(aws_lab, encrypted=True, kms_key_id=signing)
    assert "a key of kind RSA_2048" in line


def test_what_the_credentials_may_not_look_at_is_no_problem_of_the_place(aws_lab: AwsLab):
    wrong: dict[str, Any] = {
        "availability_zone": "eu-central-1z",
        "boot_instance_type": "c4.large",
        "bucket": "imageport-nowhere",
        "encrypted": True,
        "kms_key_id": "00000000-0000-0000-0000-000000000000",
    }
    aws_lab.service.turn(denied=PREFLIGHT)
    assert problems(aws_lab, **wrong) == []
    aws_lab.service.turn(denied=["ec2:DescribeInstanceTypes"])
    assert len(problems(aws_lab, **wrong)) == 3


def test_settings_without_subnet_or_bucket_are_refused_together(aws_lab: AwsLab):
    with pytest.raises(InputError, match="subnet_id, bucket"):
        problems(aws_lab, subnet_id="", bucket="")


def test_every_problem_reads_as_a_sentence(aws_lab: AwsLab):
    for problem in check_place(aws_lab.account("r", bucket="imageport-nowhere"), "g", SIZE):
        assert isinstance(problem, PlaceProblem)
        assert str(problem).startswith("Bad ")
        assert str(problem).endswith(".")
