# References: Cloud Storage JSON API v1, "Resumable uploads", "Perform resumable uploads".
"""Resumable uploads: sessions that outlive connections and the process."""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from imageport.sandbox.gcp.gcs_access import Access
from imageport.sandbox.gcp.gcs_messages import GcsAnswer, GcsRefusal, GcsRequest, bad_request
from imageport.sandbox.gcp.gcs_parts import PIECE_BYTES, Digest, Pace, wanted_hashes
from imageport.sandbox.gcp.gcs_preconditions import Preconditions
from imageport.sandbox.gcp.gcs_resources import object_resource
from imageport.sandbox.gcp.gcs_store import ObjectStore, StoredObject
from imageport.sandbox.gcp.gcs_writes import NewObject, ObjectWrites, writing

CHUNK_BYTES: Final = 256 * 1024
"""All chunks but the last are multiples of it, and so is what is persisted of one."""
WEEK_SECONDS: Final = 7 * 24 * 3600
CANCELLED: Final = 499
GONE: Final = 410
_CONTENT_RANGE: Final = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


@dataclass(slots=True)
class Session:
    """One resumable upload."""

    id: str
    new: NewObject
    query: dict[str, str]
    wanted: dict[str, str]
    total: int | None
    access: Access
    part: Path
    digest: Digest = field(default_factory=Digest)
    persisted: int = 0
    done: dict[str, Any] | None = None
    cancelled: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """What a PUT says that it brings."""

    first: int
    length: int | None
    total: int | None


class Sessions:
    """All sessions of the bucket; used from all request threads."""

    def __init__(self, folder: Path, store: ObjectStore, pace: Pace) -> None:
        self._folder = folder
        self._store = store
        self._writes = ObjectWrites(store)
        self._pace = pace
        self._sessions: dict[str, Session] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def begin(self, new: NewObject, request: GcsRequest, document: Any, access: Access) -> Session:
        """Open a session; its id is all that one needs to write to it."""
        text = request.headers.get("x-upload-content-length")
        total = int(text) if text and text.isdigit() else None
        wanted = wanted_hashes(request.headers, document)
        id_ = f"ABPnzm{secrets.token_urlsafe(48)}"
        part = self._folder / f"{secrets.token_hex(12)}.part"
        session = Session(id_, new, dict(request.query), wanted, total, access, part)
        self._check(session)(self._store.get(new.name))
        part.touch()
        self._sessions[id_] = session
        self._keep(session)
        return session

    def take_up(self, access: Access, now: float) -> None:
        """Go on with the sessions of an earlier process, in the name of the account."""
        for path in self._folder.glob("*.json"):
            part, document = path.with_suffix(".part"), json.loads(path.read_text())
            old = now - path.stat().st_mtime > WEEK_SECONDS
            if old or not (part.exists() or document["done"]):
                path.unlink()
                part.unlink(missing_ok=True)
                continue
            session = Session(
                document["id"],
                NewObject(**document["new"]),
                document["query"],
                document["wanted"],
                document["total"],
                access,
                part,
                done=document["done"],
            )
            if session.done is None:
                _read_again(session)
            self._sessions[session.id] = session

    def lose(self, id_: str) -> None:
        """Forget a session, as Google does with those that broke or are a week old."""
        session = self._sessions.pop(id_, None)
        if session is not None:
            self._drop(session)

    def cancel(self, id_: str) -> GcsAnswer:
        """Answer DELETE."""
        with self._locked(id_) as session:
            session.cancelled = True
            self._drop(session)
        return GcsAnswer(CANCELLED)

    def put(self, id_: str, request: GcsRequest) -> GcsAnswer:
        """Answer PUT: a chunk, the rest, or the question how far it went."""
        with self._locked(id_) as session:
            if session.done is not None:
                return GcsAnswer.of(session.done)
            chunk = _read_chunk(request)
            if chunk.total is not None:
                if session.total not in {None, chunk.total}:
                    raise bad_request(
                        f"Invalid request.  The total size {chunk.total} is not the one that was "
                        f"said before, {session.total}."
                    )
                session.total = chunk.total
            _check_total(session, chunk)
            if chunk.length != 0:
                self._receive(session, chunk, request)
            if session.total is not None and session.persisted >= session.total:
                return self._finish(session, request.headers)
            headers = {"Range": f"bytes=0-{session.persisted - 1}"} if session.persisted else {}
            return GcsAnswer(308, headers)

    def _receive(self, session: Session, chunk: _Chunk, request: GcsRequest) -> None:
        if chunk.first > session.persisted:
            text = (
                "Invalid request.  According to the Content-Range header, the upload offset is "
                f"{chunk.first} byte(s), which exceeds already uploaded size of "
                f"{session.persisted} byte(s)."
            )
            raise GcsRefusal(503, "backendError", text)
        end = None if chunk.length is None else chunk.first + chunk.length
        if end is not None and end != session.total and end % CHUNK_BYTES:
            text = (
                "Invalid request.  The number of bytes uploaded is required to be equal or greater "
                "than 262144, except for the final request (it's recommended to be the exact "
                f"multiple of 262144).  The received request contained {chunk.length} bytes, which "
                "does not meet this requirement."
            )
            raise bad_request(text)
        _discard(request, session.persisted - chunk.first)
        most = end
        if session.access.knobs.take("short_persists"):
            most = session.persisted + CHUNK_BYTES
        self._append(session, request, most)

    def _append(self, session: Session, request: GcsRequest, most: int | None) -> None:
        """Write what arrives; of a connection that breaks, whole pieces of 256 KiB stay."""
        with session.part.open("ab", buffering=0) as file:
            while most is None or session.persisted < most:
                left = PIECE_BYTES if most is None else min(PIECE_BYTES, most - session.persisted)
                data = request.body.read(left)
                short = len(data) < left
                if short and request.length is not None:
                    data = data[: len(data) - len(data) % CHUNK_BYTES]
                self._pace(len(data))
                file.write(data)
                session.digest.update(data)
                session.persisted += len(data)
                if short:
                    break
        if most is None:
            session.total = session.persisted if session.total is None else session.total
            _check_total(session, _Chunk(0, None, None))

    def _finish(self, session: Session, headers: Mapping[str, str]) -> GcsAnswer:
        try:
            session.digest.check({**session.wanted, **wanted_hashes(headers, {})})
            found = self._insert(session)
        except GcsRefusal:
            self._sessions.pop(session.id, None)
            self._drop(session)
            raise
        session.done = object_resource(found)
        self._keep(session)
        return GcsAnswer.of(session.done)

    def _insert(self, session: Session) -> StoredObject:
        part = self._store.new_part()
        session.part.rename(part)
        return self._writes.insert(part, session.new, session.digest, self._check(session))

    def _check(self, session: Session) -> Any:
        conditions = Preconditions.of_query(session.query)
        return writing(session.access, session.new.name, conditions)

    @contextmanager
    def _locked(self, id_: str) -> Iterator[Session]:
        session = self._sessions.get(id_)
        if session is None:
            raise GcsRefusal(404, "notFound", "Upload session not found.")
        with session.lock:
            if session.cancelled:
                raise GcsRefusal(CANCELLED, "clientClosedRequest", "The upload was cancelled.")
            yield session

    def _keep(self, session: Session) -> None:
        if session.access.caller.boundary is not None:
            return  # after a restart nobody would know what it may do
        document = {
            "id": session.id,
            "new": {
                "name": session.new.name,
                "properties": session.new.properties,
                "metadata": session.new.metadata,
                "kms_key": session.new.kms_key,
            },
            "query": session.query,
            "wanted": session.wanted,
            "total": session.total,
            "done": session.done,
        }
        session.part.with_suffix(".json").write_text(json.dumps(document))

    @staticmethod
    def _drop(session: Session) -> None:
        session.part.unlink(missing_ok=True)
        session.part.with_suffix(".json").unlink(missing_ok=True)


def _read_chunk(request: GcsRequest) -> _Chunk:
    text = request.headers.get("content-range")
    if text is None:
        return _Chunk(0, request.length, request.length)
    found = _CONTENT_RANGE.fullmatch(text.strip())
    if found is None:
        raise bad_request(f"Failed to parse Content-Range header: {text[:60]}")
    total = None if found[3] == "*" else int(found[3])
    if found[1] is None:
        return _Chunk(0, 0, total)
    first, length = int(found[1]), int(found[2]) - int(found[1]) + 1
    if length <= 0 or request.length != length or (total is not None and first + length > total):
        raise bad_request(
            f"Invalid request.  There were {request.length} byte(s) in the request body.  There "
            f"should have been {length} byte(s) (starting at offset {first}), according to the "
            "Content-Range header."
        )
    return _Chunk(first, length, total)


def _check_total(session: Session, chunk: _Chunk) -> None:
    """Refuse more bytes than the whole has."""
    end = max(session.persisted, chunk.first + (chunk.length or 0))
    if session.total is not None and end > session.total:
        raise bad_request(
            f"Invalid request.  According to the request, {end} byte(s) would be uploaded, which "
            f"exceeds the total size of {session.total} byte(s)."
        )


def _discard(request: GcsRequest, count: int) -> None:
    """Read past what is persisted already."""
    left = min(count, request.length or 0)
    while left > 0:
        data = request.body.read(min(PIECE_BYTES, left))
        if not data:
            return
        left -= len(data)


def _read_again(session: Session) -> None:
    """Take up the bytes of a session; a piece that was half written goes."""
    size = session.part.stat().st_size
    session.persisted = size - size % CHUNK_BYTES
    with session.part.open("r+b") as file:
        file.truncate(session.persisted)
        while data := file.read(PIECE_BYTES):
            session.digest.update(data)
