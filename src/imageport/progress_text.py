"""How far a stage is, as text for people: terminal lines, artifacts and logs say it alike."""

from __future__ import annotations

from imageport.model import MIB

_FIRST_RATE_SECONDS = 0.5
"""A rate over less time says nothing."""


def amount(done: int, total: int, unit: str, seconds: float) -> str:
    """Return ``120 of 300 MiB, 40 MiB/s, 5 s left`` or its like for other units."""
    if unit != "bytes":
        return f"{done} of {total} {unit}" if total else f"{done} {unit}"
    text = f"{done / MIB:.0f} of {total / MIB:.0f} MiB" if total else f"{done / MIB:.0f} MiB"
    rate = done / seconds if seconds > _FIRST_RATE_SECONDS else 0.0
    if rate:
        text += f", {rate / MIB:.0f} MiB/s"
        if total > done:
            text += f", {(total - done) / rate:.0f} s left"
    return text


def percent(done: int, total: int) -> float:
    """Return 0 to 100; 0 while the total is unknown."""
    return min(100.0, 100.0 * done / total) if total else 0.0
