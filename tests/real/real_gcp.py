"""A real Google Cloud project for probes: a folder of its own in a bucket, and an end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import pytest
import requests

from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.clients import TIMEOUT, GcpClients
from imageport.clouds.gcp.cloud import GcpCloud
from imageport.clouds.gcp.credentials import credentials_from_worker
from imageport.clouds.gcp.names import site_folder, temporary_folder
from imageport.clouds.gcp.objects import Objects
from imageport.clouds.gcp.settings import GcpSettings
from imageport.state.store import StateStore
from imageport.storage.memory import MemoryFolder
from tests.real.removal import remove_all


class RealGcp:
    """One project and bucket; everything made lies in the probe's own folder and is deleted."""

    def __init__(self, named: Mapping[str, str], site: str) -> None:
        self.named = named
        self.site = site
        settings = self.settings()
        self.clients = GcpClients(settings, credentials_from_worker(settings))
        self.state = StateStore(MemoryFolder())
        self.account = GcpAccount(settings, self.clients, self.state.ledger, "probe")
        self.objects = Objects(self.account)
        self._open: list[GcpCloud] = []

    def settings(self, **changes: Any) -> GcpSettings:
        known: dict[str, Any] = {
            "project": self.named["project"],
            "region": self.named["region"],
            "zone": self.named["zone"],
            "bucket": self.named["bucket"],
            "endpoint_url": self.named.get("endpoint_url", ""),
            "site": self.site,
        }
        return GcpSettings(**(known | changes))

    def needs(self, name: str) -> str:
        """Return an optional variable, or skip with the reason."""
        if name not in self.named:
            pytest.skip(f"needs IMAGEPORT_REAL_GCP_{name.upper()} (tests/real/README.md)")
        return self.named[name]

    def cloud(self, **changes: Any) -> GcpCloud:
        """Return a cloud that may make machines."""
        settings = self.settings(subnet=self.needs("subnet"), **changes)
        made = GcpCloud(settings, self.clients.credentials, self.state.ledger, "probe")
        self._open.append(made)
        return made

    def account_with_subnet(self) -> GcpAccount:
        """Return an account that may make machines."""
        settings = self.settings(subnet=self.needs("subnet"))
        return GcpAccount(settings, self.clients, self.state.ledger, "probe")

    @property
    def folder(self) -> str:
        """Return where this probe's objects lie, with a slash at its end."""
        return site_folder(self.account.settings)

    @property
    def temporary(self) -> str:
        """Return where what a lifecycle rule may delete lies, with a slash at its end."""
        return temporary_folder(self.account.settings)

    def ask_storage(
        self, method: str, path: str, body: bytes = b"", token: str = "", **query: Any
    ) -> requests.Response:
        """Ask below ``/b/BUCKET/o`` once, as the worker or as who holds a token.

        ``path`` begins with ``upload`` or is an object's name.
        """
        settings = self.account.settings
        endpoint, place = settings.endpoint("storage"), f"b/{settings.bucket}/o"
        if path == "upload":
            url = f"{endpoint}/upload/storage/v1/{place}"
        else:
            url = f"{endpoint}/storage/v1/{place}/{quote(path, safe='')}"
        if not token:
            session: Any = self.clients.session
            answer: requests.Response = session.request(
                method, url, params=query, data=body, timeout=TIMEOUT
            )
            return answer
        headers = {"Authorization": f"Bearer {token}"}
        return requests.request(
            method, url, params=query, data=body, headers=headers, timeout=TIMEOUT
        )

    def put_session(self, url: str, span: str, body: bytes = b"") -> requests.Response:
        """Send a chunk to an upload session, without any token."""
        headers = {"Content-Range": f"bytes {span}"}
        return requests.put(url, data=body, headers=headers, timeout=TIMEOUT)

    def remove_everything(self) -> None:
        """Delete what carries this probe's site, and all below its folders."""
        try:
            for cloud in self._open:
                remove_all(cloud, self.site)
            for folder in (self.folder, self.temporary):
                self.objects.delete_many([found.key for found in self.objects.list(folder)])
        finally:
            for cloud in self._open:
                cloud.close()
            self.clients.close()
