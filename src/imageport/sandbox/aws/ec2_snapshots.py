# References: Amazon EC2 API: CreateSnapshot, DescribeSnapshots, DeleteSnapshot.
"""Snapshots as EC2 tells of them: the truth is the snapshot store, moto only renders it."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.elastic_block_store import EBSBackend, Snapshot, Volume
from moto.ec2.responses.elastic_block_store import ElasticBlockStore

from imageport.sandbox.aws.emulator import ACCOUNT, Emulator, current
from imageport.sandbox.aws.moto_patches import replaces, replaces_property
from imageport.sandbox.aws.snapshot_store import new_id, take_differences
from imageport.sandbox.aws.stored_snapshot import SnapshotFacts, StoredSnapshot

_moto_delete_snapshot = EBSBackend.delete_snapshot
_moto_describe_snapshots = ElasticBlockStore.describe_snapshots


def show_in_ec2(stored: StoredSnapshot, backend: EC2Backend | None = None) -> Snapshot:
    """Make EC2's view of a snapshot; moto's own way would need a volume in the account."""
    facts = stored.facts
    if backend is None:
        backend = ec2_backends[ACCOUNT][facts.region]
    make_volume: Any = Volume  # abstract to mypy: moto leaves CloudFormation's methods out
    volume = make_volume(backend, facts.volume_id, facts.size_gib, zone=None)
    shown = Snapshot(
        backend, facts.id, volume, facts.description, facts.encrypted, owner_id=facts.owner
    )
    shown.kms_key_id = facts.kms_key_id or None
    shown.start_time = datetime.fromtimestamp(facts.started, UTC).replace(tzinfo=None)
    backend.snapshots[facts.id] = shown
    shown.add_tags(facts.tags)
    return shown


def show_saved(emulator: Emulator, backend: EC2Backend) -> None:
    """Show what an earlier emulator left in a region whose backend is just made."""
    for stored in emulator.snapshots.all(backend.region_name):
        if stored.facts.id not in backend.snapshots:
            show_in_ec2(stored, backend)


def keep_tags(emulator: Emulator) -> None:
    """Copy EC2's tags into the store and save it, before the emulator ends."""
    for region, backend in ec2_backends[ACCOUNT].items():
        for stored in emulator.snapshots.all(region):
            shown = backend.snapshots.get(stored.facts.id)
            if shown is not None:
                stored.facts.tags = {tag["key"]: tag["value"] for tag in shown.get_tags()}
    emulator.snapshots.save_completed()


@replaces_property(Snapshot, "status", "moto says completed at once; AWS while it is so")
def _status(self: Snapshot) -> str:
    stored = current().snapshots.get(self.id)
    if stored is None:
        return "error"
    return "pending" if stored.facts.status == "completing" else stored.facts.status


@replaces_property(Snapshot, "progress", "moto says 100% of a pending snapshot")
def _progress(self: Snapshot) -> str:
    return "100%" if self.status == "completed" else "0%"


@replaces(EBSBackend, "create_snapshot", "moto copies no bytes; here the volume's blocks are kept")
def _create_snapshot(
    self: Any,
    volume_id: str,
    description: str,
    owner_id: str | None = None,
    from_ami: str | None = None,
) -> Snapshot:
    del from_ami  # moto's own images, which ec2_images.py replaces
    emulator = current()
    volume = self.get_volume(volume_id)
    if emulator.volume_states.get(volume_id) == "creating":
        raise EC2ClientError("IncorrectState", f"The volume '{volume_id}' is not available.")
    parent = emulator.snapshots.get(emulator.lineage.get(volume_id, ""))
    stored = emulator.snapshots.create(
        SnapshotFacts(
            id=new_id("snap"),
            region=self.region_name,
            owner=owner_id or ACCOUNT,
            size_gib=int(volume.size),
            started=time.time(),
            description=description or "",
            parent_id=parent.facts.id if parent is not None else "",
            volume_id=volume_id,
            encrypted=bool(volume.encrypted),
            kms_key_id=volume.kms_key_id or "",
        )
    )
    emulator.lineage[volume_id] = stored.facts.id
    # Opened now: the volume may be deleted while its snapshot is pending.
    fd = os.open(emulator.volume_path(volume_id), os.O_RDONLY)
    threading.Thread(target=_copy, args=(emulator, stored, fd), daemon=True).start()
    return show_in_ec2(stored)


def _copy(emulator: Emulator, stored: StoredSnapshot, fd: int) -> None:
    try:
        take_differences(stored, fd)
    finally:
        os.close(fd)

    def finish() -> None:
        if not stored.facts.deleted:
            stored.facts.status = "completed"
            stored.save()

    emulator.later(finish, emulator.knobs.complete_seconds)


@replaces(EBSBackend, "delete_snapshot", "moto knows nothing of the stored blocks")
def _delete_snapshot(self: Any, snapshot_id: str) -> Snapshot:
    with current().lock:
        deleted = _moto_delete_snapshot(self, snapshot_id)
        if current().snapshots.get(snapshot_id) is not None:
            current().snapshots.delete(snapshot_id)
    return deleted


@replaces(ElasticBlockStore, "describe_snapshots", "moto ignores OwnerIds")
def _describe_snapshots(self: ElasticBlockStore) -> ActionResult:
    found: Any = _moto_describe_snapshots(self).result
    owners = [ACCOUNT if item == "self" else item for item in self._get_param("OwnerIds", [])]
    shown = found["Snapshots"]
    if owners:
        shown = [item for item in shown if item.owner_id in owners]
    return ActionResult({"Snapshots": shown})
