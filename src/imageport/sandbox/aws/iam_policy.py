# References: IAM User Guide, "Policy evaluation logic", "IAM JSON policy elements: Condition
# operators", "Multivalued context keys".
"""An identity policy, evaluated as far as this product's own policies go."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """One question to the policy; a request is allowed when all of its checks are."""

    action: str
    resource: str
    """ARN, or ``*`` for an action that names no resource."""
    context: Mapping[str, str] = field(default_factory=dict)
    """Condition keys that the request has, by their names in lower case."""


def check(action: str, resource: str, context: Mapping[str, str]) -> Check:
    """Return a check whose condition keys compare without regard to case, as IAM's do."""
    return Check(action, resource, {key.lower(): value for key, value in context.items()})


def is_allowed(policy: Mapping[str, Any], asked: Check) -> bool:
    """Tell whether a statement allows it and none denies it."""
    fitting = [item for item in policy["Statement"] if _fits(item, asked)]
    if any(item["Effect"] == "Deny" for item in fitting):
        return False
    return any(item["Effect"] == "Allow" for item in fitting)


def _fits(statement: Mapping[str, Any], asked: Check) -> bool:
    return (
        any(
            fnmatch.fnmatchcase(asked.action.lower(), item.lower())
            for item in _list(statement["Action"])
        )
        and any(
            item == "*" or fnmatch.fnmatchcase(asked.resource, item)
            for item in _list(statement["Resource"])
        )
        and all(
            _condition(operator, key, _list(values), asked.context)
            for operator, keys in statement.get("Condition", {}).items()
            for key, values in keys.items()
        )
    )


def _condition(operator: str, key: str, values: list[str], context: Mapping[str, str]) -> bool:
    name = operator.removesuffix("IfExists")
    found = context.get(key.lower())
    if name == "Null":
        return (found is None) == (values[0] == "true")
    if found is None:
        # A negated operator is true of a key that is not there.
        return operator.endswith("IfExists") or name.startswith("StringNot")
    compare = _OPERATORS.get(name)
    if compare is None:
        raise ValueError(f"Bad policy: found operator {operator}, needed one that is known here.")
    matches = any(compare(found, value) for value in values)
    return not matches if name.startswith("StringNot") else matches


def _equals(found: str, value: str) -> bool:
    return found == value


def _bool(found: str, value: str) -> bool:
    return found.lower() == str(value).lower()


_OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": _equals,
    "StringNotEquals": _equals,
    "StringLike": fnmatch.fnmatchcase,
    "StringNotLike": fnmatch.fnmatchcase,
    "Bool": _bool,
}


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
