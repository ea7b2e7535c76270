# References: Amazon EC2 API: CreateVolume, AttachVolume, DetachVolume, DeleteVolume, "Error codes".
"""Volumes: sparse files made from blocks, and AWS's rules for attaching them."""

from __future__ import annotations

import threading
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError, InvalidVolumeAttachmentError
from moto.ec2.models.elastic_block_store import EBSBackend, Volume, VolumeAttachment
from moto.ec2.models.instances import Instance
from moto.ec2.responses.elastic_block_store import ElasticBlockStore

from imageport.model import GIB
from imageport.sandbox.aws.client_tokens import idempotent
from imageport.sandbox.aws.emulator import Emulator, current, device_name
from imageport.sandbox.aws.moto_patches import replaces, replaces_property
from imageport.sandbox.aws.snapshot_store import assemble
from imageport.sandbox.machines.sparse_files import create_sparse

_moto_create_volume = EBSBackend.create_volume
_moto_attach_volume = EBSBackend.attach_volume
_moto_delete_volume = EBSBackend.delete_volume
_moto_create_volume_response = ElasticBlockStore.create_volume


@replaces_property(Volume, "status", "moto has neither creating nor error")
def _status(self: Volume) -> str:
    return "in-use" if self.attachment else current().volume_states.get(self.id, "available")


@replaces(ElasticBlockStore, "create_volume", "moto ignores ClientToken")
def _create_volume_response(self: ElasticBlockStore) -> ActionResult:
    return idempotent(self, "CreateVolume", lambda: _moto_create_volume_response(self))


@replaces(EBSBackend, "create_volume", "moto makes no disk, and one of any size from any snapshot")
def _create_volume(
    self: Any, size: int | None, zone_name: str, snapshot_id: str | None = None, **chosen: Any
) -> Volume:
    emulator = current()
    if self.get_zone_by_name(zone_name) is None:
        raise EC2ClientError("InvalidZone.NotFound", f"The zone '{zone_name}' does not exist.")
    least = 1
    if snapshot_id:
        shown = self.get_snapshot(snapshot_id)
        if shown.status != "completed":
            raise EC2ClientError("IncorrectState", f"Snapshot {snapshot_id} is not 'completed'.")
        least = int(shown.volume_size)
    if size is not None and int(size) < least:
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Volume of {size}GiB is smaller than snapshot '{snapshot_id}', "
            f"expect size >= {least}GiB",
        )
    if size is None and not snapshot_id:
        raise EC2ClientError("MissingParameter", "The request must contain size or snapshotId.")
    with emulator.lock:
        volume = _moto_create_volume(self, int(size or least), zone_name, snapshot_id, **chosen)
        emulator.volume_states[volume.id] = "creating"
    threading.Thread(target=_fill, args=(emulator, volume), daemon=True).start()
    return volume


def _fill(emulator: Emulator, volume: Volume) -> None:
    """Make the disk; EBS shows a volume as ``creating`` for as long."""
    path = emulator.volume_path(volume.id)
    state = "error"
    try:
        stored = emulator.snapshots.get(volume.snapshot_id) if volume.snapshot_id else None
        if stored is None:
            create_sparse(path, int(volume.size) * GIB)
        else:
            emulator.lineage[volume.id] = stored.facts.id
            assemble(stored, path, int(volume.size) * GIB)
        state = "available"
    finally:
        emulator.later(lambda: emulator.volume_states.__setitem__(volume.id, state))


@replaces(EBSBackend, "delete_volume", "moto leaves nothing to remove; here there is a file")
def _delete_volume(self: Any, volume_id: str) -> Volume:
    emulator = current()
    with emulator.lock:
        if emulator.volume_states.get(volume_id) == "creating":
            raise EC2ClientError("IncorrectState", f"The volume '{volume_id}' is being created.")
        deleted = _moto_delete_volume(self, volume_id)
        emulator.volume_states.pop(volume_id, None)
        emulator.volume_path(volume_id).unlink(missing_ok=True)
    return deleted


@replaces(Instance, "add_block_device", "a volume of a launch is attached while both are made")
def _add_block_device(  # noqa: PLR0913, PLR0917 - moto's signature
    self: Instance,
    size: int,
    device_path: str,
    snapshot_id: str | None,
    encrypted: bool,
    delete_on_termination: bool,
    kms_key_id: str | None,
    volume_type: str | None,
) -> None:
    volume = self.ec2_backend.create_volume(
        size,
        self.availability_zone,
        snapshot_id,
        encrypted=encrypted,
        kms_key_id=kms_key_id,
        volume_type=volume_type,
    )
    _moto_attach_volume(self.ec2_backend, volume.id, self.id, device_path, delete_on_termination)


@replaces(EBSBackend, "attach_volume", "moto attaches anything to anything, at once")
def _attach_volume(
    self: Any,
    volume_id: str,
    instance_id: str,
    device_path: str,
    delete_on_termination: bool = False,
) -> VolumeAttachment | None:
    emulator = current()
    with emulator.lock:
        volume = self.get_volume(volume_id)
        instance = self.get_instance(instance_id)
        _check_attachable(volume, instance, device_path)
        attachment = _moto_attach_volume(
            self, volume_id, instance_id, device_path, delete_on_termination
        )
        if attachment is None:
            return None
        attachment.status = "attaching"

        def finish() -> None:
            if volume.attachment is attachment and attachment.status == "attaching":
                attachment.status = "attached"
                device = device_name(volume_id)
                emulator.hypervisor.plug(instance_id, device, emulator.volume_path(volume_id))

        emulator.later(finish)
    return attachment


def _check_attachable(volume: Volume, instance: Instance, device: str) -> None:
    if volume.attachment:
        raise EC2ClientError("VolumeInUse", f"{volume.id} is already attached to an instance")
    if volume.status != "available":
        raise EC2ClientError("IncorrectState", f"{volume.id} is not 'available'.")
    if instance.state not in {"running", "stopped"}:
        raise EC2ClientError("IncorrectState", f"Instance '{instance.id}' is not 'running'.")
    if volume.availability_zone != instance.availability_zone:
        raise EC2ClientError(
            "InvalidVolume.ZoneMismatch",
            f"The volume '{volume.id}' is not in the same availability zone as instance "
            f"'{instance.id}'",
        )
    if device in instance.block_device_mapping:
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use",
        )


@replaces(EBSBackend, "detach_volume", "moto takes the root from a running machine, at once")
def _detach_volume(
    self: Any, volume_id: str, instance_id: str | None, device_path: str | None
) -> VolumeAttachment:
    emulator = current()
    with emulator.lock:
        volume = self.get_volume(volume_id)
        attachment = volume.attachment
        if attachment is None:
            raise EC2ClientError(
                "IncorrectState", f"Volume '{volume_id}' is in the 'available' state."
            )
        instance = attachment.instance
        if instance_id not in {None, instance.id} or device_path not in {None, attachment.device}:
            raise InvalidVolumeAttachmentError(volume_id, str(instance_id))
        if attachment.status != "attached":
            raise EC2ClientError("IncorrectState", f"Volume '{volume_id}' is {attachment.status}.")
        if attachment.device == instance.root_device_name and instance.state != "stopped":
            raise EC2ClientError(
                "OperationNotPermitted",
                f"Unable to detach root volume '{volume_id}' from instance '{instance.id}'",
            )
        attachment.status = "detaching"
        emulator.hypervisor.unplug(instance.id, device_name(volume_id))
        emulator.later(lambda: let_go(volume))
    return attachment  # type: ignore[no-any-return]


def let_go(volume: Volume) -> None:
    """End a volume's attachment."""
    attachment = volume.attachment
    if attachment is not None:
        attachment.instance.block_device_mapping.pop(attachment.device, None)
        attachment.status = "detached"
        volume.attachment = None
