# References: AWS Signature Version 4: the credential scope names region and service.
"""Which IAM actions were asked for and carried out: what a policy has to allow, and no more."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import Any

_SCOPE = re.compile(
    r"(?:Credential=|Credential%3D)([^/%\s]+)(?:/|%2F)\d{8}(?:/|%2F)([a-z0-9-]+)(?:/|%2F)([a-z0-9-]+)"
    r"(?:/|%2F)aws4_request",
)
"""In the Authorization header, or in the query of a presigned URL."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Who asks which service where, as the signature says; empty for an unsigned request."""

    access_key: str = ""
    region: str = ""
    service: str = ""


class CallRecord:
    """The actions of all requests so far; may be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: set[str] = set()
        self._done: set[str] = set()

    def note(self, actions: tuple[str, ...], *, done: bool) -> None:
        """Note that actions were asked for, and whether they were carried out."""
        with self._lock:
            self._asked.update(actions)
            if done:
                self._done.update(actions)

    def forget(self) -> None:
        """Start anew."""
        with self._lock:
            self._asked.clear()
            self._done.clear()

    def document(self) -> dict[str, list[str]]:
        """Return both lists, sorted."""
        with self._lock:
            return {"asked": sorted(self._asked), "done": sorted(self._done)}


def read_scope(environ: dict[str, Any]) -> Scope:
    """Return the scope of a request's signature."""
    for text in (environ.get("HTTP_AUTHORIZATION", ""), environ.get("QUERY_STRING", "")):
        found = _SCOPE.search(text)
        if found:
            return Scope(*found.groups())
    return Scope()
