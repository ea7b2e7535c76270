"""The block blobs of the job account, on disk: they outlive a restart."""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """One blob; its bytes are in a file of their own, so that a reader keeps what it opened."""

    container: str
    name: str
    size_bytes: int
    etag: str
    modified: float
    """Seconds since the epoch."""
    content_type: str
    content_md5: str
    file: str
    metadata: dict[str, str] = field(default_factory=dict)


class BlobStore:
    """Containers and their blobs; used from all request threads."""

    def __init__(self, root: Path, containers: Iterable[str]) -> None:
        self._folder = root
        self._lock = threading.Lock()
        self._blobs: dict[tuple[str, str], StoredBlob] = {}
        self._blocks: dict[tuple[str, str], dict[str, bytes]] = {}
        root.mkdir(parents=True, exist_ok=True)
        self.secret = _kept_secret(root / "account.key")
        self._containers_path = root / "containers.list"
        self._containers = set(containers)
        if self._containers_path.exists():
            self._containers.update(json.loads(self._containers_path.read_text()))
        for path in root.glob("*.json"):
            blob = StoredBlob(**json.loads(path.read_text()))
            self._blobs[blob.container, blob.name] = blob
        known = {blob.file for blob in self._blobs.values()}
        for path in root.glob("*.blob"):
            if path.name not in known:
                path.unlink()  # a killed service had not yet made a blob of it

    def has_container(self, name: str) -> bool:
        """Tell whether the container exists."""
        with self._lock:
            return name in self._containers

    def add_container(self, name: str) -> bool:
        """Create a container; False when there is one."""
        with self._lock:
            if name in self._containers:
                return False
            self._containers.add(name)
            self._containers_path.write_text(json.dumps(sorted(self._containers)))
            return True

    def get(self, container: str, name: str) -> StoredBlob | None:
        """Return a blob, None if there is none."""
        with self._lock:
            return self._blobs.get((container, name))

    def read(self, container: str, name: str) -> tuple[StoredBlob, bytes] | None:
        """Return a blob and its bytes, None if there is none."""
        while (blob := self.get(container, name)) is not None:
            try:
                return blob, (self._folder / blob.file).read_bytes()
            except FileNotFoundError:
                continue  # replaced or deleted just now: look again
        return None

    def put(
        self,
        place: tuple[str, str],
        body: bytes,
        content: tuple[str, str],
        metadata: dict[str, str],
    ) -> StoredBlob:
        """Write a blob, replacing one of its name; ``content`` is its type and MD5."""
        file = f"{secrets.token_hex(12)}.blob"
        etag = f'"0x8DE{secrets.token_hex(6).upper()}"'
        blob = StoredBlob(*place, len(body), etag, time.time(), *content, file, metadata)
        (self._folder / file).write_bytes(body)
        facts = self._facts_path(*place)
        with self._lock:
            before = self._blobs.get(place)
            part = facts.with_suffix(".part")
            part.write_text(json.dumps(asdict(blob)))
            part.rename(facts)
            self._blobs[place] = blob
            self._blocks.pop(place, None)
        if before is not None:
            (self._folder / before.file).unlink(missing_ok=True)
        return blob

    def delete(self, container: str, name: str) -> bool:
        """Delete a blob; False when there is none."""
        with self._lock:
            blob = self._blobs.pop((container, name), None)
            if blob is None:
                return False
            self._facts_path(container, name).unlink()
            (self._folder / blob.file).unlink(missing_ok=True)
            return True

    def names(self, container: str, prefix: str) -> list[StoredBlob]:
        """Return the blobs whose names begin so, in the order of the service."""
        with self._lock:
            found = [
                blob
                for (holder, name), blob in self._blobs.items()
                if holder == container and name.startswith(prefix)
            ]
        return sorted(found, key=lambda blob: blob.name)

    def stage(self, place: tuple[str, str], block_id: str, body: bytes) -> None:
        """Keep a block until a list of blocks names it."""
        with self._lock:
            self._blocks.setdefault(place, {})[block_id] = body

    def staged(self, place: tuple[str, str], block_ids: list[str]) -> bytes | None:
        """Return the blocks in this order, None when one is not there."""
        with self._lock:
            blocks = self._blocks.get(place, {})
            if any(block_id not in blocks for block_id in block_ids):
                return None
            return b"".join(blocks[block_id] for block_id in block_ids)

    def _facts_path(self, container: str, name: str) -> Path:
        digest = hashlib.sha256(f"{container}/{name}".encode()).hexdigest()
        return self._folder / f"{digest[:32]}.json"


def _kept_secret(path: Path) -> bytes:
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))
    return bytes.fromhex(path.read_text())
