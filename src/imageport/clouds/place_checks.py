"""The checks of a place, one after another, so that everything wrong is named at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from imageport.cloud import PlaceProblem
from imageport.errors import PermissionMissing

PlaceCheck = Callable[[], Iterable[PlaceProblem]]


def problems_of(checks: Iterable[PlaceCheck]) -> list[PlaceProblem]:
    """Run all checks; what the credentials may not look at is no problem of the place."""
    found: list[PlaceProblem] = []
    for check in checks:
        try:
            found.extend(check())
        except PermissionMissing:
            continue  # what the check found before counts
    return found
