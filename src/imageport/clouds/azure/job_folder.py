# References: Azure Blob Storage, "Create a user delegation SAS"; Blob service REST, "Put Blob".
"""The folder of one engine job: what goes in, the one report and the one log that come out.

Signed URLs are secrets: they exist only inside the job's own documents, never in a message. They
are signed with a user delegation key, which the run's own credential gets for the time of the job:
no account key is ever known here, and a URL can do no more than the credential itself.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from azure.storage.blob import (
    BlobClient,
    BlobSasPermissions,
    UserDelegationKey,
    generate_blob_sas,
)

from imageport.clouds.azure.account import AzureAccount
from imageport.clouds.azure.error_mapping import asked, gone_already
from imageport.clouds.intents import Intent
from imageport.clouds.job_names import ROOT, prefix_of
from imageport.errors import ResourceGone

PUT_HEADERS: Final = {"x-ms-blob-type": "BlockBlob"}
"""What Put Blob wants to be told and no signed URL can say for it."""
CLOCK_SECONDS: Final = 900.0
"""How far the clocks of worker, machine and storage may be apart."""
BLOBS: Final = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"
DELEGATION: Final = (
    "Microsoft.Storage/storageAccounts/blobServices/generateUserDelegationKey/action"
)


class JobFolder:
    """One folder; the ledger knows it as one resource."""

    def __init__(self, account: AzureAccount, role: str, *facts: str) -> None:
        account.settings.require("job_container_url")
        self._account = account
        self._intent: Intent = account.intend("object", role, account.run, *facts)
        # The run of the entry, which a resumed run may have taken over.
        self.prefix = prefix_of(
            account.settings.site, self._intent.entry.run, self._intent.client_token
        )
        self._key: UserDelegationKey | None = None
        self._key_ends = datetime.now(UTC)
        account.record(self._intent, self.prefix)

    def write(self, name: str, data: bytes) -> str:
        """Write one blob and return its sha256."""
        with asked(f"{BLOBS}/write", self.prefix + name):
            self._blob(name).upload_blob(data, overwrite=True)
        return hashlib.sha256(data).hexdigest()

    def write_file(self, name: str, path: Path) -> str:
        """Write a file of any size as one blob and return its sha256."""
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            with asked(f"{BLOBS}/write", self.prefix + name):
                self._blob(name).upload_blob(file, overwrite=True)
        return sha256

    def read(self, name: str) -> bytes | None:
        """Return one blob, or None while it is not there."""
        try:
            with asked(f"{BLOBS}/read", self.prefix + name):
                found: bytes = self._blob(name).download_blob().readall()
                return found
        except ResourceGone:
            return None

    def read_url(self, name: str, seconds: float) -> str:
        """Return a URL that can read this one blob."""
        return self._url(name, BlobSasPermissions(read=True), seconds)

    def write_url(self, name: str, seconds: float) -> str:
        """Return a URL that can write this one blob."""
        return self._url(name, BlobSasPermissions(create=True, write=True), seconds)

    def delete(self) -> None:
        """Delete every blob of the job."""
        delete_prefix(self._account, self.prefix)
        self._account.mark(self.prefix, "deleted")

    def _blob(self, name: str) -> BlobClient:
        clients = self._account.clients
        return clients.blob_service.get_blob_client(clients.job_container, self.prefix + name)

    def _url(self, name: str, permission: BlobSasPermissions, seconds: float) -> str:
        expiry = datetime.now(UTC) + timedelta(seconds=seconds + CLOCK_SECONDS)
        blob = self._blob(name)
        with asked(f"{BLOBS}/read", self.prefix + name):
            signature = generate_blob_sas(
                account_name=str(blob.account_name),
                container_name=blob.container_name,
                blob_name=blob.blob_name,
                user_delegation_key=self._delegation_key(expiry),
                permission=permission,
                expiry=expiry,
            )
        return f"{blob.url}?{signature}"

    def _delegation_key(self, until: datetime) -> UserDelegationKey:
        if self._key is None or self._key_ends < until:
            service = self._account.clients.blob_service
            start = datetime.now(UTC) - timedelta(seconds=CLOCK_SECONDS)
            # A minute more, so that all URLs of one job can share the key.
            self._key_ends = until + timedelta(seconds=60)
            with asked(DELEGATION, self.prefix):
                self._key = service.get_user_delegation_key(start, self._key_ends)
        return self._key


def delete_prefix(account: AzureAccount, prefix: str) -> None:
    """Delete every blob below a prefix (or the one blob of that name)."""
    if not prefix.startswith(f"{ROOT}/"):
        raise ResourceGone(f"Cannot delete '{prefix}': it is not below '{ROOT}/'.")
    container = account.clients.blob_service.get_container_client(account.clients.job_container)
    for name, _ in list_blobs(account, prefix):
        with gone_already(), asked(f"{BLOBS}/delete", name):
            container.delete_blob(name, delete_snapshots="include")


def list_blobs(account: AzureAccount, prefix: str) -> list[tuple[str, Any]]:
    """Return (name, last modified) of every blob below a prefix."""
    container = account.clients.blob_service.get_container_client(account.clients.job_container)
    with asked(f"{BLOBS}/read", f"{account.clients.job_container}/{prefix}"):
        return [
            (item.name, item.last_modified)
            for item in container.list_blobs(name_starts_with=prefix)
        ]
