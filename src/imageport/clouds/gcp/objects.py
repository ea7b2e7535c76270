# References: Cloud Storage JSON API v1, "Objects"; "Uploads and downloads"; "Composite objects".
"""The bucket: objects are written once, checked by CRC32C both ways, listed, composed.

Google's own client is not used for it: one put costs 6 ms of CPU with it and 2 ms here, and there
are sixty thousand for 30 GiB; its compose cannot name an encryption key.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import google_crc32c
import requests
import urllib3

from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.clients import TIMEOUT, answer_of
from imageport.clouds.gcp.error_mapping import CHANGED, asked
from imageport.clouds.gcp.object_facts import (
    FIELDS,
    ObjectFacts,
    checksum_text,
    crc32c_of,
    facts_in,
    require_checksum,
    sent_checksum,
)
from imageport.clouds.waiting import retried
from imageport.errors import CloudRefused, CloudUnavailable, ResourceGone
from imageport.model import MIB

__all__ = ["ANY_GENERATION", "NO_GENERATION", "ObjectFacts", "Objects", "crc32c_of"]

READ: Final = "storage.objects.get"
CREATE: Final = "storage.objects.create"
DELETE: Final = "storage.objects.delete"
LIST: Final = "storage.objects.list"
UPDATE: Final = "storage.objects.update"
ANY_GENERATION: Final = None
NO_GENERATION: Final = 0
"""As a precondition: there is no such object."""
BINARY: Final = "application/octet-stream"
PAGE_OBJECTS: Final = 1000
"""The most that Google gives at a time."""
DELETING_THREADS: Final = 16
LARGEST_READ_BYTES: Final = 64 * MIB
"""What no object that is read in one piece comes near."""


Found = TypeVar("Found")


class Objects:
    """The objects of an account's bucket, each call asking once; may be used from several threads.

    Keys are whole names from the top of the bucket. Only `list` and `delete_many`, which ask many
    times, repeat what may pass.
    """

    def __init__(self, account: GcpAccount) -> None:
        self._settings = account.settings
        self._clients = account.clients
        endpoint = account.settings.endpoint("storage")
        self._endpoint = endpoint
        self._name = account.settings.bucket
        self._bucket = f"{endpoint}/storage/v1/b/{account.settings.bucket}/o"
        self._upload = f"{endpoint}/upload/storage/v1/b/{account.settings.bucket}/o"

    def put_once(self, key: str, data: bytes, metadata: Mapping[str, str] | None = None) -> bool:
        """Write an object that is not there; False when it is there already, whatever it holds."""
        try:
            self.put(key, data, metadata, generation=NO_GENERATION)
        except CloudRefused as error:
            if error.fields.get("gcp_code") != CHANGED:
                raise
            return False
        return True

    def put(
        self,
        key: str,
        data: bytes,
        metadata: Mapping[str, str] | None = None,
        *,
        generation: int | None = ANY_GENERATION,
    ) -> ObjectFacts:
        """Write a whole object; ``generation`` is the one that is replaced, if it matters.

        Raises:
            CloudUnavailable: it arrived damaged, among the usual.
            CloudRefused: with `CHANGED` as ``gcp_code``: the precondition does not hold.
        """
        checksum = crc32c_of(data)
        resource = _resource(key, metadata) | {"crc32c": checksum_text(checksum)}
        boundary = f"imageport-{secrets.token_hex(16)}"
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
            f"{json.dumps(resource)}\r\n--{boundary}\r\nContent-Type: {BINARY}\r\n\r\n"
        )
        body = _Body(head.encode(), data, f"\r\n--{boundary}--\r\n".encode())
        headers = {"Content-Type": f'multipart/related; boundary="{boundary}"'}
        query = self._query("multipart", generation)
        with asked(CREATE, key):
            facts = facts_in(answer_of(self._send("POST", self._upload, query, body, headers)))
        require_checksum(facts, checksum)
        return facts

    def put_file(self, key: str, path: Path, metadata: Mapping[str, str] | None = None) -> None:
        """Write a file of moderate size (an engine, an operator's drivers) as one object."""
        session = self.open_session(key, metadata)
        checksum = google_crc32c.Checksum()
        size_bytes, offset = path.stat().st_size, 0
        with path.open("rb") as file:
            while True:
                data = file.read(8 * MIB)
                checksum.update(data)
                last = not data or offset + len(data) >= size_bytes
                total = offset + len(data) if last else None
                done = self.put_chunk(session, offset, data, total, key)
                if isinstance(done, ObjectFacts):
                    require_checksum(done, int.from_bytes(checksum.digest(), "big"))
                    return
                if last or done != offset + len(data):
                    raise CloudUnavailable(f"Cannot write '{key}': only {done} bytes were kept.")
                offset = done

    def get(self, key: str, limit_bytes: int = LARGEST_READ_BYTES) -> bytes:
        """Return a whole object, compared with the checksum that the bucket keeps.

        Raises:
            ResourceGone: there is none.
            CloudRefused: it is longer than ``limit_bytes``.
            CloudUnavailable: it arrived damaged, among the usual.
        """
        data, headers = self._read(key, limit_bytes)
        if len(data) > limit_bytes:
            raise CloudRefused(
                f"Bad object '{key}': found more than {limit_bytes} bytes, needed no more."
            )
        needed = sent_checksum(headers)
        if needed is not None and crc32c_of(data) != needed:
            raise CloudUnavailable(f"Cannot read '{key}': its bytes arrived damaged (CRC32C).")
        return data

    def stat(self, key: str) -> ObjectFacts | None:
        """Return what is known of an object, or None when there is none."""
        try:
            with asked(READ, key):
                return facts_in(answer_of(self._send("GET", self._at(key), {"fields": FIELDS})))
        except ResourceGone:
            return None

    def list(self, prefix: str, *, start: str = "", end: str = "") -> Iterator[ObjectFacts]:
        """Yield every object below a prefix by name; ``start`` (included) and ``end`` cut the list.

        What is written meanwhile may be missing; what was written before is there.
        """
        query: dict[str, Any] = {
            "prefix": prefix,
            "maxResults": PAGE_OBJECTS,
            "fields": f"nextPageToken,items({FIELDS})",
        }
        query |= {"startOffset": start} if start else {}
        query |= {"endOffset": end} if end else {}
        while True:
            found, following = retried(lambda: self._page(prefix, query))
            yield from found
            if not following:
                return
            query["pageToken"] = following

    def set_metadata(
        self, key: str, metadata: Mapping[str, str | None], *, metageneration: int | None = None
    ) -> ObjectFacts:
        """Change single entries of an object's metadata; None takes one away."""
        query: dict[str, Any] = {"fields": FIELDS}
        if metageneration is not None:
            query["ifMetagenerationMatch"] = metageneration
        body = json.dumps({"metadata": dict(metadata)}).encode()
        with asked(UPDATE, key):
            return facts_in(answer_of(self._send("PATCH", self._at(key), query, body, _JSON)))

    def delete(self, key: str, *, generation: int | None = ANY_GENERATION) -> None:
        """Delete an object; one that is gone is no error."""
        query = {} if generation is None else {"ifGenerationMatch": generation}
        try:
            with asked(DELETE, key):
                answer_of(self._send("DELETE", self._at(key), query))
        except ResourceGone:
            return

    def delete_many(self, keys: Iterable[str]) -> int:
        """Delete objects, several at a time, and return how many; gone ones are no error."""

        def delete(key: str) -> None:
            retried(lambda: self.delete(key))

        return sum(1 for _ in in_parallel(delete, keys, DELETING_THREADS))

    def compose(
        self,
        key: str,
        sources: Sequence[tuple[str, int]],
        metadata: Mapping[str, str] | None = None,
        *,
        generation: int | None = ANY_GENERATION,
    ) -> ObjectFacts:
        """Join up to 32 objects to a new one.

        Args:
            key: Of the new object, which may exist.
            sources: Key and generation of each; another generation is refused.
            metadata: Of the new object.
            generation: As for `put`.

        Raises:
            ResourceGone: a source is not there.
            CloudRefused: with `CHANGED` as ``gcp_code``: a generation is another one.
        """
        body = {
            "sourceObjects": [
                {"name": name, "objectPreconditions": {"ifGenerationMatch": str(number)}}
                for name, number in sources
            ],
            "destination": {"contentType": BINARY, "metadata": dict(metadata or {})},
        }
        query = self._query("", generation)
        url = f"{self._at(key)}/compose"
        with asked("storage.objects.compose", key):
            return facts_in(
                answer_of(self._send("POST", url, query, json.dumps(body).encode(), _JSON))
            )

    def open_session(
        self,
        key: str,
        metadata: Mapping[str, str] | None = None,
        *,
        generation: int | None = ANY_GENERATION,
    ) -> str:
        """Begin an upload in order and return its URL: a secret that needs no token, for a week."""
        query = self._query("resumable", generation)
        body = json.dumps(_resource(key, metadata)).encode()
        headers = {**_JSON, "X-Upload-Content-Type": BINARY}
        with asked(CREATE, key):
            answer = self._send("POST", self._upload, query, body, headers)
            answer_of(answer)
        place = answer.headers.get("Location", "")
        if "upload_id=" not in place:
            raise CloudUnavailable(f"Cannot write '{key}': no upload session was opened.")
        # The way there is ours: a private endpoint may be told by its public name.
        return self._endpoint + place[place.index("/upload/") :]

    def is_session(self, url: object) -> bool:
        """Tell whether this is the URL of an upload session of this bucket, at our endpoint."""
        return isinstance(url, str) and url.startswith(f"{self._upload}?") and "upload_id=" in url

    def session_offset(self, session: str, key: str) -> int | ObjectFacts:
        """Return how many bytes a session has, or the object when it is finished.

        ``key`` is for messages.

        Raises:
            ResourceGone: the session ended without an object.
        """
        return self._session_put(session, b"", "bytes */*", key)

    def put_chunk(
        self, session: str, offset: int, data: bytes, total_bytes: int | None, key: str
    ) -> int | ObjectFacts:
        """Send the next bytes of a session; return how many it has, or the finished object.

        Args:
            session: From `open_session`.
            offset: Of the first byte of ``data``.
            data: Any multiple of 256 KiB; of the last chunk any number, also none.
            total_bytes: Of the whole, with the last chunk alone.
            key: For messages.
        """
        total = "*" if total_bytes is None else str(total_bytes)
        part = f"{offset}-{offset + len(data) - 1}" if data else "*"
        return self._session_put(session, data, f"bytes {part}/{total}", key)

    def close_session(self, session: str, key: str) -> None:
        """Give up an upload session of ``key`` with what it has; one that is gone is no error."""
        with asked(CREATE, key):
            answer = self._send("DELETE", session, {})
            if answer.status_code not in {204, 404, 410, CLIENT_CLOSED}:
                answer_of(answer)

    def _session_put(
        self, session: str, data: bytes, content_range: str, key: str
    ) -> int | ObjectFacts:
        headers = {"Content-Range": content_range, "Content-Type": BINARY}
        with asked(CREATE, key):
            answer = self._send("PUT", session, {}, data, headers)
            if answer.status_code == RESUME_INCOMPLETE:
                return _kept_bytes(answer.headers.get("Range", ""))
            if answer.status_code == CLIENT_CLOSED:
                raise ResourceGone(f"Cannot write '{key}': its upload session was given up.")
            return facts_in(answer_of(answer))

    def _page(self, prefix: str, query: dict[str, Any]) -> tuple[Sequence[ObjectFacts], str]:
        """Return a page of a listing and how the next is asked for; "" after the last."""
        with asked(LIST, f"gs://{self._name}/{prefix}"):
            page = answer_of(self._send("GET", self._bucket, query))
            return [facts_in(item) for item in page.get("items", [])], page.get("nextPageToken", "")

    def _read(self, key: str, limit_bytes: int) -> tuple[bytes, Mapping[str, str]]:
        """Return up to one byte more than ``limit_bytes``, and what the answer's headers tell."""
        session: Any = self._clients.session
        # Stored bytes as they are: nothing unpacks what claims to be packed.
        headers = {"Accept-Encoding": "gzip"}
        with asked(READ, key):
            answer = session.get(
                self._at(key), params={"alt": "media"}, headers=headers, timeout=TIMEOUT,
                stream=True, allow_redirects=False,
            )  # fmt: skip
            with answer:
                if answer.status_code != requests.codes.ok:
                    answer_of(answer)
                try:
                    return answer.raw.read(limit_bytes + 1, decode_content=False), answer.headers
                except urllib3.exceptions.HTTPError as error:
                    raise requests.ConnectionError(type(error).__name__) from None

    def _send(
        self,
        method: str,
        url: str,
        query: Mapping[str, Any],
        body: bytes | _Body = b"",
        headers: Mapping[str, str] | None = None,
    ) -> requests.Response:
        session: Any = self._clients.session
        answer: requests.Response = session.request(
            method, url, params=query, data=body, headers=dict(headers or {}), timeout=TIMEOUT,
            allow_redirects=False,
        )  # fmt: skip
        return answer

    def _query(self, upload_type: str, generation: int | None) -> dict[str, Any]:
        query: dict[str, Any] = {"fields": FIELDS}
        query |= {"uploadType": upload_type} if upload_type else {}
        query |= {} if generation is None else {"ifGenerationMatch": generation}
        key = self._settings.kms_key
        return query | ({"kmsKeyName": key} if key else {})

    def _at(self, key: str) -> str:
        return f"{self._bucket}/{quote(key, safe='')}"


class _Body:
    """Pieces that are sent one after the other; may be sent again.

    Joined, they would be one copy more of each of the 64 blocks in flight.
    """

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    def __len__(self) -> int:
        return sum(map(len, self._pieces))

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)


RESUME_INCOMPLETE: Final = 308
CLIENT_CLOSED: Final = 499
"""What Google answers of an upload session that was given up."""
_JSON: Final = {"Content-Type": "application/json; charset=UTF-8"}


def in_parallel(
    call: Callable[[str], Found], items: Iterable[str], threads: int
) -> Iterator[Found]:
    """Yield what a call returns for each item, in order; the first error ends it."""
    with ThreadPoolExecutor(threads, thread_name_prefix="gcs") as pool:
        yield from pool.map(call, items)


def _resource(key: str, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    return {"name": key, "contentType": BINARY, "metadata": dict(metadata or {})}


def _kept_bytes(value: str) -> int:
    """Return the bytes that a ``Range: bytes=0-N`` tells; without one there are none."""
    return int(value.rsplit("-", maxsplit=1)[-1]) + 1 if value.startswith("bytes=0-") else 0
