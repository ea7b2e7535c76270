"""Working volumes: made from a snapshot, attached to a machine, detached, deleted."""

from __future__ import annotations

from typing import Any, Final

from imageport.cloud import Cancelled, CloudDisk, never
from imageport.clouds.aws.account import Account, specifications
from imageport.clouds.aws.error_mapping import asked, done_already
from imageport.clouds.aws.network import zone_of
from imageport.clouds.intents import Intent
from imageport.clouds.waiting import wait_for
from imageport.errors import CloudRefused, ResourceGone
from imageport.model import GIB

VOLUME_TYPE: Final = "gp3"
READY_SECONDS = 600.0


def make_disk(account: Account, snapshot_id: str, disk_guid: str) -> CloudDisk:
    """Make a volume from a snapshot; finds the one of a killed call."""
    if not account.settings.availability_zone:
        account.settings.require("subnet_id")
    intent = account.intend("volume", "work", account.run, snapshot_id)
    if intent.entry.resource_id and volume_state(account, intent.entry.resource_id) is None:
        account.void(intent)
        intent = account.intend("volume", "work", account.run, snapshot_id)
    volume_id = intent.entry.resource_id or _create_volume(account, intent, snapshot_id)
    account.record(intent, volume_id)
    volume = wait_for(
        volume_id, lambda: _ready_volume(account, volume_id), READY_SECONDS, pulse=account.live
    )
    return CloudDisk(volume_id, int(volume["Size"]) * GIB, disk_guid)


def volume_state(account: Account, volume_id: str) -> str | None:
    """Return ``available``, ``in-use`` …, or None when there is no such volume."""
    volume = _describe_volume(account, volume_id)
    return None if volume is None else str(volume["State"])


def attached_to(account: Account, volume_id: str) -> str:
    """Return the id of the instance the volume is attached to, or ""."""
    volume = _describe_volume(account, volume_id) or {}
    live = [item for item in volume.get("Attachments", []) if item["State"] != "detached"]
    return str(live[0]["InstanceId"]) if live else ""


def attach(account: Account, volume_id: str, instance_id: str, device: str) -> None:
    """Attach a volume and wait until it is."""
    if attached_to(account, volume_id) != instance_id:
        # In use by whom, the wait below finds out.
        with done_already("VolumeInUse"), asked("ec2:AttachVolume", volume_id):
            account.clients.ec2.attach_volume(
                VolumeId=volume_id, InstanceId=instance_id, Device=device
            )

    def check() -> bool | None:
        volume = _describe_volume(account, volume_id) or {}
        held = [(item["InstanceId"], item["State"]) for item in volume.get("Attachments", [])]
        others = [holder for holder, _ in held if holder != instance_id]
        if others:
            raise CloudRefused(
                f"Cannot attach '{volume_id}': found it at {others[0]}, needed it free.",
                aws_code="VolumeInUse",
            )
        return True if (instance_id, "attached") in held else None

    wait_for(volume_id, check, READY_SECONDS, pulse=account.live)


def detach(account: Account, volume_id: str, *, deadline_seconds: float = READY_SECONDS) -> None:
    """Detach a volume from a stopped or ended machine; a free one is no error."""
    instance_id = attached_to(account, volume_id)
    if instance_id:
        try:
            with asked("ec2:DetachVolume", volume_id):
                account.clients.ec2.detach_volume(VolumeId=volume_id, InstanceId=instance_id)
        except CloudRefused as error:
            # A machine that ends meanwhile lets go of it by itself.
            if error.fields.get("aws_code") not in {"IncorrectState", "InvalidAttachment.NotFound"}:
                raise
        except ResourceGone:
            pass
    wait_free(account, volume_id, deadline_seconds)


def wait_free(
    account: Account, volume_id: str, deadline_seconds: float, *, cancelled: Cancelled = never
) -> None:
    """Wait until no machine holds the volume; one that is gone is free."""

    def check() -> bool | None:
        return True if volume_state(account, volume_id) in {"available", "error", None} else None

    wait_for(volume_id, check, deadline_seconds, pulse=account.live, cancelled=cancelled)


def delete_volume(account: Account, volume_id: str) -> None:
    """Delete a volume, waiting for a machine that is just ending; a gone one is no error."""
    wait_free(account, volume_id, 120.0)
    try:
        with asked("ec2:DeleteVolume", volume_id):
            account.clients.ec2.delete_volume(VolumeId=volume_id)
    except ResourceGone:
        pass
    account.mark(volume_id, "deleted")


def _create_volume(account: Account, intent: Intent, snapshot_id: str) -> str:
    settings = account.settings
    chosen: dict[str, Any] = {}
    if settings.encrypted:
        chosen["Encrypted"] = True
        if settings.kms_key_id:
            chosen["KmsKeyId"] = settings.kms_key_id
    with asked("ec2:CreateVolume", snapshot_id):
        answer = account.clients.ec2.create_volume(
            SnapshotId=snapshot_id,
            AvailabilityZone=settings.availability_zone or zone_of(account, settings.subnet_id),
            VolumeType=VOLUME_TYPE,
            ClientToken=intent.client_token,
            TagSpecifications=specifications(intent, "volume"),
            **chosen,
        )
    return answer["VolumeId"]


def _describe_volume(account: Account, volume_id: str) -> dict[str, Any] | None:
    try:
        with asked("ec2:DescribeVolumes", volume_id):
            answer = account.clients.ec2.describe_volumes(VolumeIds=[volume_id])
    except ResourceGone:
        return None
    found: list[Any] = [item for item in answer["Volumes"] if item["State"] != "deleted"]
    return dict(found[0]) if found else None


def _ready_volume(account: Account, volume_id: str) -> dict[str, Any] | None:
    volume = _describe_volume(account, volume_id)
    if volume is not None and volume["State"] == "error":
        raise ResourceGone(f"Bad volume '{volume_id}': found state error, needed available.")
    ready = volume is not None and volume["State"] in {"available", "in-use"}
    return volume if ready else None
