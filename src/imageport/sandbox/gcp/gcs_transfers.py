# References: Cloud Storage JSON API v1, "Uploads and downloads of file data"; RFC 2387
# (multipart/related).
"""Whole bodies on their way in and out, whichever API brings them."""

from __future__ import annotations

import re
from typing import Any, Final

from imageport.sandbox.gcp.account import BUCKET
from imageport.sandbox.gcp.gcs_messages import (
    GcsAnswer,
    GcsRefusal,
    GcsRequest,
    bad_request,
    not_found,
    read_document,
)
from imageport.sandbox.gcp.gcs_parts import (
    Digest,
    Pace,
    read_pieces,
    read_range,
    spool,
)
from imageport.sandbox.gcp.gcs_preconditions import Preconditions
from imageport.sandbox.gcp.gcs_store import Check, ObjectStore, StoredObject
from imageport.sandbox.gcp.gcs_writes import NewObject

_BOUNDARY: Final = re.compile(r'boundary="?([^";]+)"?')


def receive(
    store: ObjectStore,
    request: GcsRequest,
    what: tuple[NewObject, dict[str, str]],
    check: Check,
    pace: Pace,
) -> StoredObject:
    """Make an object of a request's body, ``what`` with these checksums."""
    new, wanted = what
    check(store.get(new.name))
    digest, part = Digest(), store.new_part()
    try:
        spool(request.body, request.length, part, digest, pace)
        digest.check(wanted)
        return store.put(new.name, part, new.facts(digest), check)
    finally:
        part.unlink(missing_ok=True)


def download(
    store: ObjectStore, what: tuple[str, Preconditions], request: GcsRequest, pace: Pace
) -> GcsAnswer:
    """Answer with an object's bytes, or with a range of them."""
    name, conditions = what
    opened = store.open(
        name, lambda found: None if found is None else conditions.check(found, reading=True)
    )
    if opened is None:
        raise not_found(name, BUCKET)
    found, file = opened
    try:
        wanted = read_range(request.headers.get("range"), found.size_bytes)
    except GcsRefusal:
        file.close()
        raise
    first, length = wanted or (0, found.size_bytes)
    facts = found.facts
    hashes = f"crc32c={facts.crc32c}" + (f",md5={facts.md5}" if facts.md5 else "")
    headers = {
        "Content-Type": facts.properties.get("contentType", "application/octet-stream"),
        "Content-Length": str(length),
        "X-Goog-Generation": str(found.generation),
        "X-Goog-Metageneration": str(found.metageneration),
        # Of the whole object, whatever part is asked for.
        "X-Goog-Hash": hashes,
        "X-Goog-Stored-Content-Length": str(found.size_bytes),
        "X-Goog-Stored-Content-Encoding": "identity",
        **{f"X-Goog-Meta-{key}": text for key, text in facts.metadata.items()},
    }
    if wanted is not None:
        last = first + length - 1
        headers["Content-Range"] = f"bytes {first}-{last}/{found.size_bytes}"
    status = 200 if wanted is None else 206
    return GcsAnswer(status, headers, stream=read_pieces(file, first, length, pace))


def split_related(content_type: str, body: bytes) -> tuple[dict[str, Any], bytes]:
    """Take a multipart/related body apart: metadata, and the bytes.

    Raises:
        GcsRefusal: it is none.
    """
    found = _BOUNDARY.search(content_type)
    if found is None or not content_type.startswith("multipart/related"):
        raise bad_request("Missing multipart boundary.", "badContent")
    mark = b"--" + found[1].encode()
    start = body.find(mark)
    middle = body.find(b"\r\n" + mark, start + len(mark))
    data_at = body.find(b"\r\n\r\n", middle + 2 + len(mark))
    # The first one ends the bytes: a client has to choose a boundary that is not among them.
    end = body.find(b"\r\n" + mark, data_at + 2)
    is_last = body[end + 2 + len(mark) :].strip() == b"--"
    if start != 0 or middle < 0 or data_at < 0 or end < data_at + 4 or not is_last:
        raise bad_request("Malformed multipart body.", "badContent")
    _head, _, document = body[len(mark) : middle].partition(b"\r\n\r\n")
    return read_document(document), body[data_at + 4 : end]
