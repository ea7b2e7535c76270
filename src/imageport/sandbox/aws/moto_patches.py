"""The list of what is replaced in moto, each with its reason; `apply_patches` puts it in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Replacement = TypeVar("Replacement", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Patch:
    """One method or property of moto that AWS does differently."""

    owner: type
    name: str
    replacement: Any
    why: str


PATCHES: list[Patch] = []


def replaces(owner: type, name: str, why: str) -> Callable[[Replacement], Replacement]:
    """Mark a function as what replaces ``owner.name``."""

    def register(function: Replacement) -> Replacement:
        PATCHES.append(Patch(owner, name, function, why))
        return function

    return register


def replaces_property(owner: type, name: str, why: str) -> Callable[[Replacement], Replacement]:
    """Mark a function as what the attribute ``owner.name`` answers; assignments are ignored."""

    def register(function: Replacement) -> Replacement:
        PATCHES.append(Patch(owner, name, property(function, _ignore), why))
        return function

    return register


def apply_patches() -> None:
    """Put every registered replacement in place."""
    for patch in PATCHES:
        setattr(patch.owner, patch.name, patch.replacement)


def _ignore(_object: Any, _value: Any) -> None:
    """Ignore an assignment: moto sets what is computed here."""
