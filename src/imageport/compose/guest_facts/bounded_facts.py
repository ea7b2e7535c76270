"""Bounds of what is told of a guest: its texts are its own, of any length and content."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from imageport.compose.contract import Inspection
from imageport.compose.hives.registry_value import printable

_MAX_TEXT = 500
"""Characters; a program's name has some dozen, a list of name suffixes some hundred."""
_MAX_LINES = 1000
"""Of one list: 64-bit and 32-bit programs together reach it, drivers and routes never do."""


def bounded(found: Inspection) -> Inspection:
    """Return the facts as lines that fit a report and a terminal; longer ones end with ``…``."""
    told = {item.name: _bounded(getattr(found, item.name)) for item in fields(found)}
    return replace(found, **told)


def _bounded(value: Any) -> Any:
    if isinstance(value, tuple):
        lines = tuple(_bounded(line) for line in value[:_MAX_LINES])
        more = len(value) - len(lines)
        return (*lines, f"and {more} more") if more else lines
    if not isinstance(value, str):
        return value
    text = printable(value[: _MAX_TEXT + 1])
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…"
