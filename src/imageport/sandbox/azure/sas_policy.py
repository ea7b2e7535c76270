# References: Azure Storage, "Create a service SAS", version 2018-03-28 (string-to-sign of a blob
# with a stored access policy); Compute's beginGetAccess answers ``?sv=2018-03-28&sr=b&si=…&sig=…``.
"""Signed URLs of managed disks: permissions and times are kept here, not in the URL.

So it is in Azure: a client cannot read from the URL when it ends or what it allows, and access is
revoked by removing the policy that ``si`` names.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from urllib.parse import quote

VERSION = "2018-03-28"
BLOB = "abcd"
"""The name of the blob behind every managed disk."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One grant; times are seconds since the epoch on the clock of ARM."""

    mode: str
    """``Read`` or ``Write``."""
    account: str
    """First part of the URL's path; in Azure the first label of its host."""
    container: str
    identifier: str
    start: float
    expiry: float
    base_url: str

    @property
    def blob_url(self) -> str:
        """Return the URL without its secret."""
        return f"{self.base_url}/{self.account}/{self.container}/{BLOB}"

    @property
    def permissions(self) -> str:
        """Return what the policy allows: a write grant lets its holder read back, too."""
        return "rw" if self.mode == "Write" else "r"


def signature(secret: bytes, policy: Policy) -> str:
    """Return the signature of the URL, base64 of an HMAC-SHA256."""
    resource = f"/blob/{policy.account}/{policy.container}/{BLOB}"
    fields = ["", "", "", resource, policy.identifier, "", "", VERSION, "", "", "", "", ""]
    mac = hmac.new(secret, "\n".join(fields).encode(), hashlib.sha256)
    return base64.b64encode(mac.digest()).decode()


def signed_url(secret: bytes, policy: Policy) -> str:
    """Return the URL that beginGetAccess hands out: a secret."""
    query = f"sv={VERSION}&sr=b&si={policy.identifier}"
    return f"{policy.blob_url}?{query}&sig={quote(signature(secret, policy), safe='')}"


def fits(secret: bytes, policy: Policy, query: dict[str, str]) -> bool:
    """Tell whether the query is the one that was signed."""
    named = (query.get("sv"), query.get("sr"), query.get("si"))
    if named != (VERSION, "b", policy.identifier):
        return False
    return hmac.compare_digest(query.get("sig", "").encode(), signature(secret, policy).encode())
