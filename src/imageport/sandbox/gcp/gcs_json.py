# References: Cloud Storage JSON API v1: Objects, Buckets; "Uploads and downloads of file data".
"""The JSON API of the one bucket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from imageport.model import MIB
from imageport.sandbox.gcp.account import BUCKET
from imageport.sandbox.gcp.call_record import CLASS_A, CLASS_B, FREE
from imageport.sandbox.gcp.gcs_access import BUCKET_GET, CREATE, Access
from imageport.sandbox.gcp.gcs_listing import list_objects
from imageport.sandbox.gcp.gcs_messages import (
    GcsAnswer,
    GcsRefusal,
    GcsRequest,
    bad_request,
    not_found,
)
from imageport.sandbox.gcp.gcs_parts import (
    Digest,
    Pace,
    wanted_hashes,
)
from imageport.sandbox.gcp.gcs_preconditions import Preconditions
from imageport.sandbox.gcp.gcs_resources import (
    bucket_resource,
    check_fields,
    object_resource,
    read_fields,
    select,
)
from imageport.sandbox.gcp.gcs_sessions import Sessions
from imageport.sandbox.gcp.gcs_store import ObjectStore
from imageport.sandbox.gcp.gcs_transfers import download, receive, split_related
from imageport.sandbox.gcp.gcs_writes import (
    NewObject,
    ObjectWrites,
    default_key,
    writing,
)

LARGEST_MULTIPART_BYTES: Final = 64 * MIB
"""This store reads such bodies into memory; Google takes 5 TiB."""
_PLAIN: Final = {"alt", "prettyPrint", "fields", "userProject", "quotaUser", "projection"}
_CONDITIONS: Final = {
    f"if{kind}Match"
    for kind in ("Generation", "GenerationNot", "Metageneration", "MetagenerationNot")
}
_KNOWN_QUERIES: Final = {
    "list": {"prefix", "delimiter", "pageToken", "maxResults", "startOffset", "endOffset"},
    "get": {*_CONDITIONS, "generation"},
    "patch": {*_CONDITIONS, "generation"},
    "delete": {*_CONDITIONS, "generation"},
    "compose": {"ifGenerationMatch", "ifMetagenerationMatch", "kmsKeyName"},
    "insert": {*_CONDITIONS, "kmsKeyName", "uploadType", "name"},
    "session": {"uploadType", "upload_id", "name", "kmsKeyName", *_CONDITIONS},
    "bucket": {"ifMetagenerationMatch", "ifMetagenerationNotMatch"},
    "test": {"permissions"},
}
Call = Callable[[GcsRequest, Access, str], GcsAnswer]


class JsonFace:
    """Answers ``/storage/v1/…``, ``/download/…`` and ``/upload/…``."""

    def __init__(self, store: ObjectStore, sessions: Sessions, pace: Pace) -> None:
        self._store = store
        self._sessions = sessions
        self._writes = ObjectWrites(store)
        self._pace = pace

    def answer(self, request: GcsRequest, access: Access) -> GcsAnswer:
        """Answer one request of a known caller."""
        method, price, call, name = self._route(request)
        _check_query(request, method)
        fields = read_fields(request.query.get("fields", ""))
        if method not in {"bucket", "test"}:
            check_fields(fields, of_list=method == "list")
        answer = call(request, access, name)
        is_insert = method == "insert"
        size_in = (request.length or 0) if is_insert else 0
        size_out = int(answer.headers.get("Content-Length", 0)) if answer.stream else 0
        title = {"bucket": "storage.buckets.get", "test": "storage.buckets.testIamPermissions"}
        access.calls.count(title.get(method, f"storage.objects.{method}"), price, size_in, size_out)
        if answer.document is not None:
            answer.document = select(answer.document, fields)
        return answer

    def session(self, request: GcsRequest, access: Access) -> GcsAnswer:
        """Answer a request to a resumable session, for which its URL is enough."""
        _check_query(request, "session")
        id_ = request.query["upload_id"]
        if access.knobs.take("lost_sessions"):
            self._sessions.lose(id_)
            raise GcsRefusal(410, "gone", "The upload session is gone.")
        if request.method == "DELETE":
            return self._sessions.cancel(id_)
        answer = self._sessions.put(id_, request)
        # The session was counted when it began; its chunks cost nothing more.
        access.calls.count("storage.objects.insert.chunk", FREE, request.length or 0)
        return answer

    def _route(self, request: GcsRequest) -> tuple[str, str, Call, str]:
        """Return method, price class, what carries it out, and the object's name."""
        verb, parts = request.method, request.parts
        surface = parts[0] if parts[0] in {"upload", "download"} else ""
        rest = parts[1:] if surface else parts
        if rest[:3] != ["storage", "v1", "b"] or len(rest) < 4:
            raise GcsRefusal(404, "notFound", "Not Found")
        if rest[3] != BUCKET:
            raise GcsRefusal(404, "notFound", "The specified bucket does not exist.")
        kind, name = rest[4:5], "/".join(rest[5:6])
        key = (surface, verb, *kind, *(["*"] if name else []), *rest[6:])
        routes: dict[tuple[str, ...], tuple[str, str, Call]] = {
            ("", "GET"): ("bucket", CLASS_B, self._bucket),
            ("", "GET", "iam", "*"): ("test", CLASS_B, _test_permissions),
            ("", "GET", "o"): ("list", CLASS_A, self._list),
            ("", "GET", "o", "*"): ("get", CLASS_B, self._get),
            ("download", "GET", "o", "*"): ("get", CLASS_B, self._get),
            ("", "PATCH", "o", "*"): ("patch", CLASS_A, self._patch),
            ("", "DELETE", "o", "*"): ("delete", FREE, self._delete),
            ("", "POST", "o", "*", "compose"): ("compose", CLASS_A, self._compose),
            ("upload", "POST", "o"): ("insert", CLASS_A, self._insert),
        }
        if key not in routes or (kind == ["iam"] and name != "testPermissions"):
            raise GcsRefusal(404, "notFound", "Not Found")
        return (*routes[key], name)

    def _bucket(self, _request: GcsRequest, access: Access, _name: str) -> GcsAnswer:
        access.check(BUCKET_GET)
        return GcsAnswer.of(bucket_resource(access.knobs.bucket))

    def _list(self, request: GcsRequest, access: Access, _name: str) -> GcsAnswer:
        return GcsAnswer.of(list_objects(self._store, request.query, access))

    def _get(self, request: GcsRequest, access: Access, name: str) -> GcsAnswer:
        access.check_read(name, is_there=self._store.get(name) is not None)
        conditions = Preconditions.of_query(request.query)
        if request.query.get("alt") == "media":
            return download(self._store, (name, conditions), request, self._pace)
        found = self._store.get(name)
        if found is None:
            raise not_found(name, BUCKET)
        conditions.check(found, reading=True)
        return GcsAnswer.of(object_resource(found))

    def _patch(self, request: GcsRequest, access: Access, name: str) -> GcsAnswer:
        found = self._writes.patch(name, request.document(), request.query, access)
        return GcsAnswer.of(object_resource(found))

    def _delete(self, request: GcsRequest, access: Access, name: str) -> GcsAnswer:
        self._writes.delete(name, Preconditions.of_query(request.query), access)
        return GcsAnswer(204)

    def _compose(self, request: GcsRequest, access: Access, name: str) -> GcsAnswer:
        found = self._writes.compose(name, request.document(), request.query, access)
        return GcsAnswer.of(object_resource(found))

    def _insert(self, request: GcsRequest, access: Access, _name: str) -> GcsAnswer:
        kind = request.query.get("uploadType", "")
        if kind == "media":
            return self._insert_media(request, access)
        if kind == "multipart":
            return self._insert_multipart(request, access)
        if kind != "resumable":
            raise bad_request(f"Invalid upload request: unknown uploadType '{kind}'.", "badRequest")
        document = request.document()
        new = _new(request, document, access)
        session = self._sessions.begin(new, request, document, access)
        query = f"uploadType=resumable&upload_id={session.id}"
        host = request.headers.get("host", "")
        url = f"http://{host}/upload/storage/v1/b/{BUCKET}/o?{query}"
        return GcsAnswer(200, {"Location": url, "X-GUploader-UploadID": session.id})

    def _insert_media(self, request: GcsRequest, access: Access) -> GcsAnswer:
        document = {"contentType": request.headers.get("content-type")}
        new = _new(request, document, access)
        wanted = wanted_hashes(request.headers, {})
        conditions = Preconditions.of_query(request.query)
        check = writing(access, new.name, conditions)
        return GcsAnswer.of(
            object_resource(
                receive(self._store, request, (new, wanted), check, self._pace),
            )
        )

    def _insert_multipart(self, request: GcsRequest, access: Access) -> GcsAnswer:
        if (request.length or 0) > LARGEST_MULTIPART_BYTES:
            raise GcsRefusal(413, "uploadTooLarge", "This store takes no multipart body so large.")
        document, data = split_related(request.headers["content-type"], request.body.read())
        new = _new(request, document, access)
        check = writing(access, new.name, Preconditions.of_query(request.query))
        check(self._store.get(new.name))
        self._pace(len(data))
        digest, part = Digest(), self._store.new_part()
        digest.update(data)
        digest.check(wanted_hashes(request.headers, document))
        with part.open("xb", buffering=0) as file:
            file.write(data)
        return GcsAnswer.of(object_resource(self._writes.insert(part, new, digest, check)))


def _new(request: GcsRequest, document: dict[str, Any], access: Access) -> NewObject:
    named, queried = document.get("name"), request.query.get("name")
    name = str(queried or named or "")
    access.check(CREATE, name)
    return NewObject.read(name, document, request.query, default_key(access))


def _test_permissions(request: GcsRequest, access: Access, _name: str) -> GcsAnswer:
    asked = request.queries.get("permissions", [])
    if not asked or any(not item.startswith("storage.") for item in asked):
        raise bad_request("Invalid argument.")
    granted = [item for item in asked if access.has(item)]
    found: dict[str, Any] = {"kind": "storage#testIamPermissionsResponse"}
    return GcsAnswer.of({**found, "permissions": granted} if granted else found)


def _check_query(request: GcsRequest, method: str) -> None:
    """Refuse parameters that this store would ignore: who sends them counts on them."""
    known = _KNOWN_QUERIES[method] | _PLAIN
    unknown = {name for name in request.queries if name not in known and not name.startswith("$")}
    if unknown:
        text = f"Unknown parameters for {method}: {', '.join(sorted(unknown))}."
        raise bad_request(text, "invalidParameter")
