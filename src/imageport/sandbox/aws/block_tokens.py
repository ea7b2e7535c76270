# References: Amazon EBS direct APIs: block tokens end after 7 days, page tokens after 60 minutes.
"""Tokens that the block servers hand out and check: signed, bound to their subject, ending."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time

BLOCK_TOKEN_SECONDS = 7 * 86400
PAGE_TOKEN_SECONDS = 60 * 60
_MAC_BYTES = 16


def make_token(secret: bytes, subject: str, seconds: float) -> str:
    """Return a token for ``subject``."""
    text = f"{int(time.time() + seconds)} {subject}".encode()
    return base64.urlsafe_b64encode(_mac(secret, text) + text).decode()


def read_token(secret: bytes, token: str) -> str | None:
    """Return the subject of a token, None when it is not ours or has ended."""
    try:
        packed = base64.urlsafe_b64decode(token.encode())
    except (binascii.Error, ValueError):
        return None
    mac, text = packed[:_MAC_BYTES], packed[_MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(secret, text)):
        return None
    ends, _, subject = text.decode().partition(" ")
    return subject if int(ends) > time.time() else None


def _mac(secret: bytes, text: bytes) -> bytes:
    return hmac.new(secret, text, hashlib.sha256).digest()[:_MAC_BYTES]
