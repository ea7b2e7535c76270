# References: Azure Compute REST, disks and snapshots (DiskState, beginGetAccess, endGetAccess);
# "Upload a VHD to Azure": sizes, footer, states of a disk that is created by upload.
"""All managed disks and snapshots of the emulated account, on disk: they outlive a restart."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from imageport.model import GIB, MIB
from imageport.sandbox.azure.disk_errors import DiskError, unknown, wrong_state
from imageport.sandbox.azure.disk_footer import FOOTER_BYTES, check_footer
from imageport.sandbox.azure.disk_knobs import DataKnobs
from imageport.sandbox.azure.disk_stored import DiskFacts, StoredDisk, facts_of
from imageport.sandbox.azure.sas_policy import Policy, signed_url
from imageport.sandbox.machines.file_extents import copy_sparse

SMALLEST_UPLOAD_BYTES = 20 * MIB + FOOTER_BYTES
LARGEST_UPLOAD_BYTES = 32767 * GIB + FOOTER_BYTES
"""Both from "Upload a VHD to Azure": 20972032 and 35183298347520."""


class DiskStore:
    """Disks and snapshots by lower-cased ARM id; used from all request threads."""

    def __init__(self, root: Path, knobs: DataKnobs) -> None:
        self._folder = root
        self._knobs = knobs
        self._lock = threading.Lock()
        self._disks: dict[str, StoredDisk] = {}
        self._by_account: dict[str, StoredDisk] = {}
        self._creating: set[str] = set()
        root.mkdir(parents=True, exist_ok=True)
        self._load()

    def create_upload(self, disk_id: str, upload_size_bytes: int, tier: str = "") -> None:
        """Create a disk that waits for its bytes; the size includes the footer."""
        whole = (upload_size_bytes - FOOTER_BYTES) % MIB == 0
        if not whole or not SMALLEST_UPLOAD_BYTES <= upload_size_bytes <= LARGEST_UPLOAD_BYTES:
            text = (
                f"The value '{upload_size_bytes}' of 'uploadSizeBytes' is not valid: between "
                f"{SMALLEST_UPLOAD_BYTES} and {LARGEST_UPLOAD_BYTES} bytes, a whole number of MiB "
                f"plus a footer of {FOOTER_BYTES} bytes."
            )
            raise DiskError(400, "InvalidParameter", text)
        size = upload_size_bytes - FOOTER_BYTES
        facts = DiskFacts(disk_id, "disk", size, state="ReadyToUpload", tier=tier)
        self._add(facts, upload_size_bytes, None)

    def create_empty(self, disk_id: str, size_bytes: int) -> None:
        """Create a disk of zeros."""
        self._add(DiskFacts(disk_id, "disk", size_bytes), size_bytes, None)

    def create_copy(self, disk_id: str, source_id: str, size_bytes: int = 0) -> None:
        """Create a disk with the bytes of a disk or snapshot, larger if a size is given."""
        source = self._copyable(source_id, "copy")
        size = max(size_bytes, source.facts.size_bytes)
        self._add(DiskFacts(disk_id, "disk", size), size, source)

    def snapshot(self, snapshot_id: str, source_id: str) -> None:
        """Keep the bytes that a disk or snapshot has now."""
        source = self._copyable(source_id, "snapshot")
        size = source.facts.size_bytes
        self._add(DiskFacts(snapshot_id, "snapshot", size), size, source)

    def delete(self, disk_id: str) -> None:
        """Delete a disk or snapshot; 409 while it is attached or access to it is granted."""
        disk = self.get(disk_id)
        with disk.lock:
            # An upload whose footer was refused at revoke has no access left, and may go.
            if disk.policy is not None or disk.facts.state == "Attached":
                raise wrong_state(disk_id, disk.facts.state, "delete")
            disk.wait_until_idle()
            with self._lock:
                del self._disks[disk_id]
            disk.remove()

    def path(self, disk_id: str) -> Path:
        """Return the sparse raw file: what a machine has as its disk."""
        return self.get(disk_id).path

    def size_bytes(self, disk_id: str) -> int:
        """Return the size of the disk, without a footer."""
        return self.get(disk_id).facts.size_bytes

    def used_bytes(self, disk_id: str) -> int:
        """Return how many bytes were ever written and not cleared."""
        disk = self.get(disk_id)
        if disk.facts.state == "Attached":
            return disk.path.stat().st_blocks * 512
        return disk.pages.written_bytes()

    def state(self, disk_id: str) -> str:
        """Return Azure's DiskState."""
        return self.get(disk_id).facts.state

    def set_attached(self, disk_id: str, attached: bool) -> None:
        """Note that a machine has the disk, or that it no longer has."""
        disk = self.get(disk_id)
        with disk.lock:
            state = disk.facts.state
            if attached and state not in {"Unattached", "Attached"}:
                raise wrong_state(disk_id, state, "attach")
            if attached and state == "Unattached":
                disk.attach()
            elif not attached and state == "Attached":
                disk.detach()

    def grant(self, disk_id: str, mode: str, seconds: float, base_url: str) -> str:
        """Return the signed URL of a grant: a secret.

        While a grant of this mode has not ended, asking again returns it unchanged.
        """
        disk = self.get(disk_id)
        with disk.lock:
            state = _state_after_grant(disk, mode)
            policy = disk.policy
            now = time.time()
            if policy is None or policy.expiry <= now:
                if self._knobs.sas_seconds > 0:
                    seconds = min(seconds, self._knobs.sas_seconds)
                policy = _new_policy(mode, now, seconds, base_url)
                self._replace_policy(disk, policy)
            elif policy.base_url != base_url:  # the service was started again elsewhere
                policy = replace(policy, base_url=base_url)
                self._replace_policy(disk, policy)
            disk.facts.state = state
            disk.save()
            return signed_url(bytes.fromhex(disk.facts.secret), policy)

    def revoke(self, disk_id: str) -> None:
        """End the grant; an upload becomes a disk, if its footer is right.

        With a wrong one (DiskError InvalidVhd) it stays an upload that nobody has access to.
        """
        disk = self.get(disk_id)
        with disk.lock:
            state = disk.facts.state
            if state not in {"ActiveUpload", "ActiveSAS"}:
                return
            if state == "ActiveUpload":
                self._refuse_stuck(disk)
            blob_url = disk.policy.blob_url if disk.policy is not None else ""
            self._replace_policy(disk, None)
            disk.save()
            if state == "ActiveUpload":
                # Nothing is written from here on: the footer that is checked is the one that stays.
                disk.wait_until_idle()
                size = disk.facts.size_bytes
                check_footer(disk.read(size, size + FOOTER_BYTES), size, blob_url)
                disk.end_upload()
            disk.facts.state = "Unattached"
            disk.save()

    def get(self, disk_id: str) -> StoredDisk:
        """Return a disk or snapshot; DiskError 404 if there is none."""
        with self._lock:
            disk = self._disks.get(disk_id)
        if disk is None:
            raise unknown(disk_id)
        return disk

    def by_account(self, account: str) -> StoredDisk | None:
        """Return the disk behind the first part of a signed URL, None once revoked."""
        with self._lock:
            return self._by_account.get(account)

    def close(self) -> None:
        """Close all files; nothing is lost."""
        with self._lock:
            for disk in self._disks.values():
                disk.close()
            self._disks.clear()

    def _refuse_stuck(self, disk: StoredDisk) -> None:
        if disk.facts.refused_revokes < self._knobs.stuck_upload:
            disk.facts.refused_revokes += 1
            disk.save()
            raise wrong_state(disk.facts.id, disk.facts.state, "revoke access to")

    def _replace_policy(self, disk: StoredDisk, policy: Policy | None) -> None:
        before = disk.policy
        with self._lock:
            if before is not None:
                self._by_account.pop(before.account, None)
            if policy is not None:
                self._by_account[policy.account] = disk
        disk.facts.policy = None if policy is None else asdict(policy)

    def _copyable(self, source_id: str, verb: str) -> StoredDisk:
        source = self.get(source_id)
        if source.uploading:
            raise wrong_state(source_id, source.facts.state, verb)
        return source

    def _add(self, facts: DiskFacts, file_bytes: int, source: StoredDisk | None) -> None:
        key = hashlib.sha256(facts.id.encode()).hexdigest()[:24]
        facts.secret = secrets.token_hex(32)
        with self._name(facts.id):
            path = self._folder / f"{key}.disk"
            if source is None:
                with path.open("wb") as file:
                    file.truncate(file_bytes)
            else:
                # Readers of the source go on meanwhile. A machine that has it may write while it is
                # copied: what it wrote is looked for afterwards, so that nothing is missed.
                with source.busy():
                    copy_sparse(source.fd, path, file_bytes)
                    if source.facts.state == "Attached":
                        source.take_up()
                    ranges = source.pages.all()
            (self._folder / f"{key}.pages").unlink(missing_ok=True)
            disk = StoredDisk(self._folder, facts, key)
            if source is not None:
                disk.pages.replace(ranges)
            disk.save()
            with self._lock:
                self._disks[facts.id] = disk

    @contextlib.contextmanager
    def _name(self, disk_id: str) -> Iterator[None]:
        """Take the name until the disk is there: two threads may create the same one."""
        with self._lock:
            if disk_id in self._disks or disk_id in self._creating:
                raise DiskError(409, "Conflict", f"'{disk_id}' exists.")
            self._creating.add(disk_id)
        try:
            yield
        finally:
            with self._lock:
                self._creating.discard(disk_id)

    def _load(self) -> None:
        """Take up what an earlier service kept, and remove what it was still copying."""
        for path in self._folder.glob("*.json"):
            disk = StoredDisk(self._folder, facts_of(path), path.stem)
            self._disks[disk.facts.id] = disk
            if disk.policy is not None:
                self._by_account[disk.policy.account] = disk
        known = {disk.path.stem for disk in self._disks.values()}
        for path in self._folder.iterdir():
            if path.stem.split(".")[0] not in known:
                path.unlink()


def _state_after_grant(disk: StoredDisk, mode: str) -> str:
    state = disk.facts.state
    if mode == "Write":
        if state not in {"ReadyToUpload", "ActiveUpload"}:
            raise wrong_state(disk.facts.id, state, "grant write access to")
        return "ActiveUpload"
    if mode != "Read":
        raise DiskError(400, "InvalidParameter", f"The value '{mode}' of 'access' is not valid.")
    if state not in {"Unattached", "ActiveSAS"}:
        raise wrong_state(disk.facts.id, state, "grant read access to")
    return "ActiveSAS"


def _new_policy(mode: str, now: float, seconds: float, base_url: str) -> Policy:
    # 12 letters and digits, as Azure's; uploads have another prefix than exports.
    prefix = "md-impexp-" if mode == "Write" else "md-"
    account, container = prefix + secrets.token_hex(6), secrets.token_hex(6)
    return Policy(mode, account, container, str(uuid.uuid4()), now, now + seconds, base_url)
