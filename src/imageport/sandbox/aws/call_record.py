# References: AWS Signature Version 4: the credential scope names region and service.
"""Which IAM actions were asked for and carried out: what a policy has to allow, and no more."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from imageport.sandbox.aws.iam_policy import Check

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


Key = tuple[str, str, tuple[tuple[str, str], ...]]


class CallRecord:
    """The actions of all requests so far; may be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: dict[Key, None] = {}
        self._done: set[str] = set()

    def note(self, checks: Iterable[Check], *, done: bool) -> None:
        """Note what was asked of IAM, and whether the request was carried out."""
        with self._lock:
            for one in checks:
                key = (one.action, one.resource, tuple(sorted(one.context.items())))
                self._asked[key] = None
                if done:
                    self._done.add(one.action)

    def forget(self) -> None:
        """Start anew."""
        with self._lock:
            self._asked.clear()
            self._done.clear()

    def document(self) -> dict[str, list[Any]]:
        """Return the actions asked for and carried out, sorted, and every distinct check."""
        with self._lock:
            asked, done = list(self._asked), sorted(self._done)
        return {
            "asked": sorted({action for action, _, _ in asked}),
            "done": done,
            "checks": [[action, resource, dict(context)] for action, resource, context in asked],
        }


def read_scope(environ: dict[str, Any]) -> Scope:
    """Return the scope of a request's signature."""
    for text in (environ.get("HTTP_AUTHORIZATION", ""), environ.get("QUERY_STRING", "")):
        found = _SCOPE.search(text)
        if found:
            return Scope(*found.groups())
    return Scope()
