# References: Cloud Storage XML API: PUT Object, GET Object, HEAD Object, DELETE Object; headers.
"""The part of the XML API that signed URLs and plain HTTP clients use."""

from __future__ import annotations

from typing import Any, Final

from imageport.sandbox.gcp.account import BUCKET
from imageport.sandbox.gcp.call_record import CLASS_A, CLASS_B, FREE
from imageport.sandbox.gcp.gcs_access import CREATE, Access
from imageport.sandbox.gcp.gcs_messages import GcsAnswer, GcsRefusal, GcsRequest, bad_request
from imageport.sandbox.gcp.gcs_parts import Pace, wanted_hashes
from imageport.sandbox.gcp.gcs_preconditions import Preconditions
from imageport.sandbox.gcp.gcs_store import ObjectStore
from imageport.sandbox.gcp.gcs_transfers import download, receive
from imageport.sandbox.gcp.gcs_writes import (
    NewObject,
    ObjectWrites,
    default_key,
    writing,
)

_METADATA: Final = "x-goog-meta-"
_HEADERS: Final = {
    "content-type": "contentType",
    "cache-control": "cacheControl",
    "content-disposition": "contentDisposition",
    "content-language": "contentLanguage",
}
_KNOWN_QUERIES: Final = ("x-goog-", "userproject", "prettyprint")
_KNOWN_HEADERS: Final = {
    f"x-goog-{name}"
    for name in (
        "hash", "if-generation-match", "if-metageneration-match", "encryption-kms-key-name",
        "content-sha256", "api-client", "user-project", "copy-source",
    )
}  # fmt: skip


class XmlFace:
    """Answers ``/BUCKET/KEY``."""

    def __init__(self, store: ObjectStore, pace: Pace) -> None:
        self._store = store
        self._writes = ObjectWrites(store)
        self._pace = pace

    def answer(self, request: GcsRequest, access: Access) -> GcsAnswer:
        """Answer one request of a known caller."""
        bucket, name = request.parts[0], "/".join(request.parts[1:])
        if bucket != BUCKET:
            text = "The specified bucket does not exist."
            raise GcsRefusal(404, "notFound", text, code="NoSuchBucket")
        unknown = [item for item in request.queries if not item.lower().startswith(_KNOWN_QUERIES)]
        _check_headers(request)
        calls = {"GET": self._get, "HEAD": self._get, "PUT": self._put, "DELETE": self._delete}
        if not name or unknown or request.method not in calls:
            text = "The specified method is not allowed against this resource."
            raise GcsRefusal(405, "methodNotAllowed", text, code="MethodNotAllowed")
        return calls[request.method](request, access, name)

    def _get(self, request: GcsRequest, access: Access, name: str) -> GcsAnswer:
        access.check_read(name, is_there=self._store.get(name) is not None)
        what = name, Preconditions.of_headers(request.headers)
        answer = download(self._store, what, request, self._pace)
        size = int(answer.headers["Content-Length"]) if request.method == "GET" else 0
        access.calls.count("storage.objects.get", CLASS_B, bytes_out=size)
        return answer

    def _put(self, request: GcsRequest, access: Access, name: str) -> GcsAnswer:
        if "x-goog-copy-source" in request.headers:
            raise bad_request("This store copies nothing.", "notImplemented")
        access.check(CREATE, name)
        headers = request.headers
        metadata = {
            item.removeprefix(_METADATA): text
            for item, text in headers.items()
            if item.startswith(_METADATA)
        }
        document: dict[str, Any] = {
            member: headers[item] for item, member in _HEADERS.items() if headers.get(item)
        }
        key = {"kmsKeyName": headers.get("x-goog-encryption-kms-key-name", "")}
        new = NewObject.read(name, {**document, "metadata": metadata}, key, default_key(access))
        check = writing(access, name, Preconditions.of_headers(headers))
        what = new, wanted_hashes(headers, {})
        found = receive(self._store, request, what, check, self._pace)
        access.calls.count("storage.objects.insert", CLASS_A, bytes_in=found.size_bytes)
        hashes = f"crc32c={found.facts.crc32c},md5={found.facts.md5}"
        generation = str(found.generation)
        return GcsAnswer(200, {"X-Goog-Hash": hashes, "X-Goog-Generation": generation})

    def _delete(self, request: GcsRequest, access: Access, name: str) -> GcsAnswer:
        self._writes.delete(name, Preconditions.of_headers(request.headers), access)
        access.calls.count("storage.objects.delete", FREE)
        return GcsAnswer(204)


def _check_headers(request: GcsRequest) -> None:
    """Refuse extension headers that this store would ignore: who sends them counts on them."""
    unknown = [
        name
        for name in request.headers
        if name.startswith("x-goog-") and not name.startswith(_METADATA)
        if name not in _KNOWN_HEADERS
    ]
    if unknown:
        raise bad_request(f"Unknown headers: {', '.join(sorted(unknown))}.", "notImplemented")
