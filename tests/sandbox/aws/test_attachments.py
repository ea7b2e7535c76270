"""Attaching, detaching and swapping roots by AWS's rules."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

BLOCK = 512 * 1024


@pytest.fixture
def machine(account: Any, network: Any):
    """Return a running machine with an empty root."""
    image_id = network.stub(f"stub-{uuid.uuid4().hex}")
    instance_id = network.run(image_id, network.group("idle", isolated=True))
    account.until_state(instance_id, "running")
    yield instance_id
    account.ec2.terminate_instances(InstanceIds=[instance_id])
    account.until_state(instance_id, "terminated")


def root_of(account: Any, instance_id: str):
    mappings = account.instance(instance_id)["BlockDeviceMappings"]
    return next(item["Ebs"]["VolumeId"] for item in mappings if item["DeviceName"] == "/dev/sda1")


def stop(account: Any, instance_id: str):
    account.ec2.stop_instances(InstanceIds=[instance_id], Force=True)
    return account.until_state(instance_id, "stopped")


def test_an_attachment_goes_through_its_states(account: Any, machine: str):
    volume_id = account.volume()
    answer = account.ec2.attach_volume(VolumeId=volume_id, InstanceId=machine, Device="/dev/sdf")
    assert answer["State"] == "attaching"
    account.until(lambda: account.attachment(volume_id) == "attached")
    assert account.volume_state(volume_id) == "in-use"
    assert account.ec2.detach_volume(VolumeId=volume_id)["State"] == "detaching"
    account.until(lambda: account.volume_state(volume_id) == "available")


def test_an_attached_volume_is_neither_attached_again_nor_deleted(
    account: Any, machine: str, refused: Any
):
    volume_id = account.volume()
    account.attach(volume_id, machine)
    again = {"VolumeId": volume_id, "InstanceId": machine, "Device": "/dev/sdg"}
    assert refused(account.ec2.attach_volume, **again)["code"] == "VolumeInUse"
    assert refused(account.ec2.delete_volume, VolumeId=volume_id)["code"] == "VolumeInUse"


def test_a_device_name_is_used_once(account: Any, machine: str, refused: Any):
    found = refused(
        account.ec2.attach_volume,
        VolumeId=account.volume(),
        InstanceId=machine,
        Device="/dev/sda1",
    )
    assert found["code"] == "InvalidParameterValue"
    assert "already in use" in found["message"]


def test_a_volume_of_another_zone_is_refused(account: Any, machine: str, refused: Any):
    volume_id = account.volume(AvailabilityZone="eu-central-1b")
    found = refused(
        account.ec2.attach_volume, VolumeId=volume_id, InstanceId=machine, Device="/dev/sdf"
    )
    assert found["code"] == "InvalidVolume.ZoneMismatch"


def test_a_free_volume_is_not_detached(account: Any, refused: Any):
    assert refused(account.ec2.detach_volume, VolumeId=account.volume())["code"] == "IncorrectState"


def test_a_running_machine_keeps_its_root(account: Any, machine: str, refused: Any):
    found = refused(account.ec2.detach_volume, VolumeId=root_of(account, machine))
    assert found["code"] == "OperationNotPermitted"


def test_a_machine_without_a_root_does_not_start(account: Any, machine: str, refused: Any):
    root_id = root_of(account, machine)
    stop(account, machine)
    account.detach(root_id)
    found = refused(account.ec2.start_instances, InstanceIds=[machine])
    assert found["code"] == "InvalidParameterValue"
    assert "attached at root (/dev/sda1)" in found["message"]


def test_a_stopped_machine_takes_another_root(account: Any, machine: str):
    root_id = root_of(account, machine)
    stopped = stop(account, machine)
    assert stopped["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    account.detach(root_id)
    account.ec2.delete_volume(VolumeId=root_id)
    volume_id = account.volume()
    account.attach(volume_id, machine, "/dev/sda1")
    account.ec2.start_instances(InstanceIds=[machine])
    account.until_state(machine, "running")
    assert root_of(account, machine) == volume_id


def test_a_machine_in_between_states_refuses_orders(account: Any, machine: str, refused: Any):
    volume_id = account.volume()
    account.service.turn(state_seconds=1.5)
    account.ec2.stop_instances(InstanceIds=[machine], Force=True)
    assert account.instance(machine)["State"]["Name"] == "stopping"
    found = refused(account.ec2.start_instances, InstanceIds=[machine])
    assert found["code"] == "IncorrectInstanceState"
    found = refused(
        account.ec2.attach_volume,
        VolumeId=volume_id,
        InstanceId=machine,
        Device="/dev/sdf",
    )
    assert found["code"] == "IncorrectState"
    account.until_state(machine, "stopped")


def test_termination_deletes_the_root_and_frees_the_other_volumes(
    account: Any, network: Any, refused: Any
):
    image_id = network.stub(f"stub-{uuid.uuid4().hex}")
    group_id = network.group("short", isolated=True)
    instance_id = network.run(image_id, group_id)
    account.until_state(instance_id, "running")
    root_id, volume_id = root_of(account, instance_id), account.volume()
    account.attach(volume_id, instance_id)
    found = refused(account.ec2.delete_security_group, GroupId=group_id)
    assert found["code"] == "DependencyViolation"
    account.ec2.terminate_instances(InstanceIds=[instance_id])
    account.until_state(instance_id, "terminated")
    assert account.volume_state(volume_id) == "available"
    assert refused(account.volume_state, root_id)["code"] == "InvalidVolume.NotFound"
    account.ec2.delete_security_group(GroupId=group_id)
