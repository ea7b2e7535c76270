"""Turns JSON into frozen dataclasses and says everything that does not fit at once.

Standard library only: this module travels in the engine, where no other validation is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from imageport.errors import InputError

_MAX_PROBLEMS = 100
"""A person corrects no more at once, and the text may come from a machine gone mad."""
_MAX_KEYS = 10
_MAX_CHARACTERS = 80
"""Of a key or value that is shown because it is wrong."""


def read_object(kind: Any, value: Any, where: str, nested: Mapping[str, Any]) -> Any:
    """Return an object of the dataclass ``kind``.

    Args:
        kind: its fields are texts, numbers, truth values, tuples or dicts of texts, or ``nested``.
        value: what JSON gave.
        where: its name, with which every place begins.
        nested: the dataclass, or `StrEnum`, of a field or of its items, by the field's name.

    Raises:
        InputError: ``fields['problems']`` has one sentence for each value that does not fit.
    """
    reader = _Reader(nested)
    read = reader.read(kind, value, where)
    if reader.problems:
        raise InputError(" ".join(reader.problems), problems=reader.problems)
    return read


class _Reader:
    """Turns JSON into dataclasses and collects all that does not fit, each with its place."""

    def __init__(self, nested: Mapping[str, Any]) -> None:
        self.problems: list[str] = []
        self._nested = nested
        self._found = 0

    def read(self, kind: Any, value: Any, where: str) -> Any:
        """Return an object of ``kind``, or None when something is wrong with it."""
        if not isinstance(value, dict):
            self._bad(where, type(value).__name__, "an object")
            return None
        before = self._found
        known = {item.name: item for item in dataclasses.fields(kind)}
        unknown = sorted(set(value) - set(known))
        if unknown:
            shown = [key[:_MAX_CHARACTERS] for key in unknown[:_MAX_KEYS]]
            self._bad(where, f"unknown keys {shown}", str(sorted(known)))
        missing = [name for name, item in known.items() if name not in value and _is_needed(item)]
        if missing:
            self._bad(where, f"no {', '.join(missing)}", "a value for each")
        fitting = {
            name: self._field(item, value[name], f"{where}.{name}")
            for name, item in known.items()
            if name in value
        }
        return kind(**fitting) if self._found == before else None

    def _field(self, item: dataclasses.Field[Any], value: Any, where: str) -> Any:
        needed = str(item.type).partition("[")[0]
        nested = self._nested.get(item.name)
        if isinstance(nested, type) and issubclass(nested, StrEnum):
            if not isinstance(value, str) or value not in set(nested):
                self._bad(where, repr(value)[:_MAX_CHARACTERS], " or ".join(nested))
                return None
            return nested(value)
        if needed == "tuple":
            return self._items(nested, value, where)
        if nested is not None:
            return self.read(nested, value, where)
        found = type(value).__name__
        if found != needed and (needed, found) != ("float", "int"):
            self._bad(where, found, needed)
        elif needed == "dict" and not all(isinstance(one, str) for one in value.values()):
            self._bad(where, "a value that is no text", "texts")
        return value

    def _items(self, nested: Any, value: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            self._bad(where, type(value).__name__, "a list")
            return ()
        if nested is not None:
            return tuple(self.read(nested, one, f"{where}[{at}]") for at, one in enumerate(value))
        if not all(isinstance(one, str) for one in value):
            self._bad(where, "a value that is no text", "texts")
        return tuple(value)

    def _bad(self, where: str, found: str, needed: str) -> None:
        self._found += 1
        if self._found <= _MAX_PROBLEMS:
            self.problems.append(f"Bad {where}: found {found}, needed {needed}.")


def _is_needed(item: dataclasses.Field[Any]) -> bool:
    absent = dataclasses.MISSING
    return item.default is absent and item.default_factory is absent
