# References: Cloud Storage JSON API v1, Objects and Buckets resources; "Partial responses".
"""Objects and the bucket as the JSON API shows them, whole or in part."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from imageport.sandbox.gcp.account import BUCKET, KMS_KEY, REGION
from imageport.sandbox.gcp.gcs_messages import GcsRefusal, bad_request
from imageport.sandbox.gcp.gcs_store import StoredObject

Json = dict[str, Any]
Fields = dict[str, Any]
"""Name → the fields below it; empty is all of them."""
TEMPORARY_PREFIX: Final = "imageport/tmp/"
"""What the lifecycle rule deletes after a day."""
_OBJECT_FIELDS: Final = frozenset({
    "acl", "bucket", "cacheControl", "componentCount", "contentDisposition", "contentEncoding",
    "contentLanguage", "contentType", "contexts", "crc32c", "customTime", "customerEncryption",
    "etag", "eventBasedHold", "generation", "hardDeleteTime", "id", "kind", "kmsKeyName", "md5Hash",
    "mediaLink", "metadata", "metageneration", "name", "owner", "restoreToken", "retention",
    "retentionExpirationTime", "selfLink", "size", "softDeleteTime", "storageClass",
    "temporaryHold", "timeCreated", "timeDeleted", "timeFinalized", "timeStorageClassUpdated",
    "updated",
})  # fmt: skip
_LIST_FIELDS: Final = frozenset({"kind", "nextPageToken", "prefixes", "items"})
_NAME: Final = re.compile(r"[A-Za-z*][A-Za-z0-9_]*|\*")


def object_resource(found: StoredObject) -> Json:
    """Return an object's resource."""
    facts = found.facts
    document: Json = {
        "kind": "storage#object",
        "id": f"{BUCKET}/{found.name}/{found.generation}",
        "name": found.name,
        "bucket": BUCKET,
        "generation": str(found.generation),
        "metageneration": str(found.metageneration),
        "storageClass": "STANDARD",
        "size": str(found.size_bytes),
        "crc32c": facts.crc32c,
        "etag": f"C{found.generation:x}{found.metageneration:x}=",
        "timeCreated": stamp(found.created),
        "updated": stamp(found.updated),
        **facts.properties,
    }
    if facts.md5:
        document["md5Hash"] = facts.md5
    if facts.components:
        document["componentCount"] = facts.components
    if facts.kms_key:
        document["kmsKeyName"] = facts.kms_key
    if facts.metadata:
        document["metadata"] = dict(facts.metadata)
    return document


def bucket_resource(changes: Mapping[str, Any]) -> Json:
    """Return the bucket's resource; ``changes`` are members that are not as usual."""
    condition = {"age": 1, "matchesPrefix": [TEMPORARY_PREFIX]}
    rule = {"action": {"type": "Delete"}, "condition": condition}
    document: Json = {
        "kind": "storage#bucket",
        "id": BUCKET,
        "name": BUCKET,
        "projectNumber": "123456789012",
        "location": REGION.upper(),
        "locationType": "region",
        "storageClass": "STANDARD",
        "metageneration": "1",
        "timeCreated": "2026-01-01T00:00:00.000Z",
        "updated": "2026-01-01T00:00:00.000Z",
        "iamConfiguration": {
            "uniformBucketLevelAccess": {"enabled": True},
            "publicAccessPrevention": "enforced",
        },
        "lifecycle": {"rule": [rule]},
        "softDeletePolicy": {"retentionDurationSeconds": "0"},
        **changes,
    }
    return {name: value for name, value in document.items() if value is not None}


def stamp(seconds: float) -> str:
    """Return a time as resources hold it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def key_version(name: str) -> str:
    """Return the version of a Cloud KMS key that something is encrypted with.

    Raises:
        GcsRefusal: it is no key that the service agent may use.
    """
    if not name:
        return ""
    key = name.partition("/cryptoKeyVersions/")[0]
    if key != KMS_KEY:
        text = "Permission denied on Cloud KMS key. Please ensure that your Cloud Storage service "
        raise GcsRefusal(403, "forbidden", f"{text}account has been authorized to use '{key}'.")
    return f"{key}/cryptoKeyVersions/1"


def read_fields(text: str) -> Fields:
    """Take a ``fields`` parameter apart: ``a,b(c,d/e)``.

    Raises:
        GcsRefusal: it is none.
    """
    found, rest = _read_level(text)
    if rest:
        raise _bad_fields(text)
    return found


def check_fields(fields: Fields, *, of_list: bool) -> None:
    """Refuse fields that an object, or a list of objects, cannot have: a slip would find nothing.

    Raises:
        GcsRefusal: with the first one.
    """
    known = _LIST_FIELDS if of_list else _OBJECT_FIELDS
    for name in fields:
        if name not in known and name != "*":
            raise _bad_fields(name)
    if of_list:
        check_fields(fields.get("items", {}), of_list=False)


def select(document: Any, fields: Fields) -> Any:
    """Return the part of a document that was asked for; no fields are all of it."""
    if not fields or "*" in fields:
        return document
    if isinstance(document, list):
        return [select(item, fields) for item in document]
    if not isinstance(document, dict):
        return document
    return {
        name: select(document[name], below) for name, below in fields.items() if name in document
    }


def _read_level(text: str) -> tuple[Fields, str]:
    found: Fields = {}
    while text and not text.startswith(")"):
        name = _NAME.match(text)
        if name is None:
            raise _bad_fields(text)
        text = text[name.end() :]
        below: Fields = {}
        if text.startswith("/"):
            # One name alone: the list that it stands in goes on behind it.
            nested = _NAME.match(text[1:])
            if nested is None:
                raise _bad_fields(text)
            below, text = {nested[0]: {}}, text[1 + nested.end() :]
        if text.startswith("("):
            inner, text = _read_level(text[1:])
            if not text.startswith(")"):
                raise _bad_fields(text)
            text = text[1:]
            below = dict.fromkeys(below, inner) if below else inner
        found[name[0]] = below
        text = text.removeprefix(",")
    return found, text


def _bad_fields(text: str) -> GcsRefusal:
    return bad_request(f"Invalid field selection {text[:60]}", "invalidParameter")
