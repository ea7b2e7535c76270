"""The files of own steps in the operator's payload: found, plainly named, bounded."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from imageport.compose.contract import OwnPoint, OwnStep
from imageport.compose.payload_files import inside, is_plain_name
from imageport.errors import InputError

ENDINGS = {
    OwnPoint.OFFLINE_BEFORE: (".reg", ".json"),
    OwnPoint.OFFLINE_AFTER: (".reg", ".json"),
    OwnPoint.FIRST_BOOT: (".cmd", ".ps1"),
}
MAX_STEPS = 30
"""A first-boot plan has room for 99 steps; most of them are ours."""
_MAX_TEXT_BYTES = 4 * 1024 * 1024
_MAX_ADDED_BYTES = 256 * 1024 * 1024
"""Half of the free space that an image must have."""
_SECONDS = range(10, 7201)


def option_problems(steps: tuple[OwnStep, ...]) -> list[str]:
    """Return everything wrong with the option itself; the files are not looked at."""
    problems = []
    if len(steps) > MAX_STEPS:
        problems.append(f"own_steps: {len(steps)} steps, needed {MAX_STEPS} at most")
    for at, step in enumerate(steps):
        where = f"own_steps[{at}]"
        if step.point not in set(OwnPoint):
            problems.append(f"{where}.point: '{step.point}' is not {', '.join(OwnPoint)}")
            continue
        endings = ENDINGS[OwnPoint(step.point)]
        if ending_of(step) not in endings:
            needed = " or ".join(endings)
            problems.append(f"{where}.path: '{step.path}' is no {needed} file, for {step.point}")
        if not all(is_plain_name(part) for part in PurePosixPath(step.path).parts):
            problems.append(f"{where}.path: '{step.path}' has a name that is not plain")
        if step.timeout_seconds not in _SECONDS:
            seconds = f"{_SECONDS.start} to {_SECONDS.stop - 1}"
            problems.append(f"{where}.timeout_seconds: {step.timeout_seconds} is not {seconds}")
    return problems


def ending_of(step: OwnStep) -> str:
    """Return the ending of the step's file, lower-case."""
    return PurePosixPath(step.path).suffix.lower()


def read_text(payload: Path | None, path: str) -> bytes:
    """Return the content of a step's own file.

    Raises:
        InputError: there is no payload, no such file in it, or it is too large.
    """
    place = _file(payload, path)
    size = place.stat().st_size
    if size > _MAX_TEXT_BYTES:
        raise InputError(f"found {size} bytes, needed {_MAX_TEXT_BYTES} or less.")
    return place.read_bytes()


def added_files(payload: Path | None, paths: list[str]) -> dict[str, Path]:
    """Return the files that a list adds, by their paths in the payload.

    Raises:
        InputError: one is not there, or together they are too large.
    """
    found = {path: _file(payload, path) for path in paths}
    total = sum(place.stat().st_size for place in found.values())
    if total > _MAX_ADDED_BYTES:
        raise InputError(f"it adds {total} bytes, needed {_MAX_ADDED_BYTES} or less.")
    return found


def _file(payload: Path | None, path: str) -> Path:
    if payload is None:
        raise InputError("no payload is given.")
    place = inside(payload, path)
    if not place.is_file():
        raise InputError(f"'{path}' is no file in the payload.")
    return place
