# References: RFC 9110 14 (Range Requests), 8.8 (Validators).
"""A file behind a web server that answers byte ranges: a datastore's, as vCenter shows it."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Protocol

from imageport.errors import (
    FileMissing,
    HypervisorRefused,
    HypervisorUnreachable,
    SourceChanged,
)
from imageport.model import MIB, FileIdentity
from imageport.storage.byte_file import ByteFile

_PIECE_BYTES = MIB
_REQUEST_BYTES = 4 * MIB
"""Asked at once: a server authorises and opens the file for every request anew."""
_IN_FLIGHT = 4
"""Requests under way, each on a connection of its own: as many as SMB reads measured fastest."""
_WAITS_SECONDS = (0.0, 0.5, 2.0)
"""Before each further attempt after a dropped connection or a server's own failure: a dropped one
comes back at once, a service that restarts does not."""
_LOGIN_STATUSES = {401, 403}
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")


class HttpPlace(Protocol):
    """Where a file is and as whom it is asked for; called from several threads."""

    @property
    def location(self) -> str:
        """Return where it is, for messages; never holds a secret."""

    @property
    def target(self) -> str:
        """Return path and query of the request."""

    def connect(self) -> http.client.HTTPConnection:
        """Return a new connection; it checks its server before it sends anything."""

    def headers(self) -> Mapping[str, str]:
        """Return what proves who is asking: a cookie, a ticket."""

    def renew(self) -> None:
        """Log in again, because the server refused the headers."""


@dataclass(frozen=True, slots=True)
class _Validators:
    """What a server says of a file with every range: if any of it changes, the file did."""

    size_bytes: int
    etag: str
    last_modified: str


class HttpFile(ByteFile):
    """A file read by ranges; every answer is checked to be of the file that was opened.

    Raises:
        FileMissing: there is none.
        HypervisorRefused: the server refuses the reader, or answers without ranges.
        HypervisorUnreachable: it does not answer.
    """

    def __init__(self, place: HttpPlace) -> None:
        self.location = place.location
        self._place = place
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self._login = threading.Lock()
        self._closed = threading.Event()
        self._workers: ThreadPoolExecutor | None = None
        self._opened: _Validators | None = None
        try:
            self._opened = self._probe()
        except BaseException:
            self.close()
            raise

    @property
    def size_bytes(self) -> int:
        """Return the size at the time of opening."""
        assert self._opened is not None  # noqa: S101 - set before the constructor returns
        return self._opened.size_bytes

    def identity(self) -> FileIdentity:
        """Ask the server again; entity tag and time of change are what it has to offer."""
        now = self._probe()
        written = _nanoseconds(now.last_modified)
        tag = hashlib.sha256(now.etag.encode()).digest()
        return FileIdentity(
            path=self.location,
            size_bytes=now.size_bytes,
            last_write_ns=written,
            change_ns=written,
            file_id=int.from_bytes(tag[:7], "big") if now.etag else 0,
        )

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return exactly ``length_bytes``; `SourceChanged` when the file ends before that."""
        if length_bytes <= 0:
            return b""
        if length_bytes > _REQUEST_BYTES:
            return b"".join(data for _, data in self.read_many([(offset_bytes, length_bytes)]))
        return self._read(offset_bytes, length_bytes)

    def read_many(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes) in order, with four requests of at most 4 MiB in flight."""
        wanted = _split(ranges)
        under_way: deque[tuple[int, Future[bytes]]] = deque()
        try:
            while True:
                while len(under_way) < _IN_FLIGHT and (piece := next(wanted, None)):
                    future = self._pool().submit(self._read, *piece)
                    under_way.append((piece[0], future))
                if not under_way:
                    return
                offset, future = under_way.popleft()
                data = future.result()
                for start in range(0, len(data), _PIECE_BYTES):
                    yield offset + start, data[start : start + _PIECE_BYTES]
        finally:
            for _, future in under_way:
                future.cancel()

    def allocated_ranges(self) -> list[tuple[int, int]]:
        """Return the whole file: HTTP does not tell."""
        return [(0, self.size_bytes)] if self.size_bytes else []

    def close(self) -> None:
        """Close every idle connection; a read under way ends by itself, and is not repeated."""
        self._closed.set()
        self._close_idle()
        with self._lock:
            workers, self._workers = self._workers, None
        if workers is not None:
            workers.shutdown(wait=False, cancel_futures=True)

    def _pool(self) -> ThreadPoolExecutor:
        with self._lock:
            self._check_open()
            if self._workers is None:
                self._workers = ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="http-file")
            return self._workers

    def _read(self, offset: int, length: int) -> bytes:
        if self._opened is not None and offset + length > self.size_bytes:
            raise self._changed(f"found its end at {self.size_bytes}, needed {offset + length}")
        _, data = self._ask(offset, length)
        return data

    def _probe(self) -> _Validators:
        """Ask for the first byte: only an answer to a range shows that ranges are answered."""
        return self._ask(0, 1)[0]

    def _ask(self, offset: int, length: int) -> tuple[_Validators, bytes]:
        """Ask until there is an answer; after a refusal as somebody who logged in again."""
        may_renew = True
        attempt = 0
        while True:
            headers = dict(self._place.headers())
            try:
                return self._ask_once(offset, length, headers)
            except _LoginRefused as refused:
                if not may_renew:
                    raise self._refused(f"the server answers {refused.status}") from None
                may_renew = False
                self._renew(headers)
            except FileMissing:  # an OSError, but an answer
                raise
            except (OSError, http.client.HTTPException, HypervisorUnreachable) as error:
                if attempt == len(_WAITS_SECONDS):
                    raise self._given_up(error) from error
                # What dropped one while it was idle dropped all: each would cost an attempt.
                self._close_idle()
                self._closed.wait(_WAITS_SECONDS[attempt])
                attempt += 1

    def _ask_once(
        self, offset: int, length: int, login: dict[str, str]
    ) -> tuple[_Validators, bytes]:
        headers = {**login, "Range": f"bytes={offset}-{offset + length - 1}"}
        connection = self._take_connection()
        whole = False
        try:
            try:
                connection.request("GET", self._place.target, headers=headers)
            except (ValueError, http.client.InvalidURL):
                raise self._refused("its address or the session's ticket is none") from None
            response = connection.getresponse()
            validators = self._check(response, offset, length)
            data = response.read(length)
            if len(data) != length:
                raise http.client.IncompleteRead(data, length - len(data))
            whole = response.isclosed()
            return validators, data
        finally:
            if whole:
                self._keep_connection(connection)
            else:
                connection.close()

    def _check(self, response: http.client.HTTPResponse, offset: int, length: int) -> _Validators:
        status = response.status
        if status in _LOGIN_STATUSES:
            raise _LoginRefused(status)
        if status in {404, 410, 416}:
            raise self._gone(status)
        if status >= 500 or status == 429:
            raise _ServerFailed(status)
        if status == 200:
            raise self._refused("the server ignores ranges and would send all of it")
        if status != 206 or response.getheader("Content-Encoding", "identity") != "identity":
            raise self._refused(f"the server answers {status} to a range")
        found = _CONTENT_RANGE.fullmatch(response.getheader("Content-Range", "").strip())
        if not found or [int(found[1]), int(found[2])] != [offset, offset + length - 1]:
            raise self._refused(
                f"the server answers another range than bytes {offset}-{offset + length - 1}"
            )
        validators = _Validators(
            int(found[3]), response.getheader("ETag", ""), response.getheader("Last-Modified", "")
        )
        if self._opened is not None and validators != self._opened:
            raise self._changed(
                f"found {_shown(validators)}, needed {_shown(self._opened)} as when it was opened"
            )
        return validators

    def _take_connection(self) -> http.client.HTTPConnection:
        with self._lock:
            self._check_open()
            if self._idle:
                return self._idle.pop()
        return self._place.connect()

    def _keep_connection(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if not self._closed.is_set():
                self._idle.append(connection)
                return
        connection.close()

    def _close_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _renew(self, refused: dict[str, str]) -> None:
        with self._login:
            if dict(self._place.headers()) == refused:  # no other thread was faster
                self._place.renew()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise self._refused("it was closed")

    def _gone(self, status: int) -> Exception:
        if self._opened is not None:
            return self._changed(f"the server answers {status}")
        if status == 416:
            return self._refused("it is empty")
        return FileMissing(f"Cannot read '{self.location}': there is no such file.")

    def _refused(self, cause: str) -> HypervisorRefused:
        return HypervisorRefused(f"Cannot read parts of '{self.location}': {cause}.")

    def _changed(self, cause: str) -> SourceChanged:
        return SourceChanged(f"Cannot go on reading '{self.location}': {cause}.")

    def _given_up(self, error: BaseException) -> Exception:
        if isinstance(error, HypervisorUnreachable):
            return error
        if self._opened is None and isinstance(error, _ServerFailed) and error.status == 500:
            # vCenter answers so when the host that it asks is not the one that has the file locked.
            return self._refused("the server answers 500, as for a file that a host has locked")
        cause = str(error) or type(error).__name__
        return HypervisorUnreachable(
            f"Cannot read '{self.location}' in {len(_WAITS_SECONDS) + 1} attempts: {cause}."
        )


class _ServerFailed(http.client.HTTPException):
    """The server fails on its side, or asks for patience."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the server answers {status}")
        self.status = status


class _LoginRefused(Exception):
    """The server does not know who asks."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def _split(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for offset, length in ranges:
        for start in range(offset, offset + length, _REQUEST_BYTES):
            yield start, min(_REQUEST_BYTES, offset + length - start)


def _nanoseconds(date: str) -> int:
    with contextlib.suppress(ValueError, TypeError, IndexError, OverflowError):
        return int(parsedate_to_datetime(date).timestamp()) * 1_000_000_000
    return 0


def _shown(validators: _Validators) -> str:
    return f"{validators.size_bytes} bytes of '{validators.last_modified[:40]}'"
