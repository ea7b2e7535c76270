"""The bucket folder of one engine job: what goes in, the one report and the one log that come out.

Presigned URLs are secrets: they exist only inside the job's own documents, never in a message.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from imageport.clouds.aws.account import Account
from imageport.clouds.aws.error_mapping import asked
from imageport.clouds.intents import Intent
from imageport.clouds.job_names import ROOT, prefix_of
from imageport.errors import ResourceGone


class JobFolder:
    """One folder; the ledger knows it as one resource."""

    def __init__(self, account: Account, role: str, *facts: str) -> None:
        account.settings.require("bucket")
        self._account = account
        self._bucket = account.settings.bucket
        self._intent: Intent = account.intend("object", role, account.run, *facts)
        # The run of the entry, which a resumed run may have taken over.
        self.prefix = prefix_of(
            account.settings.site, self._intent.entry.run, self._intent.client_token
        )
        account.record(self._intent, self.prefix)

    def write(self, name: str, data: bytes) -> str:
        """Write one object and return its sha256."""
        with asked("s3:PutObject", self.prefix + name):
            self._account.clients.s3.put_object(
                Bucket=self._bucket, Key=self.prefix + name, Body=data
            )
        return hashlib.sha256(data).hexdigest()

    def write_file(self, name: str, path: Path) -> str:
        """Write a file of any size as one object and return its sha256."""
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            with asked("s3:PutObject", self.prefix + name):
                self._account.clients.s3.put_object(
                    Bucket=self._bucket, Key=self.prefix + name, Body=file
                )
        return sha256

    def read(self, name: str) -> bytes | None:
        """Return one object, or None while it is not there."""
        try:
            with asked("s3:GetObject", self.prefix + name):
                answer = self._account.clients.s3.get_object(
                    Bucket=self._bucket, Key=self.prefix + name
                )
                with answer["Body"] as body:
                    return body.read()
        except ResourceGone:
            return None

    def read_url(self, name: str, seconds: float) -> str:
        """Return a URL that can read this one key."""
        return self._url("get_object", name, seconds)

    def write_url(self, name: str, seconds: float) -> str:
        """Return a URL that can write this one key."""
        return self._url("put_object", name, seconds)

    def delete(self) -> None:
        """Delete every object of the job."""
        delete_prefix(self._account, self.prefix)
        self._account.mark(self.prefix, "deleted")

    def _url(self, operation: str, name: str, seconds: float) -> str:
        parameters: dict[str, Any] = {"Bucket": self._bucket, "Key": self.prefix + name}
        with asked("s3:GetObject", self.prefix + name):
            return self._account.clients.s3.generate_presigned_url(
                operation, Params=parameters, ExpiresIn=int(seconds)
            )


def delete_prefix(account: Account, prefix: str) -> None:
    """Delete every object below a prefix (or the one object of that key)."""
    if not prefix.startswith(f"{ROOT}/"):
        raise ResourceGone(f"Cannot delete '{prefix}': it is not below '{ROOT}/'.")
    for key, _ in list_objects(account, prefix):
        with asked("s3:DeleteObject", key):
            account.clients.s3.delete_object(Bucket=account.settings.bucket, Key=key)


def list_objects(account: Account, prefix: str) -> list[tuple[str, Any]]:
    """Return (key, last modified) of every object below a prefix."""
    found: list[tuple[str, Any]] = []
    with asked("s3:ListBucket", f"{account.settings.bucket}/{prefix}"):
        pages = account.clients.s3.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=account.settings.bucket, Prefix=prefix):
            found += [(item["Key"], item["LastModified"]) for item in page.get("Contents", [])]
    return found
