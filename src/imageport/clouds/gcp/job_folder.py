# References: Cloud Storage XML API, "PUT object"; "Signed URLs"; "Customer-managed keys".
"""The folder of one engine job: what goes in, the one report and the one log that come out.

Signed URLs are secrets: they exist only inside the job's own documents, never in a message.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Final

from imageport.cloud import CloudResource
from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.names import object_id, temporary_folder
from imageport.clouds.gcp.objects import LARGEST_READ_BYTES, Objects
from imageport.clouds.gcp.settings import GcpSettings
from imageport.clouds.gcp.signing import UrlSigner
from imageport.clouds.intents import Intent
from imageport.clouds.job_names import folder_below, folders_below
from imageport.clouds.waiting import retried
from imageport.errors import ResourceGone

KMS_HEADER: Final = "x-goog-encryption-kms-key-name"
"""The key of an object that is written by a signed URL; the bucket's own key without it."""


class JobFolder:
    """One folder; the ledger knows it as one resource."""

    def __init__(self, account: GcpAccount, role: str, *facts: str) -> None:
        self._account = account
        self._objects = Objects(account)
        self._intent: Intent = account.intend("object", role, account.run, *facts)
        settings = account.settings
        # The run of the entry, which a resumed run may have taken over.
        self.prefix = folder_below(
            job_root(settings), self._intent.entry.run, self._intent.client_token
        )
        self.id = object_id(settings, self.prefix)
        account.record(self._intent, self.id)

    @property
    def put_headers(self) -> dict[str, str]:
        """Return what a write URL wants to be sent with it."""
        key = self._account.settings.kms_key
        return {KMS_HEADER: key} if key else {}

    def write(self, name: str, data: bytes) -> str:
        """Write one object and return its sha256."""
        retried(lambda: self._objects.put(self.prefix + name, data))
        return hashlib.sha256(data).hexdigest()

    def write_file(self, name: str, path: Path) -> str:
        """Write a file of any size as one object and return its sha256."""
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        retried(lambda: self._objects.put_file(self.prefix + name, path))
        return sha256

    def read(self, name: str, limit_bytes: int = LARGEST_READ_BYTES) -> bytes | None:
        """Return one object, or None while it is not there.

        Raises:
            CloudRefused: it is longer than ``limit_bytes``: a machine writes what it likes.
        """
        try:
            return retried(lambda: self._objects.get(self.prefix + name, limit_bytes))
        except ResourceGone:
            return None

    def read_url(self, name: str, seconds: float) -> str:
        """Return a URL that can read this one object."""
        return self._signer.url(self.prefix + name, "GET", seconds)

    def write_url(self, name: str, seconds: float) -> str:
        """Return a URL that can write this one object."""
        return self._signer.url(self.prefix + name, "PUT", seconds, self.put_headers)

    def delete(self) -> None:
        """Delete every object of the job."""
        delete_job_folder(self._account, self.id)

    @cached_property
    def _signer(self) -> UrlSigner:
        return UrlSigner(self._account)


def job_root(settings: GcpSettings) -> str:
    """Return where the job folders of a site lie."""
    return f"{temporary_folder(settings)}jobs/"


def job_folders(account: GcpAccount, site: str) -> list[CloudResource]:
    """Return one resource per job folder of a site; it expires after its newest object."""
    settings = replace(account.settings, site=site)
    root = job_root(settings)
    listed = [(facts.key, facts.updated) for facts in Objects(account).list(root)]
    return [
        replace(found, id=object_id(settings, found.id))
        for found in folders_below(root, listed, site, settings.expires_seconds)
    ]


def delete_job_folder(account: GcpAccount, folder_id: str) -> None:
    """Delete a job folder of the settings' site and close its ledger entry; gone is no error.

    Raises:
        ResourceGone: it is none.
    """
    settings = account.settings
    root = object_id(settings, job_root(settings))
    run, _, token = folder_id.removeprefix(root).rstrip("/").partition("/")
    if not folder_id.startswith(root) or not run or not token:
        raise ResourceGone(f"Cannot delete '{folder_id}': it is no job folder of this site.")
    objects = Objects(account)
    prefix = folder_id.removeprefix(object_id(settings, "")).rstrip("/") + "/"
    objects.delete_many([facts.key for facts in objects.list(prefix)])
    account.mark(folder_id, "deleted")
