"""The stub: a machine image with an empty disk, whose root is swapped for the composed volume.

EC2 boots only what an image gave a machine as root; detaching that root from a stopped machine
and attaching another volume in its place is the documented way to boot an existing volume.
"""

from __future__ import annotations

import base64
import hashlib

from imageport.clouds.aws.account import Account, specifications, tag_list
from imageport.clouds.aws.block_client import BlockClient
from imageport.clouds.aws.error_mapping import asked, done_already
from imageport.clouds.aws.snapshots import delete_snapshot, describe_snapshot, wait_completed
from imageport.clouds.waiting import retried, wait_for
from imageport.errors import CloudUnavailable, ResourceGone
from imageport.model import ZERO_BLOCK, ZERO_DIGEST

ROOT_DEVICE = "/dev/sda1"
TIMEOUT_MINUTES = 10
START_SECONDS = 120.0


def make_stub_image(account: Account, disk_id: str) -> tuple[str, str]:
    """Return (image id, snapshot id) of a stub for ``disk_id``; finds those of a killed call."""
    snapshot_id = _empty_snapshot(account, disk_id)
    intent = account.intend("machine-image", "stub", account.run, disk_id)
    name = f"imageport-stub-{intent.client_token[:16]}"
    image_id = _find_image(account, name)
    if not image_id:
        with done_already("InvalidAMIName.Duplicate"), asked("ec2:RegisterImage", name):
            account.clients.ec2.register_image(
                Name=name,
                Description="imageport: empty disk, replaced before the first boot",
                Architecture="x86_64",
                VirtualizationType="hvm",
                BootMode="uefi",
                TpmSupport="v2.0",
                EnaSupport=True,
                RootDeviceName=ROOT_DEVICE,
                BlockDeviceMappings=[
                    {
                        "DeviceName": ROOT_DEVICE,
                        "Ebs": {
                            "SnapshotId": snapshot_id,
                            "VolumeSize": 1,
                            "VolumeType": "gp3",
                            "DeleteOnTermination": True,
                        },
                    }
                ],
                TagSpecifications=specifications(intent, "image"),
            )
        image_id = wait_for(name, lambda: _find_image(account, name) or None, START_SECONDS)
    account.record(intent, image_id)
    return image_id, snapshot_id


def delete_stub_image(account: Account, image_id: str, snapshot_id: str) -> None:
    """Deregister the image and delete its snapshot; gone ones are no error."""
    deregister(account, image_id)
    delete_snapshot(account, snapshot_id)


def deregister(account: Account, image_id: str) -> None:
    """Deregister an image; one that is gone is no error."""
    try:
        with asked("ec2:DeregisterImage", image_id):
            account.clients.ec2.deregister_image(ImageId=image_id)
    except ResourceGone:
        pass
    account.mark(image_id, "deleted")


def _empty_snapshot(account: Account, disk_id: str) -> str:
    """Return a completed 1 GiB snapshot with one block of zeros: the least that AWS accepts."""
    intent = account.intend("snapshot", "stub", account.run, disk_id)
    snapshot_id = intent.entry.resource_id
    if snapshot_id:
        facts = describe_snapshot(account, snapshot_id)
        if facts is None or facts.state == "error":
            account.void(intent)
            return _empty_snapshot(account, disk_id)
        if facts.state == "completed":
            return snapshot_id
    else:
        with asked("ebs:StartSnapshot", "stub"):
            answer = account.clients.ebs.start_snapshot(
                VolumeSize=1,
                ClientToken=intent.client_token,
                Description="imageport: empty disk",
                Tags=tag_list(intent),
                Timeout=TIMEOUT_MINUTES,
            )
        snapshot_id = answer["SnapshotId"]
        account.record(intent, snapshot_id)
    _fill(account, snapshot_id)
    return snapshot_id


def _fill(account: Account, snapshot_id: str) -> None:
    client = BlockClient(account.clients)

    def put() -> None:
        try:
            client.put(snapshot_id, 0, ZERO_BLOCK, ZERO_DIGEST)
        except ResourceGone as error:
            # A new snapshot may be unknown to the block servers for minutes.
            raise CloudUnavailable(error.message, **error.fields) from error

    retried(put, attempts=60, budget_seconds=START_SECONDS)
    linear = hashlib.sha256(ZERO_DIGEST).digest()
    with asked("ebs:CompleteSnapshot", snapshot_id):
        account.clients.ebs.complete_snapshot(
            SnapshotId=snapshot_id,
            ChangedBlocksCount=1,
            Checksum=base64.b64encode(linear).decode(),
            ChecksumAlgorithm="SHA256",
            ChecksumAggregationMethod="LINEAR",
        )
    wait_completed(account, snapshot_id)


def _find_image(account: Account, name: str) -> str:
    with asked("ec2:DescribeImages", name):
        answer = account.clients.ec2.describe_images(
            Owners=["self"], Filters=[{"Name": "name", "Values": [name]}]
        )
    return answer["Images"][0]["ImageId"] if answer["Images"] else ""
