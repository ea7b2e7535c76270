"""The policies in ``docs/policies`` are enough for a run, and allow nothing that no run does.

The emulator evaluates the policy for every request: action, resource, the request's and the
resource's tags.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from imageport.cloud import CloudResource
from imageport.clouds import engine_setup
from imageport.clouds.aws.clients import AwsClients
from imageport.clouds.aws.cloud import AwsCloud
from imageport.clouds.aws.permissions import PREFLIGHT, probes
from imageport.clouds.aws.settings import AwsSettings
from imageport.clouds.sweep import sweep
from imageport.clouds.tags import TAG_SITE
from imageport.compose.contract import Action, EngineDisk, EngineJob, EngineOptions
from imageport.errors import ImageportError, PermissionMissing
from imageport.model import GIB
from imageport.sandbox.aws.iam_policy import is_allowed
from tests.clouds.aws_laboratory import BUCKET, REGION, AwsLab, Connections
from tests.clouds.cloud_contract import BLOCKS, GUID, SITE, in_days, uploaded
from tests.clouds.iam_documents import FOLDER, actions_of, policy
from tests.clouds.stand_in_engine import build_stand_in

KEY = "AKIAWORKER"
ACCOUNT = "123456789012"
PLACEHOLDERS = {"ACCOUNT_ID", "BUCKET", "KEY_ID", "REGION", "SITE", "SUBNET_ID"}

NOT_ON_THE_MAIN_PATH = {
    "ec2:AuthorizeSecurityGroupEgress": "only with boot_egress_cidrs",
    "ec2:GetConsoleScreenshot": "only of a first boot that does not end by its deadline",
}
"""Allowed actions that a run without trouble does not use, each with its reason."""

BY_EC2_FOR_US = {
    "kms:CreateGrant", "kms:Decrypt", "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncryptFrom",
    "kms:ReEncryptTo",
}  # fmt: skip
"""What EBS asks of KMS in the caller's name (EBS User Guide, "Requirements for encryption")."""


def values(lab: AwsLab, **changes: str) -> dict[str, str]:
    known = {
        "REGION": REGION,
        "ACCOUNT_ID": ACCOUNT,
        "SITE": SITE,
        "BUCKET": BUCKET,
        "SUBNET_ID": lab.settings().subnet_id,
        "KEY_ID": "0-0",
    }
    return known | changes


@pytest.fixture(scope="module")
def clients(aws_connections: Connections) -> Iterator[AwsClients]:
    """Connections of the worker, for all tests: making them takes longer than a test."""
    session = boto3.Session(KEY, "test", region_name=REGION)
    settings = AwsSettings(region=REGION, endpoint_url=aws_connections.service.endpoint)
    made = AwsClients(session, settings)
    yield made
    made.close()


@pytest.fixture
def worker(aws_lab: AwsLab, clients: AwsClients) -> Iterator[Any]:
    """Return what makes the cloud of a worker that has one of the policies and no more."""

    def cloud(run: str, document: dict[str, Any]) -> AwsCloud:
        aws_lab.service.turn(policies={KEY: document})
        found = AwsCloud(aws_lab.settings(), clients.session, aws_lab.state.ledger, run)
        found._clients = found._account.clients = clients
        return found

    yield cloud
    aws_lab.service.turn(policies={})


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_setup, "build_engine", build_stand_in)


def job() -> EngineJob:
    return EngineJob(
        action=Action.COMPOSE,
        disk=EngineDisk(path="", disk_guid=GUID),
        options=EngineOptions(recommended=("work",)),
    )


def main_path(cloud: AwsCloud) -> str:
    """Do what a run does, from preflight to reading for publish; return the last snapshot."""
    assert cloud.check_permissions() == []
    assert cloud.check_place("gold", GIB) == []
    first = uploaded(cloud, BLOCKS)
    second = uploaded(cloud, BLOCKS, token="t-2", parent=first)
    disk = cloud.make_disk(second, GUID)
    assert cloud.run_engine(disk, job(), deadline_seconds=120).ok
    outcome = cloud.boot_once(disk, deadline_seconds=60)
    assert outcome.stopped_by_itself, outcome
    prepared = cloud.snapshot(disk, "gold")
    with cloud.open_snapshot(prepared) as opened:
        assert opened.read_at(1024, 6) == b"booted"
    cloud.delete_disk(disk)
    cloud.delete_snapshot(second)
    return prepared


@pytest.fixture
def _guest(guest: Any) -> None:
    guest("work")


@pytest.mark.usefixtures("stand_in", "_guest")
def test_a_whole_run_needs_exactly_what_the_policy_allows(aws_lab: AwsLab, worker: Any):
    document = policy("aws-policy", values(aws_lab))
    aws_lab.service.forget_calls()
    cloud = worker("run-1", document)
    kept = main_path(cloud)
    left = sweep(cloud, aws_lab.state, SITE, in_days(2))
    asked, done = set(aws_lab.service.calls(asked=True)), set(aws_lab.service.calls())
    assert {item.kind for item in left} == {"snapshot"}
    assert not cloud.exists(kept)
    allowed = actions_of(document) | {"sts:GetCallerIdentity"}
    assert asked - allowed == set()
    assert allowed - done == set(NOT_ON_THE_MAIN_PATH)
    checks = [one for one in aws_lab.service.checks() if one.action != "sts:GetCallerIdentity"]
    assert all(is_allowed(document, one) for one in checks)
    idle = {
        word
        for word, without in narrower(document)
        if all(is_allowed(without, one) for one in checks)
    }
    assert {word for _, word in idle} == set(NOT_ON_THE_MAIN_PATH)


def narrower(document: dict[str, Any]) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """Yield (statement, word) and the policy without that one action or resource of it."""
    for place, statement in enumerate(document["Statement"]):
        for part in ("Action", "Resource"):
            words = statement[part]
            for word in [words] if isinstance(words, str) else words:
                others = [item for item in words if item != word] if word != words else []
                kept = [{**statement, part: others}] if others else []
                statements = document["Statement"]
                changed = [*statements[:place], *kept, *statements[place + 1 :]]
                yield (statement["Sid"], word), {"Statement": changed}


def test_the_policy_names_what_the_self_test_tries_and_no_more(aws_lab: AwsLab):
    account = aws_lab.account(
        "run-1", boot_egress_cidrs=("10.0.0.0/8",), encrypted=True, kms_key_id="0-0"
    )
    tried = {probe.action for probe in probes(account)}
    allowed = actions_of(policy("aws-policy", values(aws_lab)))
    with_key = allowed | actions_of(policy("aws-kms-policy", values(aws_lab)))
    assert with_key - tried == BY_EC2_FOR_US
    assert tried - allowed == {"kms:DescribeKey"}


def test_without_the_actions_of_preflight_a_run_still_goes_on(aws_lab: AwsLab, worker: Any):
    document = policy("aws-policy", values(aws_lab))
    account = aws_lab.account("run-1")
    optional = {probe.action for probe in probes(account) if probe.needed_for == PREFLIGHT}
    aws_lab.service.turn(denied=sorted(optional))
    cloud = worker("run-1", document)
    assert {gap.action for gap in cloud.check_permissions() if gap.optional} == optional
    assert all(gap.optional for gap in cloud.check_permissions())
    assert cloud.check_place("gold", GIB) == []
    assert cloud.exists(uploaded(cloud, BLOCKS))


def test_what_another_site_or_nobody_tagged_is_out_of_reach(aws_lab: AwsLab, worker: Any):
    foreign = aws_lab.aws_cloud("run-2", site="paris")
    theirs = uploaded(foreign, BLOCKS)
    zone = aws_lab.settings().availability_zone
    volume = aws_lab.ec2.create_volume(AvailabilityZone=zone, Size=1)["VolumeId"]
    cloud = worker("run-1", policy("aws-policy", values(aws_lab)))
    ec2 = cloud._clients.ec2
    try:
        with pytest.raises(PermissionMissing, match="ebs:ListSnapshotBlocks"):
            list(cloud.open_snapshot(theirs).extents())
        with pytest.raises(PermissionMissing, match="ec2:DeleteSnapshot"):
            cloud.delete_snapshot(theirs)
        with pytest.raises(PermissionMissing, match="ec2:CreateVolume"):
            cloud.make_disk(theirs, GUID)
        with pytest.raises(PermissionMissing, match="ec2:DeleteVolume"):
            cloud.delete_resource(CloudResource("volume", volume, {TAG_SITE: SITE}))
        # Nor can the worker make it its own by a tag.
        with pytest.raises(ClientError, match="UnauthorizedOperation"):
            ec2.create_tags(Resources=[volume], Tags=[{"Key": TAG_SITE, "Value": SITE}])
        with pytest.raises(ClientError, match="UnauthorizedOperation"):
            ec2.create_volume(AvailabilityZone=zone, Size=1)
    finally:
        aws_lab.ec2.delete_volume(VolumeId=volume)
        foreign.delete_snapshot(theirs)


def test_a_bucket_is_open_below_the_product_s_own_prefix_only(aws_lab: AwsLab, worker: Any):
    aws_lab.s3.put_object(Bucket=BUCKET, Key="payroll/2026.csv", Body=b"secret")
    cloud = worker("run-1", policy("aws-policy", values(aws_lab)))
    s3 = cloud._clients.s3
    try:
        for call in (
            lambda: s3.get_object(Bucket=BUCKET, Key="payroll/2026.csv"),
            lambda: s3.put_object(Bucket=BUCKET, Key="imageport/paris/run/x", Body=b""),
            lambda: s3.list_objects_v2(Bucket=BUCKET, Prefix="payroll/"),
        ):
            with pytest.raises(ClientError, match="AccessDenied"):
                call()
        with pytest.raises(ClientError, match="NoSuchKey"):
            s3.get_object(Bucket=BUCKET, Key=f"imageport/{SITE}/run/token/report.json")
    finally:
        aws_lab.s3.delete_object(Bucket=BUCKET, Key="payroll/2026.csv")


def test_the_site_that_publishes_can_read_and_nothing_else(aws_lab: AwsLab, worker: Any):
    reference = uploaded(aws_lab.aws_cloud("run-1"), BLOCKS)
    document = policy("aws-publish-policy", values(aws_lab))
    cloud = worker("run-2", document)
    aws_lab.service.forget_calls()
    assert cloud.exists(reference)
    with cloud.open_snapshot(reference) as opened:
        assert opened.read_at(0, len(BLOCKS[0])) == BLOCKS[0]
        opened.check_unchanged()
    assert set(aws_lab.service.calls()) == actions_of(document)
    for call in (
        lambda: cloud.delete_snapshot(reference),
        lambda: cloud.make_disk(reference, GUID),
        lambda: uploaded(cloud, BLOCKS, token="t-9"),
    ):
        with pytest.raises(ImageportError) as caught:
            call()
        assert caught.value.code == "permission-missing"


def test_another_region_is_closed(aws_lab: AwsLab, worker: Any):
    document = policy("aws-policy", values(aws_lab, REGION="us-east-1"))
    cloud = worker("run-1", document)
    with pytest.raises(PermissionMissing, match="ec2:DescribeSnapshots"):
        cloud.exists("snap-00000000000000000")


def test_placeholders_are_the_ones_that_the_page_explains():
    text = "".join(path.read_text() for path in FOLDER.glob("aws-*.json"))
    page = (FOLDER.parent / "permissions.md").read_text()
    for name in PLACEHOLDERS:
        assert name in text
        assert f"`{name}`" in page
    for path in FOLDER.glob("aws-*.json"):
        assert path.name in page
        document = json.loads(path.read_text())
        assert all(item["Sid"] for item in document["Statement"])
        # AWS's limit for a managed policy, without white space.
        assert len(json.dumps(document, separators=(",", ":"))) < 6144
