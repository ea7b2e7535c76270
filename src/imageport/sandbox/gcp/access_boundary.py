# References: IAM, "Credential Access Boundary" (AccessBoundaryRule), "Overview of CEL for IAM".
"""What a downscoped token is restricted to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from imageport.sandbox.gcp.account import BUCKET

MOST_RULES: Final = 10
_RESOURCE: Final = "//storage.googleapis.com/projects/_/buckets/"
_OBJECTS: Final = f"projects/_/buckets/{BUCKET}/objects/"
ROLES: Final = {
    "roles/storage.objectCreator": {"storage.objects.create"},
    "roles/storage.objectViewer": {"storage.objects.get", "storage.objects.list"},
    "roles/storage.objectUser": {
        f"storage.objects.{verb}" for verb in ("create", "delete", "get", "list", "update")
    },
    "roles/storage.objectAdmin": {
        f"storage.objects.{verb}" for verb in ("create", "delete", "get", "list", "update")
    },
}
_TERM: Final = re.compile(
    r"resource\.name\.startsWith\('(?P<start>[^']*)'\)"
    r"|resource\.name\s*==\s*'(?P<whole>[^']*)'"
    r"|api\.getAttribute\('storage\.googleapis\.com/objectListPrefix',\s*''\)"
    r"\.startsWith\('(?P<listed>[^']*)'\)"
)


class BadBoundary(Exception):
    """A boundary that the token service refuses; the text says why."""


@dataclass(frozen=True, slots=True)
class _Condition:
    starts: tuple[str, ...] = ()
    wholes: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()

    def holds(self, name: str, list_prefix: str | None) -> bool:
        if list_prefix is not None and self.listed and list_prefix.startswith(self.listed):
            return True
        return name in self.wholes or (bool(self.starts) and name.startswith(self.starts))


@dataclass(frozen=True, slots=True)
class _Rule:
    permissions: frozenset[str]
    bucket: str
    condition: _Condition | None


@dataclass(frozen=True, slots=True)
class AccessBoundary:
    """The union of its rules; a token can never do more than both it and its account allow."""

    rules: tuple[_Rule, ...]

    def allows(self, permission: str, name: str, list_prefix: str | None = None) -> bool:
        """Tell whether a permission reaches an object; ``name`` is empty for the bucket."""
        resource = f"{_OBJECTS}{name}" if name else _OBJECTS.removesuffix("/objects/")
        return any(
            permission in rule.permissions
            and rule.bucket == BUCKET
            and (rule.condition is None or rule.condition.holds(resource, list_prefix))
            for rule in self.rules
        )

    @classmethod
    def read(cls, options: Any) -> AccessBoundary:
        """Take the ``options`` of a token exchange.

        Raises:
            BadBoundary: it is none, or says something that this service does not know.
        """
        try:
            rules = options["accessBoundary"]["accessBoundaryRules"]
            found = tuple(_read_rule(rule) for rule in rules)
        except (KeyError, TypeError, AttributeError) as error:
            raise BadBoundary("Invalid access boundary: it has not the known members.") from error
        if not 1 <= len(found) <= MOST_RULES:
            raise BadBoundary(f"Invalid access boundary: found {len(found)} rules.")
        return cls(found)


def _read_rule(rule: dict[str, Any]) -> _Rule:
    unknown = set(rule) - {"availablePermissions", "availableResource", "availabilityCondition"}
    if unknown:
        raise BadBoundary(f"Invalid access boundary: unknown members {sorted(unknown)}.")
    permissions: set[str] = set()
    for role in rule["availablePermissions"]:
        known = ROLES.get(str(role).removeprefix("inRole:"))
        if known is None or not str(role).startswith("inRole:"):
            raise BadBoundary(f"Invalid access boundary: unknown permission {role!r}.")
        permissions |= known
    resource = str(rule["availableResource"])
    if not resource.startswith(_RESOURCE):
        raise BadBoundary(f"Invalid access boundary: {resource!r} is no bucket.")
    condition = rule.get("availabilityCondition")
    read = None if condition is None else _read_condition(condition["expression"])
    return _Rule(frozenset(permissions), resource.removeprefix(_RESOURCE), read)


def _read_condition(expression: str) -> _Condition:
    found: dict[str, list[str]] = {"start": [], "whole": [], "listed": []}
    for term in expression.split("||"):
        matched = _TERM.fullmatch(term.strip())
        if matched is None:
            raise BadBoundary(f"Invalid access boundary: unknown expression {term.strip()!r}.")
        for kind, text in matched.groupdict().items():
            if text is not None:
                found[kind].append(text)
    return _Condition(tuple(found["start"]), tuple(found["whole"]), tuple(found["listed"]))
