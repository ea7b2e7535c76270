"""Managed snapshots: state, completion, a copy of a disk, deletion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from azure.mgmt.compute.models import CreationData, Snapshot, SnapshotProperties, SnapshotSku

from imageport.clouds.azure.access_grant import end_access
from imageport.clouds.azure.account import AzureAccount
from imageport.clouds.azure.disks import WITH_ACCESS, access_properties, capabilities
from imageport.clouds.azure.error_mapping import asked
from imageport.clouds.azure.names import SNAPSHOTS, resource_id, resource_name
from imageport.clouds.azure.waiting import finished, wait_for
from imageport.clouds.intents import Intent
from imageport.clouds.tags import ROLE_PREPARED
from imageport.errors import ResourceGone

SNAPSHOT_SKU = "Standard_LRS"
"""Billed by used bytes and per GiB the cheapest; disks of every kind are made from it."""
DELETE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    """What Azure tells about a managed snapshot."""

    id: str
    provisioning: str
    percent: float
    """How much of the copy in the background is done; disks are made from it at 100."""
    state: str
    """DiskState: ``Unattached``, ``ActiveSAS`` …"""
    size_bytes: int
    encryption_set_id: str

    @property
    def failed(self) -> bool:
        """Tell whether Azure gave it up: it never becomes complete."""
        return self.provisioning in {"Failed", "Canceled"}

    @property
    def complete(self) -> bool:
        """Tell whether it can be used."""
        return self.provisioning == "Succeeded" and self.percent >= 100.0

    @property
    def readable(self) -> bool:
        """Tell whether one that was complete still is, whatever Azure changes about it.

        It shows ``Updating`` while its tags, or who may read it, are being changed.
        """
        return self.provisioning in {"Succeeded", "Updating"} and self.percent >= 100.0


def describe_snapshot(account: AzureAccount, snapshot_id: str) -> SnapshotFacts | None:
    """Return the snapshot's facts, or None when it does not exist."""
    named = account.own(snapshot_id, SNAPSHOTS)
    try:
        with asked("Microsoft.Compute/snapshots/read", snapshot_id):
            found = account.clients.compute.snapshots.get(named.group, named.name)
    except ResourceGone:
        return None
    properties: Any = found.properties
    percent = properties.completion_percent
    encryption = properties.encryption
    return SnapshotFacts(
        id=snapshot_id,
        provisioning=str(properties.provisioning_state or ""),
        # Absent where nothing is copied in the background: then Succeeded says it all.
        percent=100.0 if percent is None else float(percent),
        state=str(getattr(properties.disk_state, "value", properties.disk_state) or ""),
        size_bytes=int(properties.disk_size_bytes or 0),
        encryption_set_id=(encryption.disk_encryption_set_id or "") if encryption else "",
    )


def wait_completed(account: AzureAccount, snapshot_id: str) -> SnapshotFacts:
    """Wait until the snapshot can be used.

    Raises:
        ResourceGone: it was deleted, or Azure gave it up.
        CloudUnavailable: not complete by the deadline of the settings.
    """

    def check() -> SnapshotFacts | None:
        facts = describe_snapshot(account, snapshot_id)
        if facts is None or facts.failed:
            found = "nothing" if facts is None else f"state {facts.provisioning}"
            raise ResourceGone(f"Bad snapshot '{snapshot_id}': found {found}, needed Succeeded.")
        return facts if facts.complete else None

    deadline = account.settings.snapshot_deadline_seconds
    return wait_for(snapshot_id, check, deadline, pulse=account.live)


def snapshot_disk(account: AzureAccount, disk_id: str, name: str) -> str:
    """Snapshot a disk, wait until it is complete and return the id; finds a killed call's."""
    intent = account.intend("snapshot", ROLE_PREPARED, account.run, disk_id.lower(), name=name)
    known = intent.entry.resource_id
    snapshot_id = known or resource_id(account.settings, SNAPSHOTS, resource_name(intent))
    facts = describe_snapshot(account, snapshot_id)
    if facts is not None and facts.failed:
        delete_snapshot(account, snapshot_id)
    if (known and facts is None) or (facts is not None and facts.failed):
        account.void(intent)
        return snapshot_disk(account, disk_id, name)
    if facts is None:
        create_snapshot(account, snapshot_id, intent, disk_id)
    account.record(intent, snapshot_id)
    wait_completed(account, snapshot_id)
    return snapshot_id


def create_snapshot(account: AzureAccount, snapshot_id: str, intent: Intent, disk_id: str) -> None:
    """Create an incremental snapshot of a disk; the same name again is the same snapshot."""
    named = account.own(snapshot_id, SNAPSHOTS)
    action = "Microsoft.Compute/snapshots/write"
    creation = CreationData(create_option="Copy", source_resource_id=disk_id)
    body = Snapshot(
        location=account.settings.location,
        tags=intent.tags,
        sku=SnapshotSku(name=SNAPSHOT_SKU),
        properties=SnapshotProperties(
            creation_data=creation,
            incremental=True,
            os_type="Windows",
            hyper_v_generation="V2",
            supported_capabilities=capabilities(),
            **access_properties(account),
        ),
    )
    with asked(action, snapshot_id):
        poller = account.clients.compute.snapshots.begin_create_or_update(
            named.group, named.name, body
        )
    finished(account, poller, action, snapshot_id)


def delete_snapshot(account: AzureAccount, snapshot_id: str) -> None:
    """Delete a snapshot, ending access to it first; one that is gone is no error."""
    facts = describe_snapshot(account, snapshot_id)
    if facts is not None and facts.state in WITH_ACCESS:
        end_access(account, snapshot_id)
    named = account.own(snapshot_id, SNAPSHOTS)
    action = "Microsoft.Compute/snapshots/delete"

    def once() -> bool:
        try:
            with asked(action, snapshot_id):
                poller = account.clients.compute.snapshots.begin_delete(named.group, named.name)
            finished(account, poller, action, snapshot_id)
        except ResourceGone:
            pass
        return True

    wait_for(snapshot_id, once, DELETE_SECONDS, pulse=account.live)
    account.mark(snapshot_id, "deleted")
