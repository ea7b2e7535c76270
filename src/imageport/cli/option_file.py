"""The JSON file with the engine's options: read, checked, and everything wrong told at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imageport.compose.contract import EngineOptions, options_from_json
from imageport.compose.steps.order import option_refusals
from imageport.errors import InputError

_LIMIT_BYTES = 1024 * 1024
"""Far more than any list of options; the file may be the wrong one."""


def options_from(path: Path | None, chosen: Mapping[str, str]) -> EngineOptions:
    """Return the options of a file, with ``chosen`` over them; defaults without a file.

    Raises:
        InputError: ``fields['problems']`` has everything that is wrong, each with its place.
    """
    document = {**(_document(path) if path else {}), **chosen}
    try:
        options = options_from_json(document)
    except InputError as error:
        raise _bad(path, error.fields["problems"]) from error
    problems = [item.reason for item in option_refusals(options)]
    if problems:
        raise _bad(path, problems)
    return options


def _document(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LIMIT_BYTES:
            raise _bad(path, [f"found more than {_LIMIT_BYTES} bytes, needed a list of options."])
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"Cannot read options '{path}': {error}.") from error
    if not isinstance(value, dict):
        raise _bad(path, ["found no JSON object, needed one."])
    return value


def _bad(path: Path | None, problems: list[str]) -> InputError:
    name = f"Bad options '{path}'" if path else "Bad options"
    return InputError(f"{name}: {' '.join(problems)}", problems=problems)
