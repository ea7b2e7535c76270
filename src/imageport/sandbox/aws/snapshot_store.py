"""All snapshots of the emulated account, on disk: they outlive a restart, as in AWS."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
import time
from pathlib import Path

from imageport.model import BLOCK_BYTES, GIB, ZERO_DIGEST
from imageport.sandbox.aws.knobs import Knobs
from imageport.sandbox.aws.stored_snapshot import SnapshotFacts, StoredSnapshot, facts_of
from imageport.sandbox.machines.sparse_files import create_sparse, data_blocks, read_block

GARBAGE_EVERY = 251
"""Of so many unwritten blocks of an encrypted volume one is garbage: 32 MiB of 8 GiB."""


def new_id(prefix: str) -> str:
    """Return an id as AWS makes them: 17 hexadecimal digits."""
    return f"{prefix}-{secrets.token_hex(9)[:17]}"


class SnapshotStore:
    """Snapshots by id; used from all request threads."""

    def __init__(self, folder: Path, knobs: Knobs) -> None:
        self._folder = folder
        self._knobs = knobs
        self._lock = threading.RLock()
        self._snapshots: dict[str, StoredSnapshot] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self.secret = _kept_secret(folder / "token-secret")
        self._load()

    def create(self, facts: SnapshotFacts) -> StoredSnapshot:
        """Add an empty snapshot; its parent must exist."""
        with self._lock:
            parent = self._snapshots[facts.parent_id] if facts.parent_id else None
            snapshot = StoredSnapshot(self._folder, facts, parent)
            self._snapshots[facts.id] = snapshot
        return snapshot

    def get(self, snapshot_id: str, region: str = "") -> StoredSnapshot | None:
        """Return a snapshot that was not deleted, its state brought up to date."""
        with self._lock:
            snapshot = self._snapshots.get(snapshot_id)
            if snapshot is None or snapshot.facts.deleted:
                return None
            if region and snapshot.facts.region != region:
                return None
        self._expire(snapshot)
        return snapshot

    def all(self, region: str) -> list[StoredSnapshot]:
        """Return the snapshots of a region that were not deleted."""
        with self._lock:
            found = list(self._snapshots.values())
        return [item for item in found if item.facts.region == region and not item.facts.deleted]

    def delete(self, snapshot_id: str) -> None:
        """Delete a snapshot; its blocks stay as long as a child shows them."""
        with self._lock:
            snapshot = self._snapshots[snapshot_id]
            snapshot.facts.deleted = True
            if snapshot.facts.status == "completed":
                snapshot.save()
            self._collect()

    def save_completed(self) -> None:
        """Write the facts of all completed snapshots (their tags may have changed)."""
        with self._lock:
            for snapshot in self._snapshots.values():
                if snapshot.facts.status == "completing":
                    snapshot.facts.status = "completed"
                if snapshot.facts.status == "completed":
                    snapshot.save()

    def _expire(self, snapshot: StoredSnapshot) -> None:
        """Give up a pending snapshot that nothing was written to for its ``Timeout``."""
        facts = snapshot.facts
        if facts.status == "pending" and facts.timeout_minutes:
            limit = facts.timeout_minutes * self._knobs.minute_seconds
            if time.monotonic() - snapshot.last_write > limit:
                facts.status = "error"

    def _collect(self) -> None:
        """Remove deleted snapshots that no other one builds on."""
        while True:
            needed = {item.facts.parent_id for item in self._snapshots.values()}
            gone = [
                item
                for item in self._snapshots.values()
                if item.facts.deleted and item.facts.id not in needed
            ]
            if not gone:
                return
            for item in gone:
                del self._snapshots[item.facts.id]
                item.remove()

    def _load(self) -> None:
        """Take up what an earlier emulator completed; what was pending is lost."""
        waiting = {path.stem: facts_of(path) for path in self._folder.glob("*.json")}
        while waiting:
            ready = [facts for facts in waiting.values() if facts.parent_id not in waiting]
            for facts in ready:
                del waiting[facts.id]
                if not facts.parent_id or facts.parent_id in self._snapshots:
                    self.create(facts).load_digests()
        for path in self._folder.glob("*.blocks"):
            if path.stem not in self._snapshots:
                path.unlink()
        self._collect()


def assemble(snapshot: StoredSnapshot, path: Path, size_bytes: int) -> None:
    """Write the snapshot's blocks to a new sparse file.

    An encrypted volume reads as garbage where nothing was ever written; here some blocks do.
    """
    create_sparse(path, size_bytes)
    fd = os.open(path, os.O_WRONLY)
    try:
        if snapshot.facts.encrypted:
            _spread_garbage(snapshot, fd, size_bytes)
        for index in snapshot.indexes():
            found = snapshot.read(index)
            if found is not None and found[1] != ZERO_DIGEST:
                os.pwrite(fd, found[0], index * BLOCK_BYTES)
    finally:
        os.close(fd)


def _spread_garbage(snapshot: StoredSnapshot, fd: int, size_bytes: int) -> None:
    garbage = secrets.token_bytes(BLOCK_BYTES)
    written = set(snapshot.indexes())
    for index in range(GARBAGE_EVERY // 2, size_bytes // BLOCK_BYTES, GARBAGE_EVERY):
        if index not in written:
            os.pwrite(fd, garbage, index * BLOCK_BYTES)


def take_differences(snapshot: StoredSnapshot, fd: int) -> None:
    """Store the blocks of a volume that differ from the snapshot's parent."""
    size_bytes = snapshot.facts.size_gib * GIB
    known = set(snapshot.parent.indexes()) if snapshot.parent is not None else set()
    for index in sorted(known.union(data_blocks(fd, size_bytes))):
        data = read_block(fd, index)
        digest = hashlib.sha256(data).digest()
        before = snapshot.parent.digest(index) if snapshot.parent is not None else None
        if digest != (ZERO_DIGEST if before is None else before):
            snapshot.write(index, data, digest)


def _kept_secret(path: Path) -> bytes:
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(json.dumps(secrets.token_hex(32)))
    return bytes.fromhex(json.loads(path.read_text()))
