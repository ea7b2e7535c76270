# References: Cloud Storage JSON API v1, Objects: list.
"""Pages of a bucket's objects: all that was written before is there (strong consistency)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from imageport.sandbox.gcp.gcs_access import LIST, Access
from imageport.sandbox.gcp.gcs_messages import GcsRefusal, bad_request
from imageport.sandbox.gcp.gcs_resources import object_resource
from imageport.sandbox.gcp.gcs_store import ObjectStore, StoredObject

MOST_RESULTS: Final = 1000
"""Of one page, whatever is asked for."""
_BEHIND: Final = "\U0010ffff"
"""Sorts behind every name that begins with what stands before it."""


@dataclass(slots=True)
class _Page:
    items: list[StoredObject] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    next_name: str = ""
    """Where the next page begins; empty on the last one."""


def list_objects(store: ObjectStore, query: Mapping[str, str], access: Access) -> dict[str, Any]:
    """Answer objects.list."""
    prefix = query.get("prefix", "")
    access.check(LIST, list_prefix=prefix)
    text = query.get("maxResults", str(MOST_RESULTS))
    if not text.isdigit() or int(text) < 1:
        raise bad_request(f"Invalid value '{text}' for maxResults.", "invalidParameter")
    most = min(int(text), MOST_RESULTS)
    token = query.get("pageToken", "")
    start = _read_token(token) if token else query.get("startOffset", "")
    end, delimiter = query.get("endOffset", ""), query.get("delimiter", "")
    if delimiter:
        page = _grouped(store, (prefix, start, end), delimiter, most)
    else:
        found = store.page(prefix, start, end, most + 1)
        page = _Page(found[:most], next_name=found[most].name if len(found) > most else "")
    document: dict[str, Any] = {"kind": "storage#objects"}
    if page.items:
        document["items"] = [object_resource(one) for one in page.items]
    if page.prefixes:
        document["prefixes"] = page.prefixes
    if page.next_name:
        document["nextPageToken"] = base64.urlsafe_b64encode(page.next_name.encode()).decode()
    return document


def _grouped(store: ObjectStore, span: tuple[str, str, str], delimiter: str, most: int) -> _Page:
    """Return a page in which names that go on behind a delimiter are one prefix."""
    prefix, start, end = span
    page = _Page()
    while True:
        found = store.page(prefix, start, end, 1)
        if not found:
            return page
        name = found[0].name
        if len(page.items) + len(page.prefixes) == most:
            page.next_name = name
            return page
        head, mark, _rest = name[len(prefix) :].partition(delimiter)
        if mark:
            group = prefix + head + mark
            page.prefixes.append(group)
            start = group + _BEHIND
        else:
            page.items.append(found[0])
            start = name + "\0"


def _read_token(text: str) -> str:
    try:
        return base64.urlsafe_b64decode(text.encode()).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise GcsRefusal(400, "invalid", "Invalid value for: pageToken") from error
