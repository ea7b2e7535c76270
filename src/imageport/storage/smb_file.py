"""An open file on a share, read and written by ranges with several requests in flight."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from imageport.errors import (
    FileMissing,
    ImageportError,
    ShareError,
    ShareUnreachable,
    SourceChanged,
)
from imageport.model import FileIdentity
from imageport.storage import smb_messages as messages
from imageport.storage.byte_file import ByteFile, WritableFile
from imageport.storage.smb_connection import CREDIT_BYTES, SmbSession
from imageport.storage.smb_errors import BUFFER_OVERFLOW, BUFFER_TOO_SMALL, CANNOT_SPARSE
from imageport.storage.smb_link import NONE_ACCEPTED, SmbLink

_IN_FLIGHT = 4
"""Requests of 1 MiB at once: two to four measured fastest, more only holds memory."""

_ATTEMPTS = 3

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _OpenFile:
    """A handle and the session it belongs to."""

    session: SmbSession
    handle: bytes


@dataclass(frozen=True, slots=True)
class _Piece:
    """A read or write under way; ``request`` is None when it could not even be sent."""

    offset: int
    length: int
    session: SmbSession
    request: Any


class SmbFile(ByteFile):
    """A file open for reading; after a dropped connection it is opened again and compared."""

    def __init__(self, link: SmbLink, name: str, how: messages.OpenHow) -> None:
        self.location = link.shown(name)
        self._link = link
        self._name = name
        self._how = how
        self._reopening = threading.Lock()
        self._closed = False
        session = link.session()
        self._open = _OpenFile(session, link.open(session, name, how, "open"))
        try:
            self._first = self._ask_facts(self._open)
        except BaseException:
            self.close()
            raise

    @property
    def size_bytes(self) -> int:
        """Return the size at the time of opening."""
        return self._first.size_bytes

    def identity(self) -> FileIdentity:
        """Ask the server again, by the open handle."""
        facts = self._steadily(self._ask_facts)
        return FileIdentity(
            path=self._link.identity_path(self._name),
            size_bytes=facts.size_bytes,
            last_write_ns=facts.last_write_ns,
            change_ns=facts.change_ns,
            file_id=facts.file_id,
        )

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return exactly ``length_bytes``; `SourceChanged` when the file ends before that."""
        if length_bytes <= 0:
            return b""
        if length_bytes > self._open.session.piece_bytes:
            return b"".join(data for _, data in self.read_many([(offset_bytes, length_bytes)]))
        return self._steadily(
            lambda opened: self._receive(self._send(opened, offset_bytes, length_bytes))
        )

    def read_many(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes) in order, with four reads of at most 1 MiB in flight."""
        wanted = _split(ranges, self._open.session.piece_bytes)
        under_way: deque[_Piece] = deque()
        try:
            while True:
                while len(under_way) < _IN_FLIGHT and (piece := next(wanted, None)):
                    under_way.append(self._try_to_send(*piece))
                if not under_way:
                    return
                first = under_way.popleft()
                yield first.offset, self._receive_or_read(first)
        finally:
            _forget(under_way, self.location)

    def allocated_ranges(self) -> list[tuple[int, int]]:
        """Ask the server; a file without the sparse mark is one whole range.

        Samba tells the holes of a marked file only; so does Windows.
        """
        return self._steadily(self._ask_ranges)

    def close(self) -> None:
        """Release the handle."""
        with self._reopening:
            if not self._closed:
                self._closed = True
                self._link.shut(self._open.session, self._open.handle, self._name)

    def _steadily(self, action: Callable[[_OpenFile], _Result]) -> _Result:
        """Run an action on the open file; again on a reopened one when the connection drops."""
        for _ in range(_ATTEMPTS - 1):
            opened = self._open
            try:
                return action(opened)
            except ShareUnreachable:
                self._reopen(opened)
        return action(self._open)

    def _reopen(self, broken: _OpenFile) -> None:
        with self._reopening:
            if self._closed:
                raise ShareError(f"Cannot use '{self.location}': it was closed.")
            if self._open is not broken:
                return  # another thread was faster
            self._link.steadily(self._open_again)

    def _open_again(self, session: SmbSession) -> None:
        try:
            handle = self._link.open(session, self._name, self._how, "open again")
        except FileMissing:
            raise self._changed("it is gone") from None
        opened = _OpenFile(session, handle)
        facts = self._ask_facts(opened)
        # The change time also moves with attributes and access lists; the content does not.
        for what in ("size_bytes", "last_write_ns", "file_id"):
            before, now = getattr(self._first, what), getattr(facts, what)
            if before != now:
                self._link.shut(session, handle, self._name)
                raise self._changed(f"found {what} {now}, needed {before}")
        self._open = opened

    def _changed(self, cause: str) -> SourceChanged:
        return SourceChanged(
            f"Cannot read on in '{self.location}' after the connection dropped: {cause}."
        )

    def _ask(
        self, opened: _OpenFile, message: Any, verb: str, accept: frozenset[int] = NONE_ACCEPTED
    ) -> Any:
        return self._link.ask(opened.session, message, verb, self._name, accept)

    def _ask_facts(self, opened: _OpenFile) -> messages.FileFacts:
        return messages.facts_of(self._ask(opened, messages.ask_file(opened.handle), "stat"))

    def _ask_ranges(self, opened: _OpenFile) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        end = self._ask_facts(opened).size_bytes
        start, window = 0, end
        accept = CANNOT_SPARSE | {BUFFER_OVERFLOW, BUFFER_TOO_SMALL}
        while start < end:
            stop = min(end, start + window)
            request = messages.ranges_request(opened.handle, start, stop - start)
            answer = self._ask(opened, request, "map", accept)
            status = answer["status"].get_value()
            if status in CANNOT_SPARSE:
                return [(0, end)]
            if status == BUFFER_TOO_SMALL and window > messages.LEAST_WINDOW_BYTES:
                window //= 2  # Samba gives all or nothing, Windows as much as fits
                continue
            ranges = [(at, min(length, stop - at)) for at, length in messages.ranges_of(answer)]
            _append_ranges(found, ranges)
            start = sum(ranges[-1]) if status == BUFFER_OVERFLOW and ranges else stop
        return found

    def _send(self, opened: _OpenFile, offset: int, length: int) -> _Piece:
        request = messages.read_request(opened.handle, offset, length)
        sent = opened.session.start(request, -(-length // CREDIT_BYTES))
        return _Piece(offset, length, opened.session, sent)

    def _try_to_send(self, offset: int, length: int) -> _Piece:
        opened = self._open
        try:
            return self._send(opened, offset, length)
        except ShareUnreachable:
            return _Piece(offset, length, opened.session, None)

    def _receive(self, piece: _Piece) -> bytes:
        answer = piece.session.finish(piece.request, "read", self.location, NONE_ACCEPTED)
        data = messages.read_bytes_of(answer)
        if len(data) != piece.length:
            raise SourceChanged(
                f"Cannot read '{self.location}': found its end at {piece.offset + len(data)} "
                f"bytes, needed {piece.offset + piece.length}."
            )
        return data

    def _receive_or_read(self, piece: _Piece) -> bytes:
        if piece.request is not None:
            with contextlib.suppress(ShareUnreachable):
                return self._receive(piece)
        return self.read_at(piece.offset, piece.length)


class SmbWritableFile(SmbFile, WritableFile):
    """A file open for writing; ``size_bytes`` follows what was written.

    A dropped connection ends it with `ShareUnreachable`: what was not flushed may be lost, so only
    the caller, who knows what that was, can go on with a file opened again.
    """

    def __init__(self, link: SmbLink, name: str, how: messages.OpenHow) -> None:
        self._grown = threading.Lock()
        super().__init__(link, name, how)
        self._size_bytes = self._first.size_bytes

    @property
    def size_bytes(self) -> int:
        """Return the size now."""
        return self._size_bytes

    def write_at(self, offset_bytes: int, data: bytes | memoryview) -> None:
        """Write all of ``data``; `ShareFull` when there is no room."""
        view = memoryview(data).cast("B")
        pieces = _split([(0, len(view))], self._open.session.piece_bytes)
        under_way: deque[_Piece] = deque()
        try:
            for start, length in pieces:
                if len(under_way) == _IN_FLIGHT:
                    self._settle(under_way.popleft())
                piece = bytes(view[start : start + length])
                under_way.append(self._send_write(offset_bytes + start, piece))
            while under_way:
                self._settle(under_way.popleft())
        finally:
            _forget(under_way, self.location)
        with self._grown:
            self._size_bytes = max(self._size_bytes, offset_bytes + len(view))

    def set_size(self, size_bytes: int) -> None:
        """Cut or extend (with a hole where the file system can)."""
        self._ask(self._open, messages.set_end_to(self._open.handle, size_bytes), "resize")
        with self._grown:
            self._size_bytes = size_bytes

    def set_sparse(self) -> None:
        """Set the sparse mark; a server that keeps no holes is no error."""
        request = messages.set_sparse_request(self._open.handle)
        self._ask(self._open, request, "mark as sparse", CANNOT_SPARSE)

    def flush(self) -> None:
        """Make everything written durable on the server."""
        self._ask(self._open, messages.flush_request(self._open.handle), "flush")

    def _steadily(self, action: Callable[[_OpenFile], _Result]) -> _Result:
        return action(self._open)

    def _send_write(self, offset: int, data: bytes) -> _Piece:
        request = messages.write_request(self._open.handle, offset, data)
        sent = self._open.session.start(request, -(-len(data) // CREDIT_BYTES))
        return _Piece(offset, len(data), self._open.session, sent)

    def _settle(self, piece: _Piece) -> None:
        answer = piece.session.finish(piece.request, "write", self.location, NONE_ACCEPTED)
        written = messages.written_of(answer)
        if written != piece.length:
            raise ShareError(
                f"Cannot write '{self.location}': the server took {written} bytes, "
                f"needed {piece.length}."
            )


def _append_ranges(found: list[tuple[int, int]], more: list[tuple[int, int]]) -> None:
    """Add ranges; one that was cut where a request ended becomes whole again."""
    for start, length in more:
        if found and sum(found[-1]) == start:
            found[-1] = (found[-1][0], found[-1][1] + length)
        elif length:
            found.append((start, length))


def _split(ranges: Iterable[tuple[int, int]], piece_bytes: int) -> Iterator[tuple[int, int]]:
    for offset, length in ranges:
        for start in range(offset, offset + length, piece_bytes):
            yield start, min(piece_bytes, offset + length - start)


def _forget(pieces: Iterable[_Piece], location: str) -> None:
    """Take the answers nobody wants any more, so that their credits come back."""
    for piece in pieces:
        if piece.request is not None:
            with contextlib.suppress(ImageportError):
                piece.session.finish(piece.request, "forget", location, NONE_ACCEPTED)
