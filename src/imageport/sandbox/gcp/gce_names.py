# References: Compute Engine, "Naming resources", "Organize resources using labels"; "URLs of
# resources" (full and partial).
"""Names, labels, paths and fingerprints of resources."""

from __future__ import annotations

import base64
import re
import secrets
import unicodedata
from datetime import UTC, datetime
from typing import Final

from imageport.sandbox.gcp.account import PROJECT
from imageport.sandbox.gcp.gce_messages import Json, condition_not_met, invalid, required

BASE: Final = "https://www.googleapis.com/compute/v1/"
"""Before the path of every link that Google gives, whatever address was asked."""
DESCRIPTION_CHARACTERS: Final = 2048
MOST_LABELS: Final = 64
ARCHITECTURES: Final = ("X86_64", "ARM64")
_NAME: Final = re.compile(r"(?:[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?)")
_LINK: Final = re.compile(r"https://(?:www|compute)\.googleapis\.com/compute/(?:v1|beta)/(.*)")
_LABEL_CATEGORIES: Final = {"Ll", "Lo", "Nd", "Nl", "No"}


def check_name(body: Json, field: str = "name") -> str:
    """Return the name that a resource is to have."""
    name = str(body.get(field, ""))
    if not name:
        raise required(f"resource.{field}")
    if not _NAME.fullmatch(name):
        text = f"Must be a match of regex '{_NAME.pattern}'"
        raise invalid(f"resource.{field}", name, text)
    return name


def is_name(text: str) -> bool:
    """Tell whether a text could be a name, of a network tag too."""
    return bool(_NAME.fullmatch(text))


def check_described(body: Json) -> None:
    """Refuse a description that is too long, and labels that are none."""
    description = str(body.get("description", ""))
    if len(description) > DESCRIPTION_CHARACTERS:
        text = f"Must be a string with at most {DESCRIPTION_CHARACTERS} characters."
        raise invalid("resource.description", description, text)
    check_labels(body.get("labels", {}))


def check_architecture(body: Json) -> None:
    """Refuse a processor that no machine has."""
    given = body.get("architecture", ARCHITECTURES[0])
    if given not in ARCHITECTURES:
        text = f"Must be one of {', '.join(ARCHITECTURES)}."
        raise invalid("resource.architecture", given, text)


def check_labels(labels: dict[str, str]) -> None:
    """Refuse labels that are none, or too many."""
    if len(labels) > MOST_LABELS:
        text = f"Labels can have at most {MOST_LABELS} entries."
        raise invalid("resource.labels", len(labels), text)
    for key, value in labels.items():
        letter = unicodedata.category(key[0]) in {"Ll", "Lo"} if key else False
        if not letter or not _is_label(key):
            raise invalid("resource.labels", key, "Label keys must be lower-case and start so.")
        if not _is_label(value):
            raise invalid("resource.labels", value, "Label values must be lower-case letters.")


def _is_label(text: str) -> bool:
    allowed = all(unicodedata.category(one) in _LABEL_CATEGORIES or one in "_-" for one in text)
    return allowed and len(text) <= 63 and len(text.encode()) <= 128


def path_of(text: str, field: str, place: str = "") -> str:
    """Return ``projects/P/…`` of a full or partial URL.

    Args:
        text: As a client names a resource.
        field: Where it stands, for the refusal.
        place: ``zones/Z`` of the request, within which a partial URL may begin.
    """
    found = _LINK.fullmatch(text)
    path = found[1] if found else text
    if path.startswith(("zones/", "regions/", "global/")):
        path = f"projects/{PROJECT}/{path}"
    if not re.fullmatch(r"projects/[^/]+/(global|zones/[^/]+|regions/[^/]+)/\w+/\S+", path):
        raise invalid(field, text, "The URL is malformed.")
    if place and f"/{place}/" not in path:
        raise invalid(field, text, f"The resource has to be in {place}.")
    return path


def link(path: str) -> str:
    """Return a path as Google's answers name it."""
    return BASE + path


def name_of(path: str) -> str:
    """Return the last part of a path or URL."""
    return path.rsplit("/", maxsplit=1)[-1]


def new_id() -> str:
    """Return a number for a resource or an operation, as text."""
    return str(secrets.randbits(62) + 1)


def new_fingerprint() -> str:
    """Return a fingerprint that was never used."""
    return base64.urlsafe_b64encode(secrets.token_bytes(8)).decode()


def check_fingerprint(given: object, current: object, what: str) -> None:
    """Refuse a change of something that changed since it was read."""
    if not given or given != current:
        text = f"Supplied fingerprint does not match current {what} fingerprint."
        if what == "labels":
            text = "Labels fingerprint either invalid or resource labels have changed"
        raise condition_not_met(text)


def moment(seconds: float) -> str:
    """Return a time as Google writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
