# References: Azure Storage, "Specifying the range header for Blob service operations".
"""Byte ranges in headers: ``bytes=0-511``, both ends included."""

from __future__ import annotations

import re

from imageport.sandbox.azure.blob_answers import bad_header

_RANGE = re.compile(r"bytes=(\d{1,15})-(\d{0,15})")


def asked_range(headers: dict[str, str]) -> tuple[int, int | None] | None:
    """Return start and end (excluded; None is open) of ``x-ms-range`` or ``Range``."""
    for name in ("x-ms-range", "range"):
        if name in headers:
            return parse_range(name, headers[name])
    return None


def parse_range(name: str, value: str) -> tuple[int, int | None]:
    """Return start and end (excluded; None is open) of a header's value."""
    match = _RANGE.fullmatch(value)
    if match is None:
        raise bad_header(name, value)
    start, end = int(match[1]), int(match[2]) + 1 if match[2] else None
    if end is not None and end <= start:
        raise bad_header(name, value)
    return start, end
