# References: AWS Service Authorization Reference; Amazon EC2 User Guide, "Tag on creation".
"""Which IAM actions were asked for and carried out: what a policy has to allow, and no more."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote

SCOPE = re.compile(
    r"(?:Credential=|Credential%3D)[^/%\s]+(?:/|%2F)\d{8}(?:/|%2F)([a-z0-9-]+)(?:/|%2F)([a-z0-9-]+)"
    r"(?:/|%2F)aws4_request",
)
"""In the Authorization header, or in the query of a presigned URL."""

_TAG_KEY = re.compile(r"TagSpecification\.\d+\.Tag\.\d+\.Key")
_TARGET = re.compile(r"[A-Za-z0-9_]+\.([A-Za-z]+)")
_TARGET_SERVICES = {"servicequotas": "servicequotas", "kms": "kms"}

_S3_BUCKET = {
    "GET": "s3:ListBucket",
    "HEAD": "s3:ListBucket",
    "PUT": "s3:CreateBucket",
    "DELETE": "s3:DeleteBucket",
    "POST": "s3:DeleteObject",
}
"""POST to a bucket is DeleteObjects here."""
_S3_OBJECT = {
    "GET": "s3:GetObject",
    "HEAD": "s3:GetObject",
    "PUT": "s3:PutObject",
    "DELETE": "s3:DeleteObject",
}


@dataclass(frozen=True, slots=True)
class Request:
    """One request to the account, as far as IAM looks at it."""

    service: str
    """Of the signature's scope, ``ec2``."""
    actions: tuple[str, ...]
    """Every action that IAM would check; creating something with tags is two."""
    dry_run: bool = False


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


def region_and_service(environ: dict[str, Any]) -> tuple[str, str]:
    """Return what the signature's scope names, or two empty strings."""
    for text in (environ.get("HTTP_AUTHORIZATION", ""), environ.get("QUERY_STRING", "")):
        scope = SCOPE.search(text)
        if scope:
            return scope[1], scope[2]
    return "", ""


def read_request(environ: dict[str, Any], service: str, body: bytes) -> Request:
    """Tell which actions a request to any service but EBS direct asks for."""
    if service in {"ec2", "sts"}:
        form = parse_qs(body.decode(errors="replace"))
        action = form.get("Action", [""])[0]
        actions: tuple[str, ...] = (f"{service}:{action}",)
        # "Grant permission to tag Amazon EC2 resources during creation": checked as CreateTags.
        if any(_TAG_KEY.fullmatch(name) for name in form):
            actions += ("ec2:CreateTags",)
        return Request(service, actions, form.get("DryRun", [""])[0] == "true")
    if service in _TARGET_SERVICES:
        target = _TARGET.fullmatch(environ.get("HTTP_X_AMZ_TARGET", ""))
        return Request(service, (f"{service}:{target[1]}",) if target else ())
    if service == "s3":
        return Request(service, (_s3_action(environ),))
    return Request(service, ())


def _s3_action(environ: dict[str, Any]) -> str:
    """Tell the action of a path-style request."""
    _, _, key = unquote(environ["PATH_INFO"]).strip("/").partition("/")
    method = environ["REQUEST_METHOD"]
    if key:
        return _S3_OBJECT.get(method, f"s3:{method}")
    if method == "GET" and "location" in parse_qs(
        environ.get("QUERY_STRING", ""), keep_blank_values=True
    ):
        return "s3:GetBucketLocation"
    return _S3_BUCKET.get(method, f"s3:{method}")
