"""A real Azure subscription for probes: a site of its own in a resource group, and an end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from imageport.clouds.azure.access_grant import AccessGrant, access_id, end_access
from imageport.clouds.azure.account import AzureAccount
from imageport.clouds.azure.clients import AzureClients
from imageport.clouds.azure.cloud import AzureCloud
from imageport.clouds.azure.disks import create_upload_disk, delete_disk
from imageport.clouds.azure.names import DISKS, resource_id, resource_name
from imageport.clouds.azure.page_client import PageClient
from imageport.clouds.azure.settings import AzureSettings
from imageport.clouds.azure.worker_login import worker_credential
from imageport.model import MIB
from imageport.state.store import StateStore
from imageport.storage.memory import MemoryFolder
from tests.real.removal import remove_all

SMALLEST_BYTES = 20 * MIB
"""Of a disk that can be uploaded, without its footer."""
ACCESS_SECONDS = 3600.0


class RealAzure:
    """One resource group; everything made carries the probe's own site and is deleted."""

    def __init__(self, named: Mapping[str, str], site: str) -> None:
        self.named = named
        self.site = site
        self.credential = worker_credential(self.settings())
        self.clients = AzureClients(self.settings(), self.credential)
        self.state = StateStore(MemoryFolder())
        self._open: list[AzureCloud] = []

    def settings(self, **changes: Any) -> AzureSettings:
        known: dict[str, Any] = {
            "subscription_id": self.named["subscription"],
            "resource_group": self.named["resource_group"],
            "location": self.named["location"],
            "subnet_id": self.named["subnet_id"],
            "job_container_url": self.named["job_container_url"],
            "environment": self.named.get("environment", "public"),
            "endpoint_url": self.named.get("endpoint_url", ""),
            "engine_image_id": self.named.get("engine_image_id", ""),
            "site": self.site,
        }
        return AzureSettings(**(known | changes))

    def needs(self, name: str) -> str:
        """Return an optional variable, or skip with the reason."""
        if name not in self.named:
            pytest.skip(f"needs IMAGEPORT_REAL_AZURE_{name.upper()} (tests/real/README.md)")
        return self.named[name]

    def cloud(self, **changes: Any) -> AzureCloud:
        made = AzureCloud(self.settings(**changes), self.credential, self.state.ledger, "probe")
        self._open.append(made)
        return made

    def account(self, **changes: Any) -> AzureAccount:
        return AzureAccount(self.settings(**changes), self.clients, self.state.ledger, "probe")

    @contextlib.contextmanager
    def upload_disk(self, purpose: str, size_bytes: int = SMALLEST_BYTES) -> Iterator[str]:
        """Make an empty disk that waits for its upload, and delete it whatever its state."""
        account = self.account()
        intent = account.intend("disk", "upload", purpose)
        disk_id = resource_id(account.settings, DISKS, resource_name(intent))
        create_upload_disk(account, disk_id, intent, size_bytes + 512)
        account.record(intent, disk_id)
        try:
            yield disk_id
        finally:
            delete_disk(account, disk_id)

    @contextlib.contextmanager
    def access(self, arm_id: str, mode: Any) -> Iterator[AccessGrant]:
        """Grant access and revoke it; what Azure says of the footer is no matter then."""
        grant = AccessGrant(self.account(), arm_id, mode, ACCESS_SECONDS)
        try:
            yield grant
        finally:
            with contextlib.suppress(Exception):
                grant.revoke()

    def pages(self, arm_id: str) -> PageClient:
        return PageClient(self.clients, access_id(arm_id))

    def revoke(self, arm_id: str) -> None:
        end_access(self.account(), arm_id)

    def remove_everything(self) -> None:
        """Delete what carries this probe's site, whatever the probe itself left."""
        try:
            remove_all(self.cloud(), self.site)
        finally:
            for each in self._open:
                each.close()
            self.clients.close()
