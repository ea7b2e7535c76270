"""EBS direct: what only the service itself can say. About 0.05 USD together."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from imageport.clouds.aws.block_client import BlockClient
from imageport.clouds.aws.engine_image import find_engine_image
from imageport.clouds.aws.instances import LaunchPlan, launch
from imageport.clouds.aws.network import engine_group
from imageport.clouds.aws.snapshots import describe_snapshot
from imageport.clouds.tags import TAG_SITE
from imageport.errors import CloudThrottled
from imageport.model import GIB
from tests.clouds.cloud_contract import BLOCKS, block, digest, plan_of, put_all, uploaded
from tests.real.conftest import Observed
from tests.real.probes import probes
from tests.real.real_aws import RealAws

PUTS = 3000
SCRIPT = """#!/bin/bash
link=/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{serial}
for n in $(seq 60); do [ -b $link ] && break; sleep 5; done
count=$(dd if=$link bs=512K skip=1 count=1 2>/dev/null | tr -d '\\0' | wc -c)
echo "hole {name} $count bytes not zero" > /dev/console
sleep 3600
"""


@probes("aws-changed-blocks")
def test_a_block_that_was_put_twice_counts_once(aws: RealAws, observed: Observed):
    target = aws.cloud().upload_target("probe")
    target.begin(plan_of(BLOCKS), aws.site)
    put_all(target, BLOCKS)
    target.put(3, BLOCKS[3], digest(BLOCKS[3]))
    reference = target.commit({index: digest(data) for index, data in BLOCKS.items()})
    target.close()
    observed(f"completed with {len(BLOCKS)} distinct blocks after {len(BLOCKS) + 1} puts")
    assert aws.cloud().exists(reference)


@probes("aws-unwritten-block")
@pytest.mark.parametrize("encrypted", [False, True])
def test_a_block_that_was_never_written_is_read_in_a_machine(
    aws: RealAws, observed: Observed, *, encrypted: bool
):
    cloud = aws.cloud(encrypted=encrypted)
    disk = cloud.make_disk(uploaded(cloud, {0: block(0), 3: block(3)}), "")
    account = aws.account()
    name = "encrypted" if encrypted else "plain"
    script = SCRIPT.format(serial=disk.id.replace("-", ""), name=name)
    image = find_engine_image(account).id
    with aws.machine(script, engine_group(account), image) as instance_id:
        aws.clients.ec2.get_waiter("instance_running").wait(InstanceIds=[instance_id])
        aws.clients.ec2.attach_volume(VolumeId=disk.id, InstanceId=instance_id, Device="/dev/sdf")
        line = aws.console_line(instance_id, f"hole {name}")
    observed(line or "the machine said nothing")
    assert line
    assert ("hole plain 0 bytes" in line) or encrypted


@probes("aws-put-limit")
def test_the_rate_at_which_one_snapshot_takes_blocks(aws: RealAws, observed: Observed):
    account = aws.account()
    data = block(1)
    target = aws.cloud().upload_target("probe")
    snapshot_id = target.begin(plan_of({0: data}, 4 * GIB), aws.site)
    client = BlockClient(account.clients)
    throttled = 0

    def put(index: int) -> bool:
        try:
            client.put(snapshot_id, index, data, digest(data))
        except CloudThrottled:
            return False
        return True

    began = time.monotonic()
    try:
        with ThreadPoolExecutor(64) as pool:
            throttled = list(pool.map(put, range(PUTS))).count(False)
    finally:
        target.abort()
        target.close()
    rate = PUTS / (time.monotonic() - began)
    observed(f"{rate:.0f} puts/s with 64 in flight, {throttled} of {PUTS} throttled")
    # From outside EC2 the line is the limit, so nothing is asserted about the rate itself.
    assert rate > 0


@probes("aws-default-encryption")
def test_a_child_of_a_plain_snapshot_in_an_account_that_encrypts(aws: RealAws, observed: Observed):
    if aws.needs("may_change_defaults") != "yes":
        pytest.skip("changes an account-wide default: IMAGEPORT_REAL_AWS_MAY_CHANGE_DEFAULTS=yes")
    ec2 = aws.clients.ec2
    before = bool(ec2.get_ebs_encryption_by_default()["EbsEncryptionByDefault"])
    cloud = aws.cloud()
    try:
        ec2.disable_ebs_encryption_by_default()
        parent = uploaded(cloud, BLOCKS, token="parent")
        ec2.enable_ebs_encryption_by_default()
        child = uploaded(cloud, BLOCKS, token="child", parent=parent)
    finally:
        change = (
            ec2.enable_ebs_encryption_by_default
            if before
            else (ec2.disable_ebs_encryption_by_default)
        )
        change()
    facts = [describe_snapshot(aws.account(), item) for item in (parent, child)]
    observed(f"encrypted: parent {facts[0].encrypted}, child {facts[1].encrypted}")  # type: ignore[union-attr]
    assert facts[1] is not None
    assert facts[1].encrypted


@probes("aws-start-snapshot-tags")
def test_tags_at_the_start_of_a_snapshot_under_a_narrow_policy(aws: RealAws, observed: Observed):
    region = aws.named["region"]
    where = f"arn:aws:ec2:{region}::snapshot/*"
    ours = {"StringEquals": {f"aws:RequestTag/{TAG_SITE}": aws.site}}
    outcomes: dict[str, str] = {}
    narrow: dict[str, Any] = {
        "docs": ours | {"StringNotEquals": {"ec2:CreateAction": "CreateTags"}},
        "StartSnapshot": {
            "StringEquals": ours["StringEquals"] | {"ec2:CreateAction": "StartSnapshot"}
        },
    }
    for name, condition in narrow.items():
        session = aws.restricted(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {"Effect": "Allow", "Action": "ebs:StartSnapshot", "Resource": where,
                     "Condition": ours},
                    {"Effect": "Allow", "Action": "ec2:CreateTags", "Resource": where,
                     "Condition": condition},
                ],
            }
        )  # fmt: skip
        client = session.client("ebs")
        try:
            client.start_snapshot(
                VolumeSize=1, Timeout=10, Tags=[{"Key": TAG_SITE, "Value": aws.site}]
            )
            outcomes[name] = "allowed"
        except client.exceptions.AccessDeniedException:
            outcomes[name] = "denied"
        finally:
            client.close()
    observed(f"{outcomes}: when StartSnapshot is allowed too, the policy can be narrower")
    assert outcomes["docs"] == "allowed"


@probes("aws-error-codes")
def test_refusals_have_the_codes_that_the_emulator_gives(aws: RealAws, observed: Observed):
    account, ec2 = aws.account(), aws.clients.ec2
    found: dict[str, str] = {}

    def code_of(name: str, call: Any) -> None:
        try:
            call()
            found[name] = "allowed"
        except ClientError as error:
            found[name] = error.response["Error"]["Code"]

    image = find_engine_image(account)
    plan = LaunchPlan(
        image.id, account.settings.engine_instance_type, engine_group(account), "stop"
    )
    intent = account.intend("instance", "probe", aws.site)
    instance_id = launch(account, intent, plan)
    ec2.get_waiter("instance_running").wait(InstanceIds=[instance_id])
    facts = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    root = facts["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    code_of("detach a running root", lambda: ec2.detach_volume(VolumeId=root))
    ec2.stop_instances(InstanceIds=[instance_id], Force=True)
    ec2.get_waiter("instance_stopped").wait(InstanceIds=[instance_id])
    ec2.detach_volume(VolumeId=root)
    ec2.get_waiter("volume_available").wait(VolumeIds=[root])
    code_of("start without a root", lambda: ec2.start_instances(InstanceIds=[instance_id]))
    start = {"VolumeSize": 1, "ClientToken": aws.site, "Timeout": 10,
             "Tags": [{"Key": TAG_SITE, "Value": aws.site}]}  # fmt: skip
    ebs: Any = aws.clients.ebs
    gone = ebs.start_snapshot(**start)["SnapshotId"]
    ec2.delete_snapshot(SnapshotId=gone)
    code_of("token of a deleted snapshot", lambda: ebs.start_snapshot(**start))
    observed(str(found))
    assert found == {
        "detach a running root": "OperationNotPermitted",
        "start without a root": "InvalidParameterValue",
        "token of a deleted snapshot": "ConflictException",
    }
