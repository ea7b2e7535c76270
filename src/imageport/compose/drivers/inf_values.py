# References: Microsoft "INF AddReg directive".
"""Registry values that an INF asks for (AddReg), as far as they lie below the device's own keys."""

from __future__ import annotations

import re
from dataclasses import dataclass

from imageport.compose.drivers.inf_text import InfText
from imageport.compose.hives.registry_value import Kind, Value

NO_CLOBBER = 0x2
APPEND = 0x8
_DELETE = 0x4
_KEY_ONLY = 0x10
_OVERWRITE_ONLY = 0x20
_TYPE_MASK = 0xFFFF0001
_TYPES = {
    0x00000000: Kind.SZ,
    0x00000001: Kind.BINARY,
    0x00010000: Kind.MULTI_SZ,
    0x00020000: Kind.EXPAND_SZ,
    0x00010001: Kind.DWORD,
    0x00020001: Kind.NONE,
    0x000B0001: Kind.QWORD,
}
_HEX_BYTE = re.compile(r"(?:0x)?([0-9a-f]{1,2})", re.IGNORECASE)
_MAX_NAME = 255
"""Characters of a key's name; values' names may be longer, and are not in drivers."""
MAX_VALUES = 2000
"""Of one device; drivers of network adapters have some hundred."""


@dataclass(frozen=True, slots=True)
class InfValue:
    """One value; ``key`` is relative to the device's (or the service's) own key.

    ``value`` is None for a line that only makes the key. ``flags`` are those of `NO_CLOBBER` and
    `APPEND` that it has.
    """

    key: str
    name: str
    value: Value | None
    flags: int = 0


def read_values(document: InfText, sections: list[str]) -> tuple[list[InfValue], list[str]]:
    """Return the values of some AddReg sections, and what in them is not followed.

    Values elsewhere in the registry than below the device, deletions and what cannot be
    understood are left to Windows' own setup, which reads the same INF at first boot.
    """
    values: list[InfValue] = []
    left: list[str] = []
    for section in {name.lower(): name for name in sections}.values():
        for line in document.section(section)[:MAX_VALUES]:
            read = _value([document.expand(field) for field in line.fields])
            if read is None:
                left.append(f"[{section}] {line.text[:60]}")
            else:
                values.append(read)
    return values[:MAX_VALUES], left


def number(text: str) -> int | None:
    """Return a number as an INF writes it, decimal or 0x…, None when it is none of 64 bits."""
    try:
        found = int(text.strip() or "0", 0)
    except ValueError:
        return None
    return found if 0 <= found < 2**64 else None


def _value(fields: list[str]) -> InfValue | None:
    root, key, name, flag_text = ([*fields, "", "", "", ""])[:4]
    flags = number(flag_text)
    if root.upper() != "HKR" or flags is None or flags & (_DELETE | _OVERWRITE_ONLY):
        return None
    parts = [part for part in key.split("\\") if part]
    if max(map(len, [*parts, name])) > _MAX_NAME:
        return None
    key = "\\".join(parts)
    if flags & _KEY_ONLY:
        return InfValue(key, "", None)
    kind = _TYPES.get(flags & _TYPE_MASK)
    data = None if kind is None else _data(kind, fields[4:])
    if data is None:
        return None
    return InfValue(key, name, data, flags & (NO_CLOBBER | APPEND))


def _data(kind: Kind, fields: list[str]) -> Value | None:
    if kind in {Kind.SZ, Kind.EXPAND_SZ}:
        text = fields[0] if fields else ""
        return Value.text(text) if kind is Kind.SZ else Value.expandable(text)
    if kind is Kind.MULTI_SZ:
        return Value.texts([text for text in fields if text])
    if kind in {Kind.DWORD, Kind.QWORD} and len(fields) <= 1:
        found, size = number("".join(fields)), 4 if kind is Kind.DWORD else 8
        fits = found is not None and found < 2 ** (8 * size)
        return Value(kind, (found or 0).to_bytes(size, "little")) if fits else None
    matches = [_HEX_BYTE.fullmatch(field.strip()) for field in fields if field.strip()]
    if not all(matches):
        return None
    return Value(kind, bytes(int(match[1], 16) for match in matches if match))
