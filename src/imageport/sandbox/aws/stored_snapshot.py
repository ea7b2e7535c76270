"""One snapshot's blocks and digests: a sparse file and the chain of its parents."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from imageport.model import BLOCK_BYTES, GIB, ZERO_BLOCK, ZERO_DIGEST
from imageport.sandbox.faults import Rate
from imageport.sandbox.machines.sparse_files import create_sparse, read_block

_RECORD = struct.Struct("<I32s")


@dataclass(slots=True)
class SnapshotFacts:
    """What is kept of a snapshot besides its blocks."""

    id: str
    region: str
    owner: str
    size_gib: int
    started: float
    """Seconds since the epoch."""
    description: str = ""
    parent_id: str = ""
    volume_id: str = "vol-ffffffff"
    """What EC2 tells of snapshots that no volume was made for."""
    encrypted: bool = False
    kms_key_id: str = ""
    timeout_minutes: int = 0
    """0: not written through the block servers."""
    tags: dict[str, str] = field(default_factory=dict)
    status: str = "pending"
    deleted: bool = False
    """Deleted, but a child still shows blocks of it."""


class StoredSnapshot:
    """A snapshot; zeros that were written are known by digest and take no space."""

    def __init__(self, folder: Path, facts: SnapshotFacts, parent: StoredSnapshot | None) -> None:
        self.facts = facts
        self.parent = parent
        self.digests: dict[int, bytes] = {}
        self.last_write = time.monotonic()
        self.started_at = time.monotonic()
        self.rate = Rate()
        self.lock = threading.Lock()
        self._folder = folder
        self._path = folder / f"{facts.id}.blocks"
        if not self._path.exists():
            create_sparse(self._path, facts.size_gib * GIB)
        self.fd = os.open(self._path, os.O_RDWR)

    @property
    def blocks_in_volume(self) -> int:
        """Return how many blocks the volume has."""
        return self.facts.size_gib * GIB // BLOCK_BYTES

    def write(self, index: int, data: bytes, digest: bytes) -> None:
        """Keep one block."""
        if digest != ZERO_DIGEST or self.digests.get(index, ZERO_DIGEST) != ZERO_DIGEST:
            os.pwrite(self.fd, data, index * BLOCK_BYTES)
        with self.lock:
            self.digests[index] = digest
        self.last_write = time.monotonic()

    def holder(self, index: int) -> StoredSnapshot | None:
        """Return the snapshot of the chain that holds this block, nearest first."""
        link: StoredSnapshot | None = self
        while link is not None and index not in link.digests:
            link = link.parent
        return link

    def digest(self, index: int) -> bytes | None:
        """Return the digest of a block, None where nothing was ever written."""
        holder = self.holder(index)
        return None if holder is None else holder.digests[index]

    def read(self, index: int) -> tuple[bytes, bytes] | None:
        """Return a block and its digest, None where nothing was ever written."""
        holder = self.holder(index)
        if holder is None:
            return None
        digest = holder.digests[index]
        data = ZERO_BLOCK if digest == ZERO_DIGEST else read_block(holder.fd, index)
        return data, digest

    def indexes(self) -> list[int]:
        """Return every block that this snapshot or a parent holds, ascending."""
        found: set[int] = set()
        link: StoredSnapshot | None = self
        while link is not None:
            found.update(link.digests)
            link = link.parent
        return sorted(found)

    def linear_digest(self) -> bytes:
        """Return the SHA-256 of the digests of the own blocks in ascending order."""
        with self.lock:
            ordered = sorted(self.digests)
        return hashlib.sha256(b"".join(self.digests[index] for index in ordered)).digest()

    def root(self) -> StoredSnapshot:
        """Return the first snapshot of the lineage."""
        return self if self.parent is None else self.parent.root()

    def save(self) -> None:
        """Write facts and digests, so that a later start of the emulator finds the snapshot."""
        with self.lock:
            records = sorted(self.digests.items())
        packed = b"".join(_RECORD.pack(index, digest) for index, digest in records)
        (self._folder / f"{self.facts.id}.digests").write_bytes(packed)
        part = self._folder / f"{self.facts.id}.json.part"
        part.write_text(json.dumps(asdict(self.facts)))
        part.rename(self._folder / f"{self.facts.id}.json")

    def load_digests(self) -> None:
        """Read what `save` wrote."""
        packed = (self._folder / f"{self.facts.id}.digests").read_bytes()
        self.digests = dict(_RECORD.iter_unpack(packed))

    def remove(self) -> None:
        """Close and delete everything of it."""
        os.close(self.fd)
        for ending in ("blocks", "digests", "json"):
            (self._folder / f"{self.facts.id}.{ending}").unlink(missing_ok=True)


def facts_of(path: Path) -> SnapshotFacts:
    """Read the facts of a saved snapshot."""
    document: dict[str, Any] = json.loads(path.read_text())
    return SnapshotFacts(**document)
