"""Snapshots as EC2 sees them: state, completion, a copy of a volume, deletion."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime

from imageport.clouds.aws.account import Account, specifications
from imageport.clouds.aws.error_mapping import asked
from imageport.clouds.intents import Intent
from imageport.clouds.tags import ROLE_PREPARED, TAG_TOKEN
from imageport.clouds.waiting import retried, wait_for, wait_until
from imageport.errors import CloudRefused, CloudUnavailable, ResourceGone

LISTED_SECONDS = 5.0
UNKNOWN_SECONDS = 30.0
"""EC2 is eventually consistent: a snapshot made a moment ago may not be listed yet."""


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    """What EC2 tells about a snapshot."""

    id: str
    state: str
    """``pending``, ``completed``, ``error``, ``recoverable`` or ``recovering``."""
    volume_gib: int
    encrypted: bool
    started: datetime


def describe_snapshot(account: Account, snapshot_id: str) -> SnapshotFacts | None:
    """Return the snapshot's facts, or None when it does not exist."""
    try:
        with asked("ec2:DescribeSnapshots", snapshot_id):
            answer = account.clients.ec2.describe_snapshots(SnapshotIds=[snapshot_id])
    except ResourceGone:
        return None
    for item in answer["Snapshots"]:
        return SnapshotFacts(
            id=item["SnapshotId"],
            state=item["State"],
            volume_gib=int(item["VolumeSize"]),
            encrypted=bool(item.get("Encrypted", False)),
            started=item["StartTime"],
        )
    return None


def wait_completed(account: Account, snapshot_id: str) -> None:
    """Wait until the snapshot can be used.

    Raises:
        ResourceGone: it was deleted, or AWS gave it up (state ``error``).
        CloudUnavailable: not completed by the deadline of the settings.
    """
    began = time.monotonic()
    seen = False

    def check() -> bool | None:
        nonlocal seen
        facts = describe_snapshot(account, snapshot_id)
        if facts is None and not seen and time.monotonic() - began < UNKNOWN_SECONDS:
            return None
        seen = True
        if facts is None or facts.state == "error":
            found = "nothing" if facts is None else "state error"
            raise ResourceGone(f"Bad snapshot '{snapshot_id}': found {found}, needed completed.")
        return True if facts.state == "completed" else None

    deadline = account.settings.snapshot_deadline_seconds
    wait_for(snapshot_id, check, deadline, pulse=account.live)


def snapshot_volume(account: Account, volume_id: str, name: str) -> str:
    """Snapshot a volume, wait until it is complete and return the id; finds a killed call's."""
    intent = account.intend("snapshot", ROLE_PREPARED, account.run, volume_id, name=name)
    found = intent.entry.resource_id or find_snapshot(account, intent.token)
    if found and describe_snapshot(account, found) is None:
        account.void(intent)
        return snapshot_volume(account, volume_id, name)
    if not found:
        found = retried(lambda: _create_or_find(account, intent, volume_id, name))
    account.record(intent, found)
    wait_completed(account, found)
    return found


def find_snapshot(account: Account, token: str) -> str:
    """Return the id of our snapshot with this token, or "": CreateSnapshot has no client token."""
    with asked("ec2:DescribeSnapshots", token):
        answer = account.clients.ec2.describe_snapshots(
            OwnerIds=["self"], Filters=[{"Name": f"tag:{TAG_TOKEN}", "Values": [token]}]
        )
    alive = [item["SnapshotId"] for item in answer["Snapshots"] if item["State"] != "error"]
    return alive[0] if alive else ""


def _create_or_find(account: Account, intent: Intent, volume_id: str, name: str) -> str:
    """Create once; an answer that got lost is looked for before anybody creates again."""
    try:
        with asked("ec2:CreateSnapshot", volume_id):
            answer = account.clients.ec2_once.create_snapshot(
                VolumeId=volume_id,
                Description=f"imageport {name}"[:255],
                TagSpecifications=specifications(intent, "snapshot"),
            )
    except CloudUnavailable:
        found = wait_until(lambda: find_snapshot(account, intent.token) or None, LISTED_SECONDS)
        if found is None:
            raise
        return found
    return str(answer["SnapshotId"])


def delete_snapshot(account: Account, snapshot_id: str) -> None:
    """Delete a snapshot; one that is gone is no error."""
    try:
        with asked("ec2:DeleteSnapshot", snapshot_id):
            account.clients.ec2.delete_snapshot(SnapshotId=snapshot_id)
    except ResourceGone:
        pass
    except CloudRefused as error:
        if error.fields.get("aws_code") == "InvalidSnapshot.InUse":
            error.hint = "A machine image uses it: deregister the image first."
        raise
    account.mark(snapshot_id, "deleted")
