# References: Azure Storage, Put Blob, Put Block, Put Block List, Delete Blob.
"""What can be written to the job account: block blobs, whole or in blocks."""

from __future__ import annotations

import re
from collections.abc import Callable

from imageport.model import MIB
from imageport.sandbox.azure.blob_answers import (
    BlobAnswer,
    BlobRefusal,
    BlobRequest,
    bad_header,
    bad_query,
    condition_not_met,
    http_date,
    missing_header,
    not_permitted,
    too_large,
)
from imageport.sandbox.azure.blob_store import BlobStore, StoredBlob
from imageport.sandbox.azure.page_checksums import check_body, check_md5, md5_of

LARGEST_PUT_BYTES = 5000 * MIB
LARGEST_BLOCK_BYTES = 4000 * MIB
"""Both since version 2019-12-12."""
_BLOCK = re.compile(rb"<(?:Latest|Uncommitted)>([A-Za-z0-9+/=]+)</")

Place = tuple[str, str]
"""Container and name."""


def put_blob(store: BlobStore, place: Place, request: BlobRequest) -> BlobAnswer:
    """Put Blob, of the type BlockBlob only."""
    kind = request.headers.get("x-ms-blob-type")
    if kind is None:
        raise missing_header("x-ms-blob-type")
    if kind != "BlockBlob":
        raise bad_header("x-ms-blob-type", kind)
    if len(request.body) > LARGEST_PUT_BYTES:
        raise too_large(LARGEST_PUT_BYTES)
    check_overwrite(store.get(*place), request)
    check_body(request.body, request.headers)
    if "x-ms-blob-content-md5" in request.headers:
        check_md5(request.body, request.headers["x-ms-blob-content-md5"])
    return _stored(store, place, request.body, request)


def put_block(store: BlobStore, place: Place, request: BlobRequest) -> BlobAnswer:
    """Put Block: kept until a list names it."""
    block_id = request.query.get("blockid", "")
    if not re.fullmatch(r"[A-Za-z0-9+/]{1,88}={0,2}", block_id):
        raise bad_query("blockid", block_id)
    if len(request.body) > LARGEST_BLOCK_BYTES:
        raise too_large(LARGEST_BLOCK_BYTES)
    confirmed = check_body(request.body, request.headers)
    store.stage(place, block_id, request.body)
    return BlobAnswer(201, {"x-ms-request-server-encrypted": "true", **confirmed})


def put_block_list(store: BlobStore, place: Place, request: BlobRequest) -> BlobAnswer:
    """Put Block List: the blocks become the blob."""
    check_overwrite(store.get(*place), request)
    named = [item.decode() for item in _BLOCK.findall(request.body)]
    body = store.staged(place, named)
    if body is None:
        text = "The specified block list is invalid."
        raise BlobRefusal(400, "InvalidBlockList", text)
    return _stored(store, place, body, request)


def delete_blob(store: BlobStore, place: Place, request: BlobRequest) -> BlobAnswer:
    """Delete Blob; 404 when there is none."""
    blob = store.get(*place)
    if blob is None:
        raise blob_not_found()
    if request.headers.get("if-match", "*") not in {"*", blob.etag}:
        raise condition_not_met()
    if not store.delete(*place):
        raise blob_not_found()
    return BlobAnswer(202, {"x-ms-delete-type-permanent": "true"})


def check_overwrite(blob: StoredBlob | None, request: BlobRequest) -> None:
    """Hold the conditions of a write, and that ``c`` alone creates but does not overwrite."""
    wanted, unwanted = request.headers.get("if-match"), request.headers.get("if-none-match")
    if blob is None:
        if wanted is not None:
            raise condition_not_met()
        return
    if unwanted == "*":
        raise BlobRefusal(409, "BlobAlreadyExists", "The specified blob already exists.")
    if unwanted == blob.etag or wanted not in {None, "*", blob.etag}:
        raise condition_not_met()
    if "sig" in request.query and "w" not in request.query.get("sp", ""):
        raise not_permitted()


def blob_not_found() -> BlobRefusal:
    """Say that there is no such blob."""
    return BlobRefusal(404, "BlobNotFound", "The specified blob does not exist.")


def _stored(store: BlobStore, place: Place, body: bytes, request: BlobRequest) -> BlobAnswer:
    headers = request.headers
    kind = headers.get("x-ms-blob-content-type") or headers["content-type"]
    metadata = {
        name.removeprefix("x-ms-meta-"): value
        for name, value in headers.items()
        if name.startswith("x-ms-meta-")
    }
    digest = md5_of(body)
    content = (kind or "application/octet-stream", digest)
    blob = store.put(place, body, content, metadata)
    return BlobAnswer(
        201,
        {
            "ETag": blob.etag,
            "Last-Modified": http_date(blob.modified),
            "Content-MD5": digest,
            "x-ms-request-server-encrypted": "true",
        },
    )


Write = Callable[[BlobStore, Place, BlobRequest], BlobAnswer]
WRITES: dict[str, Write] = {"": put_blob, "block": put_block, "blocklist": put_block_list}
"""By the query's ``comp``."""
