# References: Compute Engine REST v1, "disks"; "Create a disk from an image".
"""Disks: made from an image or empty, attached or free, deleted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from imageport.cloud import Cancelled, CloudDisk, never
from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.error_mapping import asked
from imageport.clouds.gcp.named_resources import delete, make
from imageport.clouds.gcp.names import (
    description_of,
    disk_type_path,
    labels_of,
    resource_name,
    tags_of,
    zonal_id,
)
from imageport.clouds.intents import Intent
from imageport.clouds.waiting import retried, wait_for
from imageport.errors import ResourceGone
from imageport.model import GIB

if TYPE_CHECKING:
    from google.cloud.compute_v1.types import Disk

READY_SECONDS: Final = 900.0
FREE_SECONDS: Final = 180.0
"""A guest has two minutes to shut down before its machine lets go of a disk."""
READY: Final = "READY"


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """What Google tells about a disk."""

    id: str
    status: str
    """``CREATING``, ``RESTORING``, ``READY``, ``FAILED``, ``DELETING``."""
    size_bytes: int
    machines: tuple[str, ...]
    """Ids of the machines that have it; only one when it may be written."""
    source_image: str
    """Id of the image that it was made from; empty for one that began empty."""
    tags: dict[str, str]
    """Ours, exactly."""

    @property
    def failed(self) -> bool:
        """Tell whether it never becomes ready (any more)."""
        return self.status in {"FAILED", "DELETING"}


def describe_disk(account: GcpAccount, disk_id: str) -> DiskFacts | None:
    """Return the disk's facts, or None when it does not exist."""
    named = account.own(disk_id, "disks")

    def ask() -> Disk:
        with asked("compute.disks.get", disk_id):
            return account.clients.disks.get(
                project=named.project, zone=named.zone, disk=named.name
            )

    try:
        found = retried(ask)
    except ResourceGone:
        return None
    return DiskFacts(
        id=str(named),
        status=found.status,
        size_bytes=found.size_gb * GIB,
        machines=tuple(_path(user) for user in found.users),
        source_image=_path(found.source_image),
        tags=tags_of(found.description, found.labels),
    )


def make_disk(account: GcpAccount, image: str, disk_guid: str) -> CloudDisk:
    """Make a working disk from an image; finds the one of a killed call."""
    intent = account.intend("disk", "work", account.run, image)
    facts = disk_of_intent(account, intent, {"source_image": image})
    if facts is None:
        return make_disk(account, image, disk_guid)
    return CloudDisk(facts.id, facts.size_bytes, disk_guid)


def disk_of_intent(
    account: GcpAccount, intent: Intent, source: dict[str, Any], *, name: str = ""
) -> DiskFacts | None:
    """Make the disk of an intent, or find it, record it and wait for it.

    None when one that was made before is gone or broken: the intent is closed then, and the next
    one makes a new disk. The image's guest OS features come along by themselves.
    """
    known = intent.entry.resource_id
    disk_id = known or zonal_id(account.settings, "disks", name or resource_name(intent))
    facts = describe_disk(account, disk_id)
    broken = facts is not None and facts.failed
    if broken:
        delete_disk(account, disk_id)
    if broken or (known and facts is None):
        account.void(intent)
        return None
    if facts is None:
        _insert(account, disk_id, intent, source)
    account.record(intent, disk_id)
    return wait_for(disk_id, lambda: _ready(account, disk_id), READY_SECONDS, pulse=account.live)


def attached_to(account: GcpAccount, disk_id: str) -> tuple[str, ...]:
    """Return the ids of the machines that have the disk."""
    facts = describe_disk(account, disk_id)
    return () if facts is None else facts.machines


def wait_free(
    account: GcpAccount, disk_id: str, deadline_seconds: float, *, cancelled: Cancelled = never
) -> None:
    """Wait until no machine has the disk; one that is gone is free."""

    def check() -> bool | None:
        return None if attached_to(account, disk_id) else True

    wait_for(disk_id, check, deadline_seconds, pulse=account.live, cancelled=cancelled)


def delete_disk(account: GcpAccount, disk_id: str) -> None:
    """Delete a disk and wait; a gone one is no error, a machine that is just ending waited for."""
    named = account.own(disk_id, "disks")
    wait_free(account, disk_id, FREE_SECONDS)
    disks = account.clients.disks
    delete(
        account,
        "compute.disks.delete",
        str(named),
        lambda: disks.delete_unary(project=named.project, zone=named.zone, disk=named.name),
    )


def _insert(account: GcpAccount, disk_id: str, intent: Intent, source: dict[str, Any]) -> None:
    settings = account.settings
    named = account.own(disk_id, "disks")
    disk: dict[str, Any] = source | {
        "name": named.name,
        "description": description_of(intent.tags),
        "labels": labels_of(settings, intent.tags),
        "type_": disk_type_path(settings),
    }
    if settings.kms_key:
        disk["disk_encryption_key"] = {"kms_key_name": settings.kms_key}
    request = {"project": named.project, "zone": named.zone, "disk_resource": disk}
    make(
        account,
        "compute.disks.create",
        disk_id,
        lambda id_: account.clients.disks.insert_unary(request | {"request_id": id_}),
        deadline_seconds=READY_SECONDS,
    )


def _ready(account: GcpAccount, disk_id: str) -> DiskFacts | None:
    facts = describe_disk(account, disk_id)
    if facts is None or facts.failed:
        found = "nothing" if facts is None else f"status {facts.status}"
        raise ResourceGone(f"Bad disk '{disk_id}': found {found}, needed {READY}.")
    return facts if facts.status == READY else None


def _path(url: str) -> str:
    """Return an id from the URL that Google shows for it; "" stays ""."""
    return url[url.find("projects/") :] if url else ""
