"""Images keep what they were registered with and hold their snapshot."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

BLOCK = 512 * 1024


def test_an_image_keeps_boot_mode_tpm_and_snapshot(account: Any, network: Any):
    image_id = network.stub(f"stub-{uuid.uuid4().hex}")
    image = account.ec2.describe_images(ImageIds=[image_id])["Images"][0]
    assert (image["BootMode"], image["TpmSupport"], image["EnaSupport"]) == ("uefi", "v2.0", True)
    assert image["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 1
    snapshot_id = image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    assert account.snapshot_state(snapshot_id) == "completed"


def test_a_snapshot_under_an_image_is_not_deleted(account: Any, network: Any, refused: Any):
    image_id = network.stub(f"stub-{uuid.uuid4().hex}")
    image = account.ec2.describe_images(ImageIds=[image_id])["Images"][0]
    snapshot_id = image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    found = refused(account.ec2.delete_snapshot, SnapshotId=snapshot_id)
    assert found["code"] == "InvalidSnapshot.InUse"
    account.ec2.deregister_image(ImageId=image_id)
    account.ec2.delete_snapshot(SnapshotId=snapshot_id)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"BootMode": "legacy-bios"}, "InvalidParameterCombination"),
        ({"RootDeviceName": "/dev/xvda"}, "InvalidBlockDeviceMapping"),
    ],
)
def test_images_that_would_not_boot_are_refused(
    account: Any, refused: Any, changes: Any, code: str
):
    snapshot_id = account.snapshot({0: bytes(BLOCK)})
    request = {
        "Name": f"stub-{uuid.uuid4().hex}",
        "Architecture": "x86_64",
        "VirtualizationType": "hvm",
        "BootMode": "uefi",
        "TpmSupport": "v2.0",
        "RootDeviceName": "/dev/sda1",
        "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot_id}}],
    }
    assert refused(account.ec2.register_image, **(request | changes))["code"] == code


def test_a_name_is_used_once(network: Any, refused: Any):
    network.stub("stub-one-name")
    assert refused(network.stub, "stub-one-name")["code"] == "InvalidAMIName.Duplicate"


def test_an_image_of_a_pending_snapshot_is_refused(account: Any, refused: Any):
    pending = account.start()
    found = refused(
        account.ec2.register_image,
        Name=f"stub-{uuid.uuid4().hex}",
        RootDeviceName="/dev/sda1",
        BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": pending}}],
    )
    assert found["code"] == "InvalidSnapshot.InProgress"


def test_debian_publishes_an_image_for_the_engine(account: Any):
    found = account.ec2.describe_images(
        Owners=["136693071363"],
        Filters=[
            {"Name": "name", "Values": ["debian-12-amd64-*"]},
            {"Name": "state", "Values": ["available"]},
        ],
    )["Images"]
    assert [(item["Architecture"], item["RootDeviceName"]) for item in found] == [
        ("x86_64", "/dev/xvda")
    ]


def test_an_image_that_does_not_exist_launches_nothing(network: Any, refused: Any):
    group_id = network.group("no-image", isolated=True)
    found = refused(network.run, "ami-0123456789abcdef0", group_id)
    assert found["code"] == "InvalidAMIID.NotFound"
