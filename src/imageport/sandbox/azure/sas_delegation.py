# References: Azure Storage, "Create a user delegation SAS" (string-to-sign by version),
# "Get User Delegation Key"; versions 2020-12-06 and later.
"""User delegation keys and the URLs signed with them.

The server keeps no key: a key is derived from its own fields, which every signed URL repeats.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass

OLDEST_VERSION = "2020-12-06"
_SINCE_TENANT = "2025-07-05"
_SINCE_REQUEST_PARTS = "2026-04-06"
_KEY_FIELDS = ("skoid", "sktid", "skt", "ske", "sks", "skv")


@dataclass(frozen=True, slots=True)
class DelegationKey:
    """A key as the service describes it, without its value."""

    oid: str
    tid: str
    start: str
    expiry: str
    service: str
    version: str

    def query(self) -> dict[str, str]:
        """Return the fields as a signed URL repeats them."""
        values = (self.oid, self.tid, self.start, self.expiry, self.service, self.version)
        return dict(zip(_KEY_FIELDS, values, strict=True))


def key_value(secret: bytes, fields: dict[str, str]) -> bytes:
    """Return the key that belongs to these fields."""
    text = "\n".join(fields.get(name, "") for name in _KEY_FIELDS)
    return hmac.new(secret, text.encode(), hashlib.sha256).digest()


def string_to_sign(query: dict[str, str], resource: str) -> str:
    """Return what a user delegation SAS of a version since 2020-12-06 signs."""

    def values(*names: str) -> list[str]:
        return [query.get(name, "") for name in names]

    version = query.get("sv", "")
    lines = [*values("sp", "st", "se"), resource, *values(*_KEY_FIELDS)]
    lines += values("saoid", "suoid", "scid")
    if version >= _SINCE_TENANT:
        lines += values("skdutid", "sduoid")
    lines += values("sip", "spr", "sv", "sr", "snapshot", "ses")
    if version >= _SINCE_REQUEST_PARTS:
        lines += ["", ""]  # signed headers and query parameters: refused elsewhere
    lines += values("rscc", "rscd", "rsce", "rscl", "rsct")
    return "\n".join(lines)


def fits(secret: bytes, query: dict[str, str], resource: str) -> bool:
    """Tell whether the signature is the one that the key of these fields makes."""
    text = string_to_sign(query, resource)
    mac = hmac.new(key_value(secret, query), text.encode(), hashlib.sha256).digest()
    return hmac.compare_digest(base64.b64encode(mac), query.get("sig", "").encode())
