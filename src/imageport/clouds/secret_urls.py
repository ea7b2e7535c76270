# References: Azure Storage, "Service SAS"; Cloud Storage, "Signed URLs", "Resumable uploads".
"""Signed URLs and tokens are secrets: cut from every text that people or log files may see."""

from __future__ import annotations

import logging
import re
from typing import Final

LONGEST_TEXT: Final = 300
"""Of what a cloud says; more is not read."""

_QUERY: Final = re.compile(r"\?[^\s'\"<>=?]*=[^\s'\"<>]*")
_SIGNATURE: Final = re.compile(
    r"(sig|X-Goog-Signature|upload_id|access_token)(=|%3D)[^\s&'\"<>]+", re.IGNORECASE
)
"""In whatever a URL is quoted in."""
_LOGIN_IN_URL: Final = re.compile(r"(https?://)[^\s/@]+@")
_TOKEN: Final = re.compile(
    r"((?:(?:access|id|refresh|subject)_?token|client_?secret|signed_?jwt|assertion|private_?key)"
    r"[\\\x22']*\s*:\s*[\\\x22']+)[^\\\s\x22',}]+",
    re.IGNORECASE,
)
"""In the answer of a token service, which google-auth quotes whole in what it raises."""
_SECRETS: Final = (_QUERY, _SIGNATURE, _LOGIN_IN_URL, _TOKEN)
_BARE_QUERY: Final = re.compile(r"\?[^\s'\"=?]*=[^\s'\"]*")


def without_secrets(text: str) -> str:
    """Cut query strings and logins of URLs, tokens, and what is too long to read."""
    plain = _TOKEN.sub(r"\1…", _QUERY.sub("?…", _LOGIN_IN_URL.sub(r"\1…@", text)))
    return " ".join(_SIGNATURE.sub(r"\1\2…", plain).split())[:LONGEST_TEXT]


def without_queries(text: str) -> str:
    """Cut query strings and nothing else: what is logged or told at length stays whole."""
    return _BARE_QUERY.sub("?…", text)


def shows_secret(error: BaseException | None) -> bool:
    """Tell whether a traceback of ``error`` and of what caused it would print a secret."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        text = str(error)
        if any(secret.search(text) for secret in _SECRETS):
            return True
        error = error.__cause__ or error.__context__
    return False


class _HideQueries(logging.Filter):
    """Cuts query strings from a record: urllib3 logs each request's path with its signature."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every record, without what is secret in it."""
        record.msg = without_queries(record.getMessage())
        record.args = ()
        return True


_HIDE_QUERIES: Final = _HideQueries()


def hide_queries_in_logs() -> None:
    """Keep signed URLs out of urllib3's debug log; may be called often."""
    for name in ("urllib3.connectionpool", "urllib3.connection", "urllib3.util.retry"):
        logger = logging.getLogger(name)
        if _HIDE_QUERIES not in logger.filters:
            logger.addFilter(_HIDE_QUERIES)


class _HideBodies(logging.Filter):
    """Cuts from records what was sent and answered: a machine's script holds signed URLs."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every record, without bodies and headers."""
        for name in ("httpRequest", "httpResponse", "metadata"):
            record.__dict__.pop(name, None)
        return True


_HIDE_BODIES: Final = _HideBodies()


def hide_bodies_in_log(logger: logging.Logger) -> None:
    """Keep bodies and headers out of the debug log of one of Google's; may be called often."""
    if _HIDE_BODIES not in logger.filters:
        logger.addFilter(_HIDE_BODIES)
