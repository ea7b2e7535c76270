# References: google-cloud-compute, "compute_v1.types"; Protocol Buffers, "ProtoJSON format".
"""Requests held against the types of Google's own client: what those do not know is refused."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from imageport.sandbox.gcp.gce_messages import GceRefusal, Json

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor  # type: ignore[import-untyped]

SYSTEM_PARAMETERS: Final = {"$alt", "alt", "prettyPrint", "key", "quotaUser"}
"""Of every Google API; none changes what is done."""
_BODY: Final = "_resource"
"""End of the name of the member that a request's type has for the body."""
_BOOL, _MESSAGE = 8, 11
"""Of FieldDescriptor.Type, descriptor.proto."""


def read_request(kind: str, names: Json, query: str, body: Any) -> tuple[Json, Json]:
    """Return parameters and body of a request as the type sees them.

    Args:
        kind: Name of the type, ``InsertImageRequest``.
        names: Parameters of the path.
        query: As in the URL.
        body: What the body holds, None without one.

    Raises:
        GceRefusal: 400, something in it is unknown or of another type.
    """
    from google.protobuf import json_format  # type: ignore[import-untyped] # noqa: PLC0415

    message = _message(kind)
    descriptor = message.DESCRIPTOR
    known = {field.json_name: field for field in descriptor.fields}
    given: Json = dict(names)
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name in SYSTEM_PARAMETERS:
            continue
        if name not in known or name in names or known[name].type == _MESSAGE:
            raise _unknown(f'Unknown name "{name}": Cannot bind query parameter.')
        given[name] = _flag(name, text) if known[name].type == _BOOL else text
    member = _body_member(descriptor)
    if body is not None:
        if not member:
            raise _unknown("Request body is not allowed for this method.")
        given[member] = body
    elif member:
        raise GceRefusal(400, "required", "Required field 'resource' not specified")
    try:
        json_format.ParseDict(given, message)
    except json_format.ParseError as error:
        raise _unknown(str(error).splitlines()[0]) from error
    found: Json = json_format.MessageToDict(message)
    return found, found.pop(member, {}) if member else {}


def choices(kind: str, member: str) -> frozenset[str]:
    """Return the values of an enumeration, ``("GuestOsFeature", "Type")``."""
    from google.cloud import compute_v1  # noqa: PLC0415

    found = getattr(getattr(compute_v1, kind), member).__members__
    return frozenset(name for name in found if "UNSPECIFIED" not in name and "UNDEF" not in name)


@cache
def _type(kind: str) -> Any:
    # Not at the top: importing it costs two seconds, which the object store need not pay.
    from google.cloud import compute_v1  # noqa: PLC0415

    return getattr(compute_v1, kind)


def _message(kind: str) -> Any:
    return _type(kind).pb(_type(kind)())


def _body_member(descriptor: Descriptor) -> str:
    names = [
        field.json_name
        for field in descriptor.fields
        if field.type == _MESSAGE and field.name.endswith(_BODY)
    ]
    return str(names[0]) if names else ""


def _flag(name: str, text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise _unknown(f"Invalid value at '{name}' (TYPE_BOOL), \"{text}\"")
    return text.lower() == "true"


def _unknown(text: str) -> GceRefusal:
    return GceRefusal(400, "badRequest", f"Invalid JSON payload received. {text}")
