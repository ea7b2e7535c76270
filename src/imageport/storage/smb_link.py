"""The connection of one folder: made when first needed, made again when it dropped."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from imageport.errors import ShareError, ShareUnreachable
from imageport.storage import smb_messages as messages
from imageport.storage.smb_connection import SmbSession
from imageport.storage.smb_location import SmbCredentials, SmbLocation

NONE_ACCEPTED: frozenset[int] = frozenset()
_ATTEMPTS = 3
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 2.0

_Result = TypeVar("_Result")


class SmbLink:
    """Hands out a live session; the first one is tried once, a lost one for ``patience_seconds``.

    A file server that restarts is back within a minute; a name that is wrong never answers.
    """

    def __init__(
        self, location: SmbLocation, credentials: SmbCredentials, patience_seconds: float
    ) -> None:
        self.location = location
        self._credentials = credentials
        self._patience_seconds = patience_seconds
        self._connecting = threading.Lock()
        self._session: SmbSession | None = None
        self._closed = False

    def session(self) -> SmbSession:
        """Return a live session; `ShareUnreachable` when there is none to be had."""
        patient = self._session is not None
        deadline = time.monotonic() + (self._patience_seconds if patient else 0)
        with self._connecting:
            if self._closed:
                raise ShareError(f"Cannot use '{self.location}': the folder was closed.")
            if self._session is not None:
                if self._session.alive:
                    return self._session
                self._session.abandon()
            self._session = self._connect(deadline)
            return self._session

    def close(self) -> None:
        """Log off; may be called twice."""
        with self._connecting:
            self._closed = True
            if self._session is not None:
                self._session.close()

    def shown(self, name: str) -> str:
        """Return a file's location for messages."""
        return f"{self.location}/{name}" if name else str(self.location)

    def identity_path(self, name: str) -> str:
        """Return what names a file wherever the server listens: its port is no part of it."""
        parts = (self.location.host, self.location.share, self.location.folder, name)
        return "//" + "/".join(part for part in parts if part)

    def wire_path(self, name: str) -> str:
        """Return a path relative to the share, as the protocol wants it."""
        path = "/".join(part for part in (self.location.folder, name) if part)
        return path.replace("/", "\\")

    def ask(
        self,
        session: SmbSession,
        message: Any,
        verb: str,
        name: str,
        accept: frozenset[int] = NONE_ACCEPTED,
    ) -> Any:
        """Send one request and return its answer."""
        return session.finish(session.start(message), verb, self.shown(name), accept)

    def open(self, session: SmbSession, name: str, how: messages.OpenHow, verb: str) -> bytes:
        """Open a file or folder and return its handle."""
        request = messages.create_request(self.wire_path(name), how)
        return messages.handle_of(self.ask(session, request, verb, name))

    def shut(self, session: SmbSession, handle: bytes, name: str) -> None:
        """Close a handle; a dead session has closed it already."""
        if session.alive:
            with contextlib.suppress(ShareError):
                self.ask(session, messages.close_request(handle), "close", name)

    @contextlib.contextmanager
    def opened(
        self, session: SmbSession, name: str, how: messages.OpenHow, verb: str
    ) -> Iterator[bytes]:
        """Hold a handle for one operation."""
        handle = self.open(session, name, how, verb)
        try:
            yield handle
        finally:
            self.shut(session, handle, name)

    def steadily(self, action: Callable[[SmbSession], _Result]) -> _Result:
        """Run an action that may run twice; again on a new session when the connection drops."""
        for _ in range(_ATTEMPTS - 1):
            session = self.session()  # patient by itself
            with contextlib.suppress(ShareUnreachable):
                return action(session)
        return action(self.session())

    def _connect(self, deadline: float) -> SmbSession:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return SmbSession(self.location, self._credentials)
            except ShareUnreachable:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
