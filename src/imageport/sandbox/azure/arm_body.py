# References: Azure REST API, "Request body" of disks, snapshots, virtual machines and groups;
# ARM, "Tag resources": limits of names and values.
"""Checks that all bodies have in common: known members, location, tags, names."""

from __future__ import annotations

import re
from typing import Any

from imageport.sandbox.azure.account import LOCATION
from imageport.sandbox.azure.arm_errors import ArmError, bad_parameter, required

Json = dict[str, Any]
Members = dict[str, Any]
"""Name → None for a value, another table for an object, a list with one table for a list."""

READ_ONLY: Members = {
    "id": None, "name": None, "type": None, "etag": None, "systemData": None, "managedBy": None,
    "managedByExtended": None, "kind": None, "resources": None,
}  # fmt: skip
"""What a client may send back as it got it; ignored."""
ZONES = ("1", "2", "3")
TAGS_MOST = 50
TAG_NAME_CHARACTERS = 512
TAG_VALUE_CHARACTERS = 256
_TAG_NAME_NEVER = set("<>%&\\?/")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")


def check_members(body: Any, known: Members, of: str, path: str = "") -> None:
    """Refuse members that the service does not know, at any depth."""
    if not isinstance(body, dict):
        where = path.removesuffix(".") or "body"
        raise ArmError(400, "BadRequest", f"Cannot deserialize the value of '{where}' to '{of}'.")
    for name, value in body.items():
        if name not in known:
            text = (
                f"Could not find member '{name}' on object of type '{of}'. Path '{path}{name}', "
                "line 1, position 1."
            )
            raise ArmError(400, "BadRequest", text, target=f"{path}{name}")
        below = known[name]
        if value is None or below is None:
            continue
        kind = name[0].upper() + name[1:]
        if isinstance(below, dict):
            check_members(value, below, kind, f"{path}{name}.")
            continue
        if not isinstance(value, list):
            text = f"Cannot deserialize the value of '{path}{name}' to a list."
            raise ArmError(400, "BadRequest", text, target=f"{path}{name}")
        for index, item in enumerate(value):
            if below[0] is not None:
                check_members(item, below[0], kind, f"{path}{name}[{index}].")


def check_name(name: str, target: str, *, longest: int = 80) -> None:
    """Refuse names that break the rules of Microsoft.Compute and Microsoft.Network."""
    if len(name) > longest or not _NAME.fullmatch(name):
        raise bad_parameter(
            target,
            f"The value '{name}' of parameter '{target}' is not valid: 1 to {longest} characters, "
            "letters, numbers, underscores, periods and hyphens, beginning with a letter or "
            "number, ending with a letter, number or underscore.",
        )


def check_location(body: Json, kind: str, existing: Json | None) -> str:
    """Return the location of a resource; refuses none, another one, and a change."""
    asked = str(body.get("location") or "")
    if not asked:
        text = "The location property is required for this definition."
        raise ArmError(400, "LocationRequired", text)
    location = asked.replace(" ", "").lower()
    if existing is not None and location != existing["location"]:
        text = (
            f"The resource '{existing['name']}' already exists in location "
            f"'{existing['location']}' in resource group '{existing['id'].split('/')[4]}'. A "
            f"resource with the same name cannot be created in location '{asked}'. Please select "
            "a new resource name."
        )
        raise ArmError(409, "InvalidResourceLocation", text)
    if location != LOCATION:
        text = (
            f"The provided location '{asked}' is not available for resource type '{kind}'. List "
            f"of available regions for the resource type is '{LOCATION}'."
        )
        raise ArmError(400, "LocationNotAvailableForResourceType", text)
    return location


def check_tags(tags: Any) -> dict[str, str]:
    """Return the tags; refuses what ARM refuses."""
    if tags is None:
        return {}
    if not isinstance(tags, dict) or not all(isinstance(item, str) for item in tags.values()):
        raise ArmError(400, "InvalidRequestContent", "The tags are not a map of strings.")
    if len(tags) > TAGS_MOST:
        text = f"The tags have {len(tags)} entries. The maximum is {TAGS_MOST}."
        raise ArmError(400, "InvalidTag", text)
    for name, value in tags.items():
        found = _TAG_NAME_NEVER & set(name)
        if found or any(ord(letter) < 32 for letter in name):
            text = (
                "The tag names '" + name + "' have reserved characters "
                "'<,>,%,&,\\,?,/' or control characters."
            )
            raise ArmError(400, "InvalidTagNameCharacters", text)
        if len(name) > TAG_NAME_CHARACTERS or len(value) > TAG_VALUE_CHARACTERS:
            text = (
                f"Tag '{name}' is too long: names have at most {TAG_NAME_CHARACTERS} characters, "
                f"values {TAG_VALUE_CHARACTERS}."
            )
            raise ArmError(400, "TagValueTooLong", text)
    return dict(tags)


def check_zones(body: Json) -> list[str]:
    """Return the zones of a disk or machine: one or none."""
    zones = [str(item) for item in body.get("zones") or []]
    if len(zones) > 1 or not set(zones) <= set(ZONES):
        text = f"The zones '{', '.join(zones)}' are not valid: at most one of {', '.join(ZONES)}."
        raise ArmError(400, "InvalidAvailabilityZone", text)
    return zones


def one_of(value: Any, allowed: tuple[str, ...], target: str, default: str = "") -> str:
    """Return a value of an enumeration as the service writes it; '' and None take the default."""
    if not value:
        if default:
            return default
        raise required(target)
    for item in allowed:
        if str(value).lower() == item.lower():
            return item
    text = f"The value '{value}' of parameter '{target}' is not one of {', '.join(allowed)}."
    raise bad_parameter(target, text)


def whole_number(value: Any, target: str, low: int, high: int) -> int:
    """Return a number within bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        text = f"The value '{value}' of parameter '{target}' is out of range: {low} to {high}."
        raise bad_parameter(target, text)
    return value
