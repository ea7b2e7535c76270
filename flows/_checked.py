"""Flows that say which block is wrong when a run names one that is not there or does not fit."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator, Mapping
from types import NoneType
from typing import Any, ParamSpec, TypeVar, cast

from prefect import Flow
from prefect.blocks.core import Block
from prefect.exceptions import ParameterTypeError
from pydantic import BaseModel

P = ParamSpec("P")
R = TypeVar("R")


class CheckedFlow(Flow[P, R]):
    """A flow whose parameters are explained when they are refused.

    Prefect resolves references before it checks types, and says of one that leads nowhere only
    that it failed, and of one to another kind of block which classes were tried.
    """

    def validate_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters as the flow takes them."""
        try:
            return super().validate_parameters(parameters)
        except ParameterTypeError as error:
            problems = _problems(self.fn, parameters)
            if not problems:
                raise
            raise ParameterTypeError("\n".join(problems)) from error


def checked_flow(**options: Any) -> Callable[[Callable[P, R]], Flow[P, R]]:
    """Return a decorator like ``prefect.flow``."""

    def decorate(function: Callable[P, R]) -> Flow[P, R]:
        return CheckedFlow(function, **options)

    return decorate


def _problems(function: Callable[..., Any], parameters: dict[str, Any]) -> list[str]:
    """Return one sentence for each reference that leads nowhere or to the wrong kind of block."""
    return list(_wrong_references("", typing.get_type_hints(function), parameters))


def _wrong_references(
    place: str, hints: Mapping[str, Any], values: Mapping[str, Any]
) -> Iterator[str]:
    for name, value in values.items():
        hint = hints.get(name)
        kinds = _block_kinds(hint)
        reference = value.get("$ref") if isinstance(value, dict) else None
        if kinds and reference is not None:
            yield from _mismatch(f"{place}{name}", reference, kinds)
        elif isinstance(value, list):
            inner = _hints_of_items(hint)
            for number, item in enumerate(value):
                if inner and isinstance(item, dict):
                    yield from _wrong_references(f"{place}{name}[{number}].", inner, item)


def _hints_of_items(hint: Any) -> dict[str, Any]:
    """Return the fields of what a list holds, if that is a model: a place to bring images to."""
    item = typing.get_args(hint)[0] if typing.get_origin(hint) is list else None
    is_model = isinstance(item, type) and issubclass(item, BaseModel)
    return typing.get_type_hints(item) if is_model else {}


def _block_kinds(hint: Any) -> tuple[type[Block], ...]:
    members = typing.get_args(hint) or (hint,)
    kinds = [kind for kind in members if kind is not NoneType]
    fits = all(isinstance(kind, type) and issubclass(kind, Block) for kind in kinds)
    return tuple(cast("list[type[Block]]", kinds)) if fits else ()


def _mismatch(name: str, reference: Any, kinds: tuple[type[Block], ...]) -> list[str]:
    needed = " or ".join(f"{kind.get_block_type_slug()}/NAME" for kind in kinds)
    slug = reference.get("block_document_slug", "") if isinstance(reference, dict) else ""
    load: Any = Block.load_from_ref  # its types leave out how a flow's engine calls it
    try:
        block = load(reference, _sync=True)
    except (ValueError, RuntimeError):
        shown = slug or "a reference"
        return [f"Bad {name}: found '{shown}', which is no saved block, needed a saved {needed}."]
    if isinstance(block, kinds):
        return []
    shown = slug or block.get_block_type_slug()
    return [f"Bad {name}: found '{shown}', needed {needed}."]
