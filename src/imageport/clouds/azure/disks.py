"""Managed disks: open for upload, made from a snapshot, attached or free, deleted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from azure.mgmt.compute.models import (
    CreationData,
    Disk,
    DiskProperties,
    DiskSku,
    Encryption,
    SupportedCapabilities,
)

from imageport.cloud import Cancelled, CloudDisk, never
from imageport.clouds.azure.access_grant import end_access
from imageport.clouds.azure.account import AzureAccount
from imageport.clouds.azure.error_mapping import asked
from imageport.clouds.azure.names import DISKS, resource_id, resource_name
from imageport.clouds.azure.waiting import finished, wait_for
from imageport.clouds.intents import Intent
from imageport.errors import CloudRefused, ResourceGone

READY_SECONDS = 600.0
DELETE_SECONDS = 300.0
UPLOADING: Final = frozenset({"ReadyToUpload", "ActiveUpload"})
WITH_ACCESS: Final = frozenset({"ActiveSAS", "ActiveSASFrozen", "ActiveUpload"})
"""States in which somebody holds a signed URL: neither deleted nor attached meanwhile."""
CONTROLLERS: Final = "SCSI, NVMe"
"""Prepared images have drivers for both, so machines of every series may boot them."""
CUSTOMER_KEY: Final = "EncryptionAtRestWithCustomerKey"


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """What Azure tells about a managed disk."""

    id: str
    state: str
    """DiskState: ``ReadyToUpload``, ``ActiveUpload``, ``Unattached``, ``Attached`` …"""
    provisioning: str
    """``Succeeded`` when no operation runs on it; ``Creating``, ``Updating``, ``Failed`` …"""
    size_bytes: int
    machine_id: str
    """Of the machine that has it, or ""."""


def describe_disk(account: AzureAccount, disk_id: str) -> DiskFacts | None:
    """Return the disk's facts, or None when it does not exist."""
    named = account.own(disk_id, DISKS)
    try:
        with asked("Microsoft.Compute/disks/read", disk_id):
            found = account.clients.compute.disks.get(named.group, named.name)
    except ResourceGone:
        return None
    properties: Any = found.properties
    return DiskFacts(
        id=disk_id,
        state=str(getattr(properties.disk_state, "value", properties.disk_state) or ""),
        provisioning=str(properties.provisioning_state or ""),
        size_bytes=int(properties.disk_size_bytes or 0),
        machine_id=found.managed_by or "",
    )


def create_upload_disk(account: AzureAccount, disk_id: str, intent: Intent, size: int) -> None:
    """Create a disk that waits for ``size`` bytes, its footer among them; again is harmless."""
    creation = CreationData(create_option="Upload", upload_size_bytes=size)
    settings = account.settings
    body = Disk(
        location=settings.location,
        tags=intent.tags,
        sku=DiskSku(name=settings.upload_disk_sku),
        properties=DiskProperties(
            creation_data=creation,
            os_type="Windows",
            hyper_v_generation="V2",
            supported_capabilities=capabilities(),
            **access_properties(account),
        ),
    )
    _create(account, disk_id, body)


def make_disk(account: AzureAccount, snapshot_id: str, disk_guid: str) -> CloudDisk:
    """Make a working disk from a snapshot; finds the one of a killed call."""
    intent = account.intend("disk", "work", account.run, snapshot_id.lower())
    settings = account.settings
    known = intent.entry.resource_id
    disk_id = known or resource_id(settings, DISKS, resource_name(intent))
    facts = describe_disk(account, disk_id)
    if facts is not None and facts.provisioning == "Failed":
        delete_disk(account, disk_id)
    if (known and facts is None) or (facts is not None and facts.provisioning == "Failed"):
        account.void(intent)
        return make_disk(account, snapshot_id, disk_guid)
    if facts is None:
        creation = CreationData(create_option="Copy", source_resource_id=snapshot_id)
        body = Disk(
            location=settings.location,
            tags=intent.tags,
            sku=DiskSku(name=settings.disk_sku),
            zones=[settings.zone] if settings.zone else None,
            properties=DiskProperties(
                creation_data=creation,
                os_type="Windows",
                hyper_v_generation="V2",
                supported_capabilities=capabilities(),
                **access_properties(account),
            ),
        )
        _create(account, disk_id, body)
    account.record(intent, disk_id)
    ready = wait_for(disk_id, lambda: _ready(account, disk_id), READY_SECONDS, pulse=account.live)
    return CloudDisk(disk_id, ready.size_bytes, disk_guid)


def disk_state(account: AzureAccount, disk_id: str) -> str | None:
    """Return ``Unattached``, ``Attached`` …, or None when there is no such disk."""
    facts = describe_disk(account, disk_id)
    return None if facts is None else facts.state


def attached_to(account: AzureAccount, disk_id: str) -> str:
    """Return the id of the machine that has the disk, or ""."""
    facts = describe_disk(account, disk_id)
    return "" if facts is None else facts.machine_id


def wait_free(
    account: AzureAccount, disk_id: str, deadline_seconds: float, *, cancelled: Cancelled = never
) -> None:
    """Wait until no machine has the disk; one that is gone is free."""

    def check() -> bool | None:
        facts = describe_disk(account, disk_id)
        return True if facts is None or not facts.machine_id else None

    wait_for(disk_id, check, deadline_seconds, pulse=account.live, cancelled=cancelled)


def delete_disk(account: AzureAccount, disk_id: str) -> None:
    """Delete a disk, ending access to it first; a gone one is no error.

    A machine that is just ending, and an operation that still runs, are waited for.
    """
    if disk_state(account, disk_id) in WITH_ACCESS:
        _end_upload(account, disk_id)
    wait_free(account, disk_id, 120.0)
    named = account.own(disk_id, DISKS)
    action = "Microsoft.Compute/disks/delete"

    def once() -> bool | None:
        try:
            with asked(action, disk_id):
                poller = account.clients.compute.disks.begin_delete(named.group, named.name)
            finished(account, poller, action, disk_id)
        except ResourceGone:
            pass
        return True

    wait_for(disk_id, once, DELETE_SECONDS, pulse=account.live)
    account.mark(disk_id, "deleted")


def capabilities() -> SupportedCapabilities:
    """Return what machines made from the disk may use."""
    return SupportedCapabilities(disk_controller_types=CONTROLLERS, architecture="x64")


def access_properties(account: AzureAccount) -> dict[str, Any]:
    """Return who may reach a disk's or snapshot's bytes and whose key encrypts them."""
    settings = account.settings
    chosen: dict[str, Any] = {"network_access_policy": settings.network_access_policy}
    if settings.disk_access_id:
        chosen["disk_access_id"] = settings.disk_access_id
        chosen["public_network_access"] = "Disabled"
    if settings.disk_encryption_set_id:
        chosen["encryption"] = Encryption(
            type=CUSTOMER_KEY, disk_encryption_set_id=settings.disk_encryption_set_id
        )
    return chosen


def _create(account: AzureAccount, disk_id: str, body: Disk) -> None:
    named = account.own(disk_id, DISKS)
    action = "Microsoft.Compute/disks/write"
    with asked(action, disk_id):
        poller = account.clients.compute.disks.begin_create_or_update(named.group, named.name, body)
    finished(account, poller, action, disk_id)


def _ready(account: AzureAccount, disk_id: str) -> DiskFacts | None:
    facts = describe_disk(account, disk_id)
    if facts is None or facts.provisioning == "Failed":
        found = "nothing" if facts is None else "state Failed"
        raise ResourceGone(f"Bad disk '{disk_id}': found {found}, needed Succeeded.")
    return facts if facts.provisioning == "Succeeded" else None


def _end_upload(account: AzureAccount, disk_id: str) -> None:
    """End the access; that Azure takes what was uploaded for no disk is no matter here."""
    try:
        end_access(account, disk_id)
    except CloudRefused as error:
        if "VHD" not in error.message:
            raise
