# References: Cloud Storage, "V4 signing process with your own program", "Canonical requests",
# "Signatures"; "Signed URLs".
"""Signed URLs: who holds one may do one thing, in one way, for a time."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qsl, quote, unquote

from imageport.sandbox.gcp.account import SERVICE_ACCOUNT
from imageport.sandbox.gcp.gcs_messages import GcsRefusal, GcsRequest
from imageport.sandbox.gcp.token_store import CLOCK_TOLERANCE_SECONDS, TokenStore

ALGORITHM: Final = "GOOG4-RSA-SHA256"
LONGEST_SECONDS: Final = 7 * 24 * 3600
UNSIGNED_PAYLOAD: Final = "UNSIGNED-PAYLOAD"
_SIGNATURE: Final = "X-Goog-Signature"
_NEEDED: Final = (
    "X-Goog-Algorithm",
    "X-Goog-Credential",
    "X-Goog-Date",
    "X-Goog-Expires",
    "X-Goog-SignedHeaders",
    _SIGNATURE,
)
_SCOPE: Final = re.compile(r"(?P<email>[^/]+)/(?P<day>\d{8})/[a-z0-9-]+/storage/goog4_request")
_SPACES: Final = re.compile(r"[ \t]+")


def is_signed(request: GcsRequest) -> bool:
    """Tell whether a request's URL claims to be signed."""
    return any(name.lower() == _SIGNATURE.lower() for name in request.queries)


def check_signature(request: GcsRequest, tokens: TokenStore) -> None:
    """Refuse a signed URL that is not what the account signed, or not now.

    Raises:
        GcsRefusal: 400 for what is malformed or expired, 403 for another signature.
    """
    query = dict(parse_qsl(request.raw_query, keep_blank_values=True))
    missing = [name for name in _NEEDED if name not in query]
    if missing or len(query) != len(parse_qsl(request.raw_query, keep_blank_values=True)):
        raise _malformed(f"Missing or repeated parameters: {', '.join(missing)}")
    scope = _SCOPE.fullmatch(query["X-Goog-Credential"])
    if query["X-Goog-Algorithm"] != ALGORITHM or scope is None:
        raise _malformed("X-Goog-Algorithm or X-Goog-Credential")
    _check_time(query, scope["day"], tokens.now())
    if scope["email"] != SERVICE_ACCOUNT:
        raise GcsRefusal(403, "forbidden", "The account does not exist.", code="AccessDenied")
    signed_headers = query["X-Goog-SignedHeaders"].split(";")
    _check_headers(request, signed_headers)
    canonical = _canonical(request, query, signed_headers)
    scope_text = query["X-Goog-Credential"].partition("/")[2]
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"{ALGORITHM}\n{query['X-Goog-Date']}\n{scope_text}\n{digest}".encode()
    try:
        signature = bytes.fromhex(query[_SIGNATURE])
    except ValueError as error:
        raise _malformed(_SIGNATURE) from error
    if not any(key.verifies(text, signature) for key in (tokens.account_key, tokens.system_key)):
        words = (
            "Access denied. The request signature we calculated does not match the signature you "
            "provided. Check your Google secret key and signing method."
        )
        raise GcsRefusal(403, "forbidden", words, code="SignatureDoesNotMatch")


def _check_time(query: dict[str, str], day: str, now: float) -> None:
    try:
        moment = datetime.strptime(query["X-Goog-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        seconds = int(query["X-Goog-Expires"])
    except ValueError as error:
        raise _malformed("X-Goog-Date or X-Goog-Expires") from error
    if not 1 <= seconds <= LONGEST_SECONDS or not query["X-Goog-Date"].startswith(day):
        raise _malformed("X-Goog-Expires, or the day in X-Goog-Credential")
    if moment.timestamp() > now + CLOCK_TOLERANCE_SECONDS:
        text = "The request's time is in the future."
        raise GcsRefusal(403, "forbidden", text, code="RequestTimeTooSkewed")
    if moment.timestamp() + seconds < now:
        raise GcsRefusal(400, "invalid", "The provided token has expired.", code="ExpiredToken")


def _check_headers(request: GcsRequest, signed: list[str]) -> None:
    """The host, and every extension header that is sent, have to be signed."""
    unsigned = {
        name for name in request.headers if name.startswith("x-goog-") and name not in signed
    }
    if "host" not in signed or signed != sorted(set(signed)) or unsigned:
        names = ", ".join(sorted(unsigned)) or "host"
        raise _malformed(f"X-Goog-SignedHeaders: headers that were not signed: {names}")


def _canonical(request: GcsRequest, query: dict[str, str], signed: list[str]) -> str:
    pairs = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in query.items()
        if name != _SIGNATURE
    )
    path = quote(unquote(request.raw_path), safe="/-_.~")
    values = {name: _SPACES.sub(" ", request.headers.get(name, "").strip()) for name in signed}
    return "\n".join(
        (
            request.method,
            path,
            "&".join(f"{name}={value}" for name, value in pairs),
            *(f"{name}:{value}" for name, value in values.items()),
            "",
            ";".join(signed),
            values.get("x-goog-content-sha256", UNSIGNED_PAYLOAD),
        )
    )


def _malformed(what: str) -> GcsRefusal:
    return GcsRefusal(400, "invalid", f"Invalid argument: {what}", code="InvalidArgument")
