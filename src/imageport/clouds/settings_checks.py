"""What is wrong with a cloud's settings, all of it in one error."""

from __future__ import annotations

from collections.abc import Iterable

from imageport.errors import InputError


def refuse_contradictions(cloud: str, problems: Iterable[str]) -> None:
    """Raise `InputError` that tells every one of ``problems``; none is fine."""
    found = list(problems)
    if found:
        raise InputError(
            f"Bad {cloud} settings: found {'; '.join(found)}, needed none of it.", problems=found
        )


def require_set(cloud: str, settings: object, names: Iterable[str]) -> None:
    """Raise `InputError` naming every one of ``names`` that is empty."""
    missing = [name for name in names if not getattr(settings, name)]
    if missing:
        raise InputError(
            f"Bad {cloud} settings: found no {', '.join(missing)}, needed for this step.",
            problems=[f"{name} is missing" for name in missing],
        )
