# References: XenServer Management API, "Wire protocol for remote API calls"; PyPI XenAPI.
"""The vendor's client over a connection that checks its server: one session for one pool."""

from __future__ import annotations

import http.client
import threading
import xmlrpc.client
from collections.abc import Callable
from typing import Any, Final, TypeVar
from xml.parsers.expat import ExpatError

import XenAPI  # type: ignore[import-untyped] # the vendor ships no types

from imageport.errors import HypervisorError, HypervisorRefused, HypervisorUnreachable
from imageport.hypervisors.tls_trust import TrustedConnection, server_name, unreachable
from imageport.hypervisors.xenserver.records import ApiRecord
from imageport.hypervisors.xenserver.refusals import refusal
from imageport.hypervisors.xenserver.settings import XenServerSettings
from imageport.hypervisors.xenserver.transport import ORIGINATOR, PoolTransport

API_VERSION: Final = "1.0"
CALL_SECONDS: Final = 600.0
"""A snapshot of a running machine with many disks may take minutes to be answered."""
_COORDINATOR_TRIES: Final = 3
_STALE: Final = (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected)
"""How a connection answers that the server closed while it was idle."""
_MALFORMED: Final = (
    xmlrpc.client.Error, ExpatError, TypeError, ValueError, LookupError, AttributeError,
)  # fmt: skip
"""What client and parser raise for an answer that is none."""

_ANSWER: Final = "answer"
"""What messages call a value that has no name."""

Result = TypeVar("Result")


class PoolConnection:
    """Signs in at the first call and finds the coordinator; may be used by several threads."""

    def __init__(self, settings: XenServerSettings) -> None:
        self.host = settings.address
        """The coordinator, once it is known."""
        self._settings = settings
        self._trust = settings.trust()
        self._lock = threading.RLock()
        self._session: Any = None

    @property
    def port(self) -> int:
        """Return the port of every host of the pool."""
        return self._settings.port

    @property
    def location(self) -> str:
        """Return where the pool is, for messages."""
        return self._settings.location

    def open(self, host: str, port: int, timeout_seconds: float) -> TrustedConnection:
        """Return a connection to a host of the pool; it connects at its first request."""
        proxy = self._settings.proxy
        return TrustedConnection(
            host, port, self._trust, proxy=proxy, timeout_seconds=timeout_seconds
        )

    def call(self, method: str, *parameters: Any, doing: str = "", repeatable: bool = True) -> Any:
        """Call the API and return the value.

        ``repeatable`` calls are sent once more when an idle connection turns out to be closed.

        Raises:
            HypervisorError: as `refusals` maps xapi's codes; ``doing`` is verb and object.
        """
        doing = doing or f"ask '{self.location}' for {method}"
        with self._lock:
            return self._translated(doing, lambda: self._call(method, parameters, repeatable))

    def text(self, method: str, *parameters: Any, doing: str = "", repeatable: bool = True) -> str:
        """Call the API for a text or a reference."""
        value = self.call(method, *parameters, doing=doing, repeatable=repeatable)
        return ApiRecord(method, {_ANSWER: value}).text(_ANSWER)

    def texts(self, method: str, *parameters: Any, doing: str = "") -> list[str]:
        """Call the API for a set of texts or references."""
        value = self.call(method, *parameters, doing=doing)
        return ApiRecord(method, {_ANSWER: value}).texts(_ANSWER)

    def flag(self, method: str, *parameters: Any, doing: str = "") -> bool:
        """Call the API for a truth value."""
        value = self.call(method, *parameters, doing=doing)
        return ApiRecord(method, {_ANSWER: value}).flag(_ANSWER)

    def records(self, kind: str, *, doing: str = "") -> dict[str, ApiRecord]:
        """Return all records of a class by reference."""
        value = self.call(f"{kind}.get_all_records", doing=doing)
        found = ApiRecord(f"{kind}.get_all_records", {_ANSWER: value}).structure(_ANSWER)
        return {ref: ApiRecord(kind, record) for ref, record in found.items()}

    def session_id(self) -> str:
        """Return the session's reference: a secret."""
        doing = f"sign in to '{self.location}'"
        with self._lock:
            return str(self._translated(doing, self._signed_in).handle)

    def close(self) -> None:
        """Sign out; may be called twice."""
        with self._lock:
            session, self._session = self._session, None
            if session is None:
                return
            try:
                session.xenapi_request("session.logout", ())
            except (OSError, http.client.HTTPException, HypervisorError, XenAPI.Failure):
                pass  # the pool ends a session by itself
            except _MALFORMED:
                pass  # whatever it says to that
            finally:
                session("close")()

    @property
    def _server(self) -> str:
        return server_name(self.host, self.port)

    def _call(self, method: str, parameters: tuple[Any, ...], repeatable: bool) -> Any:
        for _ in range(_COORDINATOR_TRIES):
            session = self._signed_in()
            try:
                return _once_more(
                    lambda: session.xenapi_request(method, parameters),  # noqa: B023 - called now
                    1 if repeatable else 0,
                )
            except XenAPI.Failure as failure:
                if not self._follow(failure.details):
                    raise
        raise self._no_coordinator()

    def _signed_in(self) -> Any:
        for _ in range(_COORDINATOR_TRIES):
            if self._session is not None:
                return self._session
            session = self._new_session()
            try:
                settings = self._settings
                session.login_with_password(
                    settings.username, settings.password, API_VERSION, ORIGINATOR
                )
                self._session = session
            except XenAPI.Failure as failure:
                if not self._follow(failure.details):
                    raise
            finally:
                if self._session is None:
                    session("close")()
        if self._session is None:
            raise self._no_coordinator()
        return self._session

    def _new_session(self) -> Any:
        host = self.host
        transport = PoolTransport(lambda: self.open(host, self.port, CALL_SECONDS))
        return XenAPI.Session(f"https://{self._server}/", transport=transport)

    def _follow(self, details: list[Any]) -> bool:
        """Turn to the coordinator that a member names; it is checked as the member was."""
        if len(details) < 2 or details[0] != "HOST_IS_SLAVE" or not isinstance(details[1], str):
            return False
        self.host = details[1]
        session, self._session = self._session, None
        if session is not None:
            session("close")()
        return True

    def _no_coordinator(self) -> HypervisorUnreachable:
        return HypervisorUnreachable(
            f"Cannot reach the coordinator of '{self.location}': its hosts name each other."
        )

    def _translated(self, doing: str, action: Callable[[], Result]) -> Result:
        try:
            return action()
        except HypervisorError:
            raise
        except XenAPI.Failure as failure:
            raise refusal(failure.details, doing) from None
        except (OSError, http.client.HTTPException) as error:
            raise unreachable(self._server, error) from error
        except xmlrpc.client.ProtocolError as error:
            status = f"HTTP {error.errcode}"
            if error.errcode >= http.client.INTERNAL_SERVER_ERROR:
                raise unreachable(self._server, ValueError(status)) from None
            raise HypervisorRefused(f"Cannot {doing}: the server answers {status}.") from None
        except _MALFORMED as error:
            raise HypervisorRefused(
                f"Cannot {doing}: '{self._server}' answers with something else than the XenServer "
                f"API does ({type(error).__name__}).",
                hint="Check host and port: is it a XenServer host?",
            ) from None


def _once_more(action: Callable[[], Result], times: int) -> Result:
    try:
        return action()
    except _STALE:
        if not times:
            raise
        return _once_more(action, times - 1)
