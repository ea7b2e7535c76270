# References: Azure Storage, Get Blob, Get Blob Properties, List Blobs, Get Container Properties.
"""What can be read of the job account."""

from __future__ import annotations

import base64
import binascii
from xml.sax.saxutils import escape, quoteattr

from imageport.sandbox.azure.blob_answers import (
    BlobAnswer,
    BlobRequest,
    bad_query,
    bad_range,
    condition_not_met,
    http_date,
)
from imageport.sandbox.azure.blob_ranges import asked_range
from imageport.sandbox.azure.blob_store import BlobStore, StoredBlob
from imageport.sandbox.azure.blob_writes import Place, blob_not_found

LARGEST_LIST = 5000


def get_blob(store: BlobStore, place: Place, request: BlobRequest) -> BlobAnswer:
    """Get Blob and Get Blob Properties."""
    blob = store.get(*place)
    if blob is None:
        raise blob_not_found()
    if request.headers.get("if-match", "*") not in {"*", blob.etag}:
        raise condition_not_met()
    if request.headers.get("if-none-match", "") in {"*", blob.etag}:
        return BlobAnswer(304, {"ETag": blob.etag})
    if request.method == "HEAD":
        return BlobAnswer(200, {**_headers(blob), "Content-Length": str(blob.size_bytes)})
    found = store.read(*place)
    if found is None:
        raise blob_not_found()
    blob, body = found
    headers = _headers(blob)
    asked = asked_range(request.headers)
    if asked is None:
        return BlobAnswer(200, {**headers, "Content-MD5": blob.content_md5}, body)
    start = asked[0]
    if start >= blob.size_bytes:
        raise bad_range()
    end = blob.size_bytes if asked[1] is None else min(asked[1], blob.size_bytes)
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{blob.size_bytes}"
    headers["x-ms-blob-content-md5"] = blob.content_md5
    return BlobAnswer(206, headers, body[start:end])


def list_blobs(store: BlobStore, container: str, query: dict[str, str]) -> BlobAnswer:
    """List Blobs: by prefix, hierarchical with a delimiter, at most 5000 at once."""
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    limit = query.get("maxresults", str(LARGEST_LIST))
    if not limit.isdigit() or limit == "0":
        raise bad_query("maxresults", limit)
    after = _marked(query.get("marker", ""))
    entries: dict[str, str] = {}
    for blob in store.names(container, prefix):
        at = blob.name.find(delimiter, len(prefix)) if delimiter else -1
        if at >= 0:
            folder = blob.name[: at + len(delimiter)]
            entries[folder] = f"<BlobPrefix><Name>{escape(folder)}</Name></BlobPrefix>"
        else:
            entries[blob.name] = _entry(blob)
    names = sorted(name for name in entries if name > after)
    shown = names[: min(int(limit), LARGEST_LIST)]
    following = _marker(shown[-1]) if len(shown) < len(names) else ""
    body = (
        '<?xml version="1.0" encoding="utf-8"?>'
        f"<EnumerationResults ServiceEndpoint={quoteattr('/')} "
        f"ContainerName={quoteattr(container)}><Prefix>{escape(prefix)}</Prefix>"
        f"<Blobs>{''.join(entries[name] for name in shown)}</Blobs>"
        f"<NextMarker>{following}</NextMarker></EnumerationResults>"
    )
    return BlobAnswer(200, {"Content-Type": "application/xml"}, body.encode())


def container_properties() -> BlobAnswer:
    """Get Container Properties."""
    headers = {
        "ETag": '"0x8DD000000000000"',
        "Last-Modified": http_date(0),
        "x-ms-lease-status": "unlocked",
        "x-ms-lease-state": "available",
        "x-ms-has-immutability-policy": "false",
        "x-ms-has-legal-hold": "false",
    }
    return BlobAnswer(200, headers)


def _headers(blob: StoredBlob) -> dict[str, str]:
    return {
        "ETag": blob.etag,
        "Last-Modified": http_date(blob.modified),
        "Content-Type": blob.content_type,
        "Accept-Ranges": "bytes",
        "x-ms-blob-type": "BlockBlob",
        "x-ms-lease-status": "unlocked",
        "x-ms-lease-state": "available",
        "x-ms-server-encrypted": "true",
        **{f"x-ms-meta-{name}": value for name, value in blob.metadata.items()},
    }


def _entry(blob: StoredBlob) -> str:
    properties = {
        "Creation-Time": http_date(blob.modified),
        "Last-Modified": http_date(blob.modified),
        "Etag": blob.etag.strip('"'),
        "Content-Length": str(blob.size_bytes),
        "Content-Type": blob.content_type,
        "Content-MD5": blob.content_md5,
        "BlobType": "BlockBlob",
        "LeaseStatus": "unlocked",
        "LeaseState": "available",
        "ServerEncrypted": "true",
    }
    inner = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in properties.items())
    return f"<Blob><Name>{escape(blob.name)}</Name><Properties>{inner}</Properties></Blob>"


def _marker(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def _marked(marker: str) -> str:
    try:
        return base64.urlsafe_b64decode(marker.encode()).decode()
    except (binascii.Error, ValueError):
        raise bad_query("marker", marker) from None
