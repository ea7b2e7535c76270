"""Who may touch a managed disk's page blob: signature, time and permission of its URL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from imageport.sandbox.azure.blob_answers import (
    BlobRefusal,
    iso_time,
    not_authenticated,
    not_permitted,
)
from imageport.sandbox.azure.disk_knobs import DataKnobs, storage_clock
from imageport.sandbox.azure.disk_store import DiskStore
from imageport.sandbox.azure.disk_stored import StoredDisk
from imageport.sandbox.azure.sas_policy import BLOB, Policy, fits

_PATH = re.compile(rf"/(md-[a-z0-9-]+)/([a-z0-9]+)/{BLOB}")


class PageAccess:
    """Admits requests to disks."""

    def __init__(self, store: DiskStore, knobs: DataKnobs) -> None:
        self._store = store
        self._knobs = knobs

    @contextmanager
    def admit(self, path: str, query: dict[str, str], need: str) -> Iterator[StoredDisk]:
        """Give the disk of a signed URL, kept from being revoked meanwhile; 403 if refused.

        ``need`` is ``r`` or ``w``, or ``-`` for what no URL of a disk allows.
        """
        match = _PATH.fullmatch(path)
        if match is None:
            raise BlobRefusal(
                400, "InvalidUri", "The requested URI does not represent any resource."
            )
        disk = self._store.by_account(match[1])
        if disk is None:
            raise not_authenticated("Access to the disk is not granted.")
        with disk.busy():
            policy = disk.policy
            if policy is None or (policy.account, policy.container) != match.groups():
                raise not_authenticated("Access to the disk is not granted.")
            self._check(disk, policy, query)
            if need not in policy.permissions:
                raise not_permitted()
            yield disk

    def _check(self, disk: StoredDisk, policy: Policy, query: dict[str, str]) -> None:
        if not fits(bytes.fromhex(disk.facts.secret), policy, query):
            raise not_authenticated("Signature did not match.")
        now = storage_clock(self._knobs)
        if not policy.start <= now < policy.expiry:
            frame = (
                f"Start [{iso_time(policy.start)}] - Expiry [{iso_time(policy.expiry)}] - "
                f"Current [{iso_time(now)}]"
            )
            raise not_authenticated(f"Signature not valid in the specified time frame: {frame}")
