"""Reads the parent locator of a differencing VHDX: which content the parent has, where it lay."""

# References: [MS-VHDX] 2.6.2.6 parent locator, 2.6.2.6.3 VHDX parent locator.

from __future__ import annotations

import re
import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from imageport.formats._vhdx_layout import guid

LOCATOR_VHDX = uuid.UUID("b04aefb7-d19e-4a81-b789-25b8e9445913")
MAX_PAIRS = 256
"""The specification knows five keys; bounds what is decoded of an item of 1 MiB."""

_HEADER = struct.Struct("<16sHH")
_PAIR = struct.Struct("<IIHH")
_LINKAGES = ("parent_linkage", "parent_linkage2")
_PATHS = ("relative_path", "volume_path", "absolute_win32_path")
"""In the order that 2.6.2.6.3 prescribes."""
_GUID = re.compile(r"\{?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\}?", re.IGNORECASE)

Refuse = Callable[[str, object, object], NoReturn]
"""Raises for (what, found, needed) at the item's place."""


@dataclass(frozen=True, slots=True)
class ParentLocator:
    """``linkages`` are DataWriteGuids in lower case, ``paths`` Windows paths as they stand."""

    linkages: tuple[str, ...]
    paths: tuple[str, ...]


def unpack_locator(item: bytes, refuse: Refuse) -> ParentLocator:
    """Read a parent locator; ``refuse`` is called for the first thing that is wrong."""
    if len(item) < _HEADER.size:
        refuse("parent locator", f"{len(item)} bytes", f"at least {_HEADER.size} bytes")
    kind, _, count = _HEADER.unpack_from(item)
    if guid(kind) != LOCATOR_VHDX:
        refuse("parent locator type", guid(kind), LOCATOR_VHDX)
    if count > MAX_PAIRS:
        refuse("parent locator pairs", count, f"at most {MAX_PAIRS}")
    pairs = _pairs(item, count, refuse)
    linkages = [_linkage(pairs[key], refuse) for key in _LINKAGES if key in pairs]
    if _LINKAGES[0] not in pairs:
        refuse("parent locator", f"no {_LINKAGES[0]}", "one")
    paths = tuple(pairs[key] for key in _PATHS if key in pairs)
    if not paths:
        refuse("parent locator", "no path of the parent", f"one of {', '.join(_PATHS)}")
    return ParentLocator(tuple(linkages), paths)


def _pairs(item: bytes, count: int, refuse: Refuse) -> dict[str, str]:
    table_end = _HEADER.size + count * _PAIR.size
    if table_end > len(item):
        refuse("parent locator pairs", f"{count} in {len(item)} bytes", f"{table_end} bytes")
    pairs: dict[str, str] = {}
    for index in range(count):
        key_at, value_at, key_bytes, value_bytes = _PAIR.unpack_from(
            item, _HEADER.size + index * _PAIR.size
        )
        key = _text(item, (key_at, key_bytes), table_end, refuse)
        value = _text(item, (value_at, value_bytes), table_end, refuse)
        if key in pairs:
            refuse("parent locator key", f"'{key[:40]}' twice", "it once")
        pairs[key] = value
    return pairs


def _text(item: bytes, place: tuple[int, int], table_end: int, refuse: Refuse) -> str:
    at, length = place
    if at < table_end or at + length > len(item) or not length:
        needed = f"inside {table_end}..{len(item)}, not empty"
        refuse("parent locator text", f"{at} + {length}", needed)
    try:
        text = item[at : at + length].decode("utf-16-le")
    except UnicodeDecodeError:
        refuse("parent locator text", f"{length} bytes that are no UTF-16", "UTF-16LE")
    # The specification forbids NULs; one at the end is a known slip and harmless.
    text = text.removesuffix("\0")
    if "\0" in text:
        refuse("parent locator text", "a NUL inside", "none")
    return text


def _linkage(text: str, refuse: Refuse) -> str:
    found = _GUID.fullmatch(text)
    if found is None:
        refuse("parent linkage", repr(text[:60]), "a GUID")
    return found[1].lower()
