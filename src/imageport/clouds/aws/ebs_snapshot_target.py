# References: Amazon EBS direct APIs, "Write EBS snapshots"; coldsnap (settles LINEAR).
"""Generation U: blocks written straight into a new EBS snapshot, no machine and no S3 between."""

from __future__ import annotations

import base64
import hashlib
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from imageport.clouds.aws.account import Account, tag_list
from imageport.clouds.aws.block_client import BlockClient
from imageport.clouds.aws.error_mapping import asked
from imageport.clouds.aws.settings import AwsSettings
from imageport.clouds.aws.snapshot_blocks import SnapshotBlocks
from imageport.clouds.aws.snapshots import delete_snapshot, describe_snapshot, wait_completed
from imageport.clouds.intents import Intent
from imageport.clouds.tags import ROLE_UPLOADED
from imageport.clouds.waiting import wait_until
from imageport.errors import CloudRefused, CloudUnavailable, PermissionMissing, ResourceGone
from imageport.model import GIB, ZERO_BLOCK
from imageport.transfer.block_target import BlockTarget, TargetTraits, TransferPlan

TIMEOUT_MINUTES = 60
"""AWS cancels the snapshot by itself when no block arrives for so long."""
UNKNOWN_SECONDS = 120.0
"""A new snapshot may be unknown to the block servers for minutes (coldsnap issue 43)."""
REFUSED_SECONDS = 2.0
"""How long a refused completion is given to show that the snapshot is complete after all."""
COMPLETING_SECONDS = 600.0
"""The same where an earlier completion may have been accepted: AWS takes minutes to carry it out,
refuses a second one meanwhile, and shows the snapshot as pending all that time."""
REQUESTS_PER_SECOND = 900.0
"""90 % of the limit of one snapshot."""


def traits_of(settings: AwsSettings, *, parent: str = "", encrypted: bool = False) -> TargetTraits:
    """Return the declared traits; ``encrypted`` says what the snapshot will certainly be.

    Not known to be unencrypted for ever counts as "may become encrypted" (by a later launch or
    copy): then a block that was never written reads as garbage.
    """
    known = "yes" if encrypted else "no" if settings.unencrypted_for_ever else "maybe"
    return TargetTraits(
        name="ebs-snapshot",
        unwritten_reads_zero=known == "no" and not parent,
        fills_holes=encrypted,
        keeps_parent_zeros=known == "no",
        initial_in_flight=16,
        max_in_flight=64,
        max_requests_per_second=REQUESTS_PER_SECOND,
        attributes={"encrypted": known, "region": settings.region, "parent": parent},
    )


def will_be_encrypted(account: Account, parent: str) -> bool:
    """Tell whether a new snapshot comes out encrypted: by the settings, its parent, the account.

    An account whose default cannot be asked counts as encrypting: more is sent, nothing is lost.
    """
    if account.settings.encrypted:
        return True
    if parent:
        facts = describe_snapshot(account, parent)
        if facts is None or facts.encrypted:
            return True
    try:
        with asked("ec2:GetEbsEncryptionByDefault", account.settings.region):
            answer = account.clients.ec2.get_ebs_encryption_by_default()
    except PermissionMissing:
        return True
    return bool(answer["EbsEncryptionByDefault"])


class EbsSnapshotTarget(BlockTarget):
    """One snapshot; its handle and its final reference are the snapshot's id.

    A pending snapshot can be neither listed nor read, so the caller's journal is the only truth
    about what was put.
    """

    def __init__(
        self, account: Account, image: str, *, parent: str = "", description: str = ""
    ) -> None:
        self.traits = traits_of(
            account.settings, parent=parent, encrypted=will_be_encrypted(account, parent)
        )
        self._account = account
        self._image = image
        self._parent = parent
        self._description = description or f"imageport {image}"
        self._client = BlockClient(account.clients)
        self._snapshot_id = ""
        self._sealed = False
        self._resumed = False
        self._unknown_until = 0.0
        self._reader: SnapshotBlocks | None = None

    def begin(self, plan: TransferPlan, token: str) -> str:
        """Start the snapshot, or find the pending one of an earlier call with this token."""
        fresh = False
        for _attempt in range(3):
            intent = self._account.intend(
                "snapshot", ROLE_UPLOADED, token, name=self._image, fresh=fresh
            )
            fresh = False
            snapshot_id = intent.entry.resource_id or self._start(plan, intent)
            self._account.record(intent, snapshot_id)
            facts = describe_snapshot(self._account, snapshot_id)
            if facts is None or facts.state == "pending":
                # EC2 may not know it yet; what was deleted shows at the first put, as ResourceGone.
                if facts is not None or not intent.entry.resource_id:
                    return self._take(snapshot_id, age_seconds=0.0)
            elif facts.state == "completed":
                # A finished upload that the caller has no record of: the sweep's to judge, which
                # knows the catalogue.
                fresh = True
                continue
            delete_snapshot(self._account, snapshot_id)
        raise CloudUnavailable(f"Cannot start snapshot '{self._image}': AWS gave it up 3 times.")

    def resume(self, plan: TransferPlan, handle: str) -> None:
        """Take up a pending snapshot, or one that was completed just before a crash."""
        facts = describe_snapshot(self._account, handle)
        if facts is None or facts.state not in {"pending", "completed"}:
            found = "nothing" if facts is None else f"state {facts.state}"
            raise ResourceGone(f"Cannot resume '{handle}': found {found}, needed pending.")
        if facts.volume_gib != _volume_gib(plan):
            raise ResourceGone(
                f"Cannot resume '{handle}': found {facts.volume_gib} GiB, "
                f"needed {_volume_gib(plan)} GiB."
            )
        age = (datetime.now(UTC) - facts.started).total_seconds()
        self._take(handle, age_seconds=max(0.0, age))
        self._sealed = facts.state == "completed"
        self._resumed = True

    def put(self, index: int, data: bytes | memoryview, digest: bytes) -> None:
        """Send one block."""
        if self._sealed:
            raise ResourceGone(f"Cannot put block '{self._snapshot_id}/{index}': it is complete.")
        self._account.live()
        try:
            self._client.put(self._snapshot_id, index, data, digest)
        except ResourceGone as error:
            if time.monotonic() < self._unknown_until:
                raise CloudUnavailable(error.message, **error.fields) from error
            raise

    def commit(self, digests: Mapping[int, bytes]) -> str:
        """Seal with the number of distinct blocks and the digest of their digests."""
        if not self._sealed:
            try:
                self._complete(digests)
            except CloudRefused as error:
                # Sealed by a call whose answer was lost? Then it is completing or complete.
                maybe = self._resumed or error.fields.get("asked_again", False)
                if not self._completing(COMPLETING_SECONDS if maybe else REFUSED_SECONDS):
                    raise
            wait_completed(self._account, self._snapshot_id)
            self._sealed = True
        return self._snapshot_id

    def abort(self) -> None:
        """Delete the snapshot unless it is complete."""
        if not self._snapshot_id or self._sealed:
            return
        facts = describe_snapshot(self._account, self._snapshot_id)
        if facts is not None and facts.state == "completed":
            return
        delete_snapshot(self._account, self._snapshot_id)

    def read_back(self, indexes: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Yield blocks by GetSnapshotBlock; one that is not stored reads as zeros."""
        if self._reader is None:  # one for all calls: each has threads of its own
            self._reader = SnapshotBlocks(self._client, self._snapshot_id)
        for index, block in self._reader.read_many(indexes):
            yield index, ZERO_BLOCK if block is None else block

    def close(self) -> None:
        """End the reading threads; the clients belong to the cloud."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def _take(self, snapshot_id: str, *, age_seconds: float) -> str:
        self._snapshot_id = snapshot_id
        self._unknown_until = time.monotonic() + UNKNOWN_SECONDS - age_seconds
        return snapshot_id

    def _start(self, plan: TransferPlan, intent: Intent) -> str:
        settings = self._account.settings
        # A child inherits the parent's encryption; naming both is refused.
        chosen: dict[str, Any] = {"ParentSnapshotId": self._parent} if self._parent else {}
        if settings.encrypted and not self._parent:
            chosen["Encrypted"] = True
            if settings.kms_key_id:
                chosen["KmsKeyArn"] = settings.kms_key_id
        with asked("ebs:StartSnapshot", self._image):
            answer = self._account.clients.ebs.start_snapshot(
                VolumeSize=_volume_gib(plan),
                ClientToken=intent.client_token,
                Description=self._description[:255],
                Tags=tag_list(intent),
                Timeout=TIMEOUT_MINUTES,
                **chosen,
            )
        return str(answer["SnapshotId"])

    def _complete(self, digests: Mapping[int, bytes]) -> None:
        linear = hashlib.sha256(b"".join(digests[index] for index in sorted(digests)))
        with asked("ebs:CompleteSnapshot", self._snapshot_id):
            self._account.clients.ebs.complete_snapshot(
                SnapshotId=self._snapshot_id,
                ChangedBlocksCount=len(digests),
                Checksum=base64.b64encode(linear.digest()).decode(),
                ChecksumAlgorithm="SHA256",
                ChecksumAggregationMethod="LINEAR",
            )

    def _completing(self, seconds: float) -> bool:
        def check() -> bool | None:
            facts = describe_snapshot(self._account, self._snapshot_id)
            return True if facts is not None and facts.state == "completed" else None

        return bool(wait_until(check, seconds, pulse=self._account.live))


def _volume_gib(plan: TransferPlan) -> int:
    return max(1, math.ceil(plan.size_bytes / GIB))
