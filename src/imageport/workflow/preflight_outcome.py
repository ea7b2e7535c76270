"""From all that preflight found to "start" or to one error that names everything at once."""

from __future__ import annotations

from imageport.cloud import PlaceProblem
from imageport.compose.contract import EngineReport
from imageport.errors import GuestRefused, ImageportError, InputError, PermissionMissing
from imageport.workflow.engine_outcome import require_ok


def require_startable(
    report: EngineReport, image: str, missing: list[str], problems: list[PlaceProblem]
) -> None:
    """Raise what is wrong, the gravest first; the others are told in the same error.

    Args:
        report: The engine's plan for the image.
        image: Its name, for messages.
        missing: Actions that the credentials may not do.
        problems: What about the place does not fit.
    """
    try:
        require_ok(report, image)
    except GuestRefused as refused:
        _tell_missing(refused, missing)
        _tell_problems(refused, problems)
        raise
    if missing:
        lacking = PermissionMissing(
            f"Cannot start '{image}': the credentials lack {', '.join(missing)}.", actions=missing
        )
        _tell_problems(lacking, problems)
        raise lacking
    if problems:
        hints = dict.fromkeys(item.hint for item in problems if item.hint)
        raise InputError(
            f"Cannot start '{image}': {' '.join(map(str, problems))}",
            hint=" ".join(hints),
            problems=[str(item) for item in problems],
        )


def _tell_missing(error: ImageportError, missing: list[str]) -> None:
    if missing:
        error.message += f" Permissions missing as well: {', '.join(missing)}."
        error.fields["permissions"] = missing


def _tell_problems(error: ImageportError, problems: list[PlaceProblem]) -> None:
    if problems:
        error.message += f" The place does not fit either: {' '.join(map(str, problems))}"
        error.fields["problems"] = [str(item) for item in problems]
