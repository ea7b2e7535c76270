# References: Compute Engine REST v1, "instances.list" (filter, maxResults, pageToken, orderBy).
"""Lists: filtered, in pages."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Any, Final

from imageport.sandbox.gcp.gce_messages import GceRequest, Json, invalid
from imageport.sandbox.gcp.gce_names import link
from imageport.sandbox.gcp.gce_table import shown

LARGEST_PAGE: Final = 500
_TERM: Final = re.compile(r"""([\w.-]+)\s*(=|!=|:|\beq\b|\bne\b)\s*("[^"]*"|'[^']*'|\S+)""")


def page_of(request: GceRequest, kind: str, path: str, items: Iterable[Json]) -> Json:
    """Return one page of what the filter lets through; ``kind`` is ``imageList``."""
    order = request.fields.get("orderBy", "name")
    if order not in {"name", "creationTimestamp desc"}:
        raise invalid("orderBy", order, "Unsupported order.")
    matches = _filter(str(request.fields.get("filter", "")))
    found = [shown(item) for item in items if matches(item)]
    if order != "name":
        found.sort(key=lambda item: str(item.get("creationTimestamp", "")), reverse=True)
    size = int(request.fields.get("maxResults", LARGEST_PAGE))
    if not 0 < size <= LARGEST_PAGE:
        raise invalid("maxResults", size, f"Must be from 1 to {LARGEST_PAGE}.")
    start = _start(str(request.fields.get("pageToken", "")))
    page: Json = {"kind": f"compute#{kind}", "id": path, "selfLink": link(path)}
    chosen = found[start : start + size]
    if chosen:  # Google leaves out an empty list
        page["items"] = chosen
    if start + size < len(found):
        page["nextPageToken"] = base64.urlsafe_b64encode(f"from {start + size}".encode()).decode()
    return page


def _start(token: str) -> int:
    if not token:
        return 0
    try:
        text = base64.b64decode(token, altchars=b"-_", validate=True).decode()
        return int(text.removeprefix("from "))
    except ValueError as error:
        raise invalid("pageToken", token, "The page token is invalid.") from error


def _filter(text: str) -> Any:
    """Return what tells whether a resource fits; terms are joined by AND alone."""
    terms = [
        _term(part.strip().removeprefix("(").removesuffix(")").strip(), text)
        for part in re.split(r"\bAND\b", text)
        if text.strip()
    ]
    return lambda item: all(term(item) for term in terms)


def _term(part: str, whole: str) -> Any:
    found = _TERM.fullmatch(part)
    if found is None:
        raise invalid("filter", whole, "Invalid list filter expression.")
    member, operator, value = found.groups()
    wanted = value.strip("\"'")

    def fits(item: Json) -> bool:
        actual = _member(item, member)
        if operator == ":":
            same = actual is not None if wanted == "*" else wanted in str(actual or "")
        elif operator in {"eq", "ne"}:
            same = re.fullmatch(wanted, _text(actual)) is not None
        else:
            same = _text(actual) == wanted
        return same is (operator not in {"!=", "ne"})

    return fits


def _member(item: Json, name: str) -> Any:
    found: Any = item
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _text(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
