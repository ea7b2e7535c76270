# References: Amazon EBS direct APIs, User Guide and service model 2019-11-02.
"""The six calls of EBS direct, as strict as AWS: what a client may rely on, and nothing more."""

from __future__ import annotations

import base64
import hashlib
import time
from dataclasses import dataclass, field
from typing import Any

from imageport.model import BLOCK_BYTES
from imageport.sandbox.aws.block_errors import (
    AccountThrottled,
    Conflict,
    Invalid,
    NotFound,
    SnapshotThrottled,
)
from imageport.sandbox.aws.block_pages import changed_blocks, check_block_token, snapshot_blocks
from imageport.sandbox.aws.emulator import ACCOUNT, Emulator
from imageport.sandbox.aws.snapshot_store import new_id
from imageport.sandbox.aws.stored_snapshot import SnapshotFacts, StoredSnapshot
from imageport.sandbox.faults import Rate

LARGEST_GIB = 65536
COMPLETIONS_PER_SECOND = 10
"""Account limit of CompleteSnapshot, not adjustable (EBS quotas)."""


@dataclass(frozen=True, slots=True)
class BlockAnswer:
    """A successful answer."""

    status: int
    document: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None


class BlockService:
    """The block servers of all regions."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._store = emulator.snapshots
        self._started: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
        self._completions = Rate()

    def start(self, region: str, request: dict[str, Any]) -> BlockAnswer:
        """StartSnapshot."""
        facts = self._start_facts(region, request)
        with self._emulator.lock:
            key = (region, str(request.get("ClientToken", "")))
            if key[1] and key in self._started:
                known, asked = self._started[key]
                if asked != request:
                    raise Conflict("The request uses the same client token as a different request.")
                snapshot = self._store.get(known)
                if snapshot is None:
                    raise Conflict(f"The client token belongs to {known}, which was deleted.")
            else:
                snapshot = self._store.create(facts)
                self._started[key] = (facts.id, request)
                # Imported late: moto is needed by EC2's view only.
                from imageport.sandbox.aws.ec2_snapshots import show_in_ec2  # noqa: PLC0415

                show_in_ec2(snapshot)
        return BlockAnswer(201, self._started_document(snapshot))

    def put(
        self, region: str, place: tuple[str, int], headers: dict[str, str], data: bytes
    ) -> BlockAnswer:
        """PutSnapshotBlock."""
        snapshot = self._writable(region, place[0])
        index = place[1]
        if not snapshot.rate.allows(self._emulator.knobs.throttle_rps):
            raise SnapshotThrottled("Rate exceeded for the snapshot.")
        if headers.get("x-amz-checksum-algorithm") != "SHA256":
            raise Invalid("ChecksumAlgorithm must be SHA256.")
        if headers.get("x-amz-data-length") != str(BLOCK_BYTES):
            raise Invalid(f"DataLength must be {BLOCK_BYTES}.")
        if len(data) != BLOCK_BYTES:
            raise Invalid(f"Failed to read block data: {len(data)} bytes.")
        progress = headers.get("x-amz-progress", "0")
        if not progress.isdigit() or int(progress) > 100:
            raise Invalid("Progress must be between 0 and 100.")
        if not 0 <= index < snapshot.blocks_in_volume:
            raise Invalid(f"Block index {index} is outside of the volume.", "INVALID_BLOCK")
        digest = hashlib.sha256(data).digest()
        checksum = base64.b64encode(digest).decode()
        if checksum != headers.get("x-amz-checksum"):
            raise Invalid("The checksum does not match the block data.")
        snapshot.write(index, data, digest)
        return BlockAnswer(201, headers=_checksum_headers(checksum))

    def complete(self, region: str, snapshot_id: str, headers: dict[str, str]) -> BlockAnswer:
        """CompleteSnapshot: checks what was announced, then completes a little later."""
        if not self._completions.allows(COMPLETIONS_PER_SECOND):
            raise AccountThrottled("Rate exceeded.")
        snapshot = self._writable(region, snapshot_id)
        count = headers.get("x-amz-changedblockscount", "")
        if count != str(len(snapshot.digests)):
            raise Invalid(
                f"ChangedBlocksCount is {count or 'missing'}, "
                f"{len(snapshot.digests)} blocks were written."
            )
        if "x-amz-checksum" in headers:
            if headers.get("x-amz-checksum-algorithm") != "SHA256":
                raise Invalid("ChecksumAlgorithm must be SHA256.")
            if headers.get("x-amz-checksum-aggregation-method") != "LINEAR":
                raise Invalid("ChecksumAggregationMethod must be LINEAR.")
            if headers["x-amz-checksum"] != base64.b64encode(snapshot.linear_digest()).decode():
                raise Invalid("The aggregated checksum does not match the blocks written.")
        snapshot.facts.status = "completing"

        def finish() -> None:
            if not snapshot.facts.deleted:
                snapshot.facts.status = "completed"
                snapshot.save()

        self._emulator.later(finish, self._emulator.knobs.complete_seconds)
        return BlockAnswer(202, {"Status": "pending"})

    def get(self, region: str, snapshot_id: str, index: int, token: str) -> BlockAnswer:
        """GetSnapshotBlock."""
        snapshot = self._readable(region, snapshot_id)
        check_block_token(self._store.secret, token, snapshot_id, index)
        found = snapshot.read(index)
        if found is None:
            raise Invalid("The block token is not valid.", "INVALID_BLOCK_TOKEN")
        headers = _checksum_headers(base64.b64encode(found[1]).decode())
        headers["x-amz-Data-Length"] = str(BLOCK_BYTES)
        return BlockAnswer(200, headers=headers, body=found[0])

    def list_blocks(self, region: str, snapshot_id: str, query: dict[str, str]) -> BlockAnswer:
        """ListSnapshotBlocks."""
        snapshot = self._readable(region, snapshot_id)
        return BlockAnswer(200, snapshot_blocks(self._emulator, snapshot, query))

    def list_changes(self, region: str, second_id: str, query: dict[str, str]) -> BlockAnswer:
        """ListChangedBlocks."""
        second = self._readable(region, second_id)
        first_id = query.get("firstSnapshotId", "")
        first = self._readable(region, first_id) if first_id else None
        return BlockAnswer(200, changed_blocks(self._emulator, first, second, query))

    def _start_facts(self, region: str, request: dict[str, Any]) -> SnapshotFacts:
        size_gib = request.get("VolumeSize")
        if not isinstance(size_gib, int) or not 1 <= size_gib <= LARGEST_GIB:
            raise Invalid(f"VolumeSize must be 1 to {LARGEST_GIB}.", "INVALID_VOLUME_SIZE")
        timeout = request.get("Timeout", 60)
        if not isinstance(timeout, int) or not 10 <= timeout <= 4320:
            raise Invalid("Timeout must be between 10 and 4320 minutes.")
        parent_id = str(request.get("ParentSnapshotId", ""))
        if parent_id and "Encrypted" in request:
            raise Invalid("ParentSnapshotId and Encrypted cannot be specified together.")
        if request.get("KmsKeyArn") and not request.get("Encrypted"):
            raise Invalid("KmsKeyArn needs Encrypted to be true.")
        parent = self._parent(region, parent_id, size_gib) if parent_id else None
        tags = {item["Key"]: item["Value"] for item in request.get("Tags", [])}
        if len(tags) != len(request.get("Tags", [])):
            raise Invalid("Tag keys must be unique.", "INVALID_TAG")
        return SnapshotFacts(
            id=new_id("snap"),
            region=region,
            owner=ACCOUNT,
            size_gib=size_gib,
            started=time.time(),
            description=str(request.get("Description", "")),
            parent_id=parent_id,
            encrypted=bool(request.get("Encrypted"))
            or (parent is not None and parent.facts.encrypted),
            kms_key_id=str(request.get("KmsKeyArn", "")),
            timeout_minutes=timeout,
            tags=tags,
        )

    def _parent(self, region: str, parent_id: str, size_gib: int) -> StoredSnapshot:
        parent = self._store.get(parent_id, region)
        if parent is None:
            raise NotFound(f"The snapshot '{parent_id}' does not exist.")
        if parent.facts.status != "completed":
            raise Invalid("The parent snapshot is not completed.", "INVALID_SNAPSHOT_ID")
        if size_gib < parent.facts.size_gib:
            raise Invalid("VolumeSize is less than the parent's.", "INVALID_VOLUME_SIZE")
        return parent

    def _started_document(self, snapshot: StoredSnapshot) -> dict[str, Any]:
        facts = snapshot.facts
        document: dict[str, Any] = {
            "SnapshotId": facts.id,
            "OwnerId": facts.owner,
            "Status": "pending" if facts.status == "completing" else facts.status,
            "StartTime": facts.started,
            "VolumeSize": facts.size_gib,
            "BlockSize": BLOCK_BYTES,
            "Description": facts.description,
            "Tags": [{"Key": key, "Value": value} for key, value in facts.tags.items()],
        }
        if facts.parent_id:
            document["ParentSnapshotId"] = facts.parent_id
        if facts.kms_key_id:
            document["KmsKeyArn"] = facts.kms_key_id
        return document

    def _known(self, region: str, snapshot_id: str) -> StoredSnapshot:
        snapshot = self._store.get(snapshot_id, region)
        if snapshot is None or (
            time.monotonic() - snapshot.started_at < self._emulator.knobs.unknown_seconds
            and snapshot.facts.status == "pending"
        ):
            raise NotFound(f"The snapshot '{snapshot_id}' does not exist.")
        return snapshot

    def _writable(self, region: str, snapshot_id: str) -> StoredSnapshot:
        snapshot = self._known(region, snapshot_id)
        if snapshot.facts.status == "error":
            raise Invalid("The snapshot timed out.", "WRITE_REQUEST_TIMEOUT")
        if snapshot.facts.status != "pending" or not snapshot.facts.timeout_minutes:
            raise Invalid("The snapshot is not in the pending state.", "INVALID_SNAPSHOT_ID")
        return snapshot

    def _readable(self, region: str, snapshot_id: str) -> StoredSnapshot:
        snapshot = self._known(region, snapshot_id)
        if snapshot.facts.status != "completed":
            raise Invalid("The snapshot is not in the completed state.", "INVALID_SNAPSHOT_ID")
        return snapshot


def _checksum_headers(checksum: str) -> dict[str, str]:
    return {"x-amz-Checksum": checksum, "x-amz-Checksum-Algorithm": "SHA256"}
