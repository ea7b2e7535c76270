"""The JSON file with the engine's options: read, checked, and everything wrong told at once."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imageport.compose.cloud_target import TARGETS
from imageport.compose.contract import EngineOptions, options_from_json
from imageport.compose.steps.order import option_refusals
from imageport.errors import InputError

_LIMIT_BYTES = 1024 * 1024
"""Far more than any list of options; the file may be the wrong one."""


def add_option_arguments(parser: argparse.ArgumentParser, *, target_is_needed: bool) -> None:
    """Declare what `chosen_options` reads; what is not given stays as the file has it."""
    parser.add_argument(
        "--target", choices=sorted(TARGETS), required=target_is_needed, help="the cloud"
    )
    parser.add_argument(
        "--provisioning", choices=["pvs", "mcs"], help="how machines run from it; default pvs"
    )
    parser.add_argument("--options", type=Path, metavar="OPTIONS", help="a JSON file")


def chosen_options(args: argparse.Namespace) -> EngineOptions:
    """Return the options of ``--options``, with what was given beside it over them."""
    given = {"cloud": args.target, "provisioning": args.provisioning}
    return options_from(args.options, {name: word for name, word in given.items() if word})


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
