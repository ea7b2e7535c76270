"""Registries of what stands behind an interface: name → where it is → what to install for it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imageport.errors import InputError, MissingTool


@dataclass(frozen=True, slots=True)
class Implementation:
    """One class behind an interface."""

    module: str
    class_name: str
    install: str
    """The Python packages that bring the vendor's own client library."""


def implementation(what: str, name: str, known: Mapping[str, Implementation]) -> Any:
    """Return the class of a name, imported only now; ``what`` is for messages: ``cloud``.

    Raises:
        InputError: no such name.
        MissingTool: its client library is not installed.
    """
    entry = known.get(name)
    if entry is None:
        names = ", ".join(sorted(known))
        raise InputError(f"Bad {what}: found '{name}', needed one of {names}.")
    try:
        module = importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        raise MissingTool(
            f"Cannot use {what} '{name}': the Python package '{error.name}' is not installed.",
            hint=f"Install it: pip install {entry.install}",
        ) from error
    return getattr(module, entry.class_name)
