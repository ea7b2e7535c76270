# References: Cloud Storage JSON API v1, "Objects" (resource); "Hashes and ETags".
"""What the bucket tells of an object, and its checksum: CRC32C, which every object has."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import google_crc32c
import requests

from imageport.errors import CloudUnavailable

FIELDS: Final = (
    "name,size,crc32c,generation,metageneration,metadata,timeCreated,updated,componentCount,"
    "kmsKeyName"
)
LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What the bucket knows of an object."""

    key: str
    size_bytes: int
    crc32c: int
    generation: int
    """New with every writing of the key."""
    metageneration: int = 1
    metadata: dict[str, str] = field(default_factory=dict)
    created: datetime = LONG_AGO
    """When this generation was written, by the store's clock."""
    updated: datetime = LONG_AGO
    """When its metadata was written last."""
    components: int = 0
    """Of a composed object; 0 for one that was written in one piece."""
    kms_key: str = ""


def crc32c_of(data: bytes) -> int:
    """Return the CRC32C of bytes."""
    found: int = google_crc32c.value(data)
    return found


def checksum_text(crc32c: int) -> str:
    """Return a CRC32C as Cloud Storage writes it: big-endian, base64."""
    return base64.b64encode(crc32c.to_bytes(4, "big")).decode()


def facts_in(item: Mapping[str, Any]) -> ObjectFacts:
    """Take an object's resource apart; `requests.JSONDecodeError` when it is none."""
    try:
        return ObjectFacts(
            key=str(item["name"]),
            size_bytes=int(item["size"]),
            crc32c=int.from_bytes(base64.b64decode(item["crc32c"]), "big"),
            generation=int(item["generation"]),
            metageneration=int(item.get("metageneration", 1)),
            metadata={str(name): str(value) for name, value in item.get("metadata", {}).items()},
            created=datetime.fromisoformat(str(item["timeCreated"])),
            updated=datetime.fromisoformat(str(item["updated"])),
            components=int(item.get("componentCount", 0)),
            kms_key=str(item.get("kmsKeyName", "")),
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise requests.JSONDecodeError(f"no object resource ({error})", "", 0) from error


def require_checksum(facts: ObjectFacts, needed: int) -> None:
    """Raise `CloudUnavailable` unless the bucket has the bytes that were sent."""
    if facts.crc32c != needed:
        raise CloudUnavailable(
            f"Cannot write '{facts.key}': found CRC32C {facts.crc32c:08x} in the bucket, needed "
            f"{needed:08x}."
        )


def sent_checksum(headers: Mapping[str, str]) -> int | None:
    """Return the CRC32C of the whole object that an answer tells, if it tells one."""
    for part in headers.get("x-goog-hash", "").split(","):
        name, _, value = part.strip().partition("=")
        if name == "crc32c":
            return int.from_bytes(base64.b64decode(value), "big")
    return None
