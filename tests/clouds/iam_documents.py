"""Reads the policies of ``docs/policies`` as an administrator applies them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "docs" / "policies"


def policy(name: str, values: Mapping[str, str]) -> dict[str, Any]:
    """Return a policy with its placeholders filled in."""
    text = (FOLDER / f"{name}.json").read_text()
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    document: dict[str, Any] = json.loads(text)
    return document


def actions_of(document: Mapping[str, Any]) -> set[str]:
    """Return every action that the policy allows somewhere."""
    found: set[str] = set()
    for statement in document["Statement"]:
        given = statement["Action"]
        found |= {given} if isinstance(given, str) else set(given)
    return found
