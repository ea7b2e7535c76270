# References: xapi-project/xen-api, ocaml/xapi: export_raw_vdi, importexport (return_302_redirect),
# xapi_http (session by cookie); xen-api #4603 (an error page after 200 OK).
"""Asks a pool for a disk and returns its bytes as they come, from whichever host has the storage.

The session travels as a cookie: in the address, as most clients send it, it would stand in the
pool's logs and in every redirection.
"""

from __future__ import annotations

import http.client
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode, urlsplit

from imageport.errors import HypervisorRefused
from imageport.hypervisors.http_stream import ResponseStream, ask
from imageport.hypervisors.xenserver.connection import PoolConnection

EXPORT_PATH: Final = "/export_raw_vdi"
MOST_REDIRECTIONS: Final = 3
"""xapi sends at most one: from the coordinator to a host with the storage."""
SILENT_SECONDS: Final = 300.0
"""xapi itself gives storage five minutes to attach or detach a disk."""
_ERROR_PAGE: Final = b"HTTP/"


class NotSent(Exception):
    """The pool answered with something else than a disk; its task may say why."""

    def __init__(self, cause: str, *, is_final: bool = False, is_begun: bool = False) -> None:
        super().__init__(cause)
        self.cause = cause
        self.is_final = is_final
        """Asking again does not help."""
        self.is_begun = is_begun
        """An export began: its task will end by itself and say why."""


class ExportedBytes:
    """The body of an export as a `ByteStream`; owns its connection."""

    def __init__(self, stream: ResponseStream, first: bytes) -> None:
        self.location = stream.location
        self._stream = stream
        self._first = first

    def read(self, length_bytes: int) -> bytes:
        """Return up to ``length_bytes``, fewer only at the end; `ExportInterrupted` when cut."""
        first, self._first = self._first[:length_bytes], self._first[length_bytes:]
        if len(first) == length_bytes:
            return first
        return first + self._stream.read(length_bytes - len(first))

    def close(self) -> None:
        """Close the connection; may be called twice, by the thread that reads."""
        self._stream.close()


def request_export(
    connection: PoolConnection, query: dict[str, str], location: str
) -> ExportedBytes:
    """Return the body of an export, from the host that has the storage.

    Raises:
        NotSent: the answer is no disk.
        HypervisorUnreachable: a host cannot be reached.
        CertificateRefused: a host shows another certificate; it was sent no session.
    """
    host, port = connection.host, connection.port
    target = f"{EXPORT_PATH}?{urlencode(query)}"
    headers = {"Cookie": f"session_id={connection.session_id()}"}
    for _ in range(MOST_REDIRECTIONS + 1):
        link = connection.open(host, port, SILENT_SECONDS)
        answer = ask(link, "GET", target, headers, server=link.server)
        if answer.status == HTTPStatus.OK:
            return _checked(ResponseStream(link, answer, location))
        link.close()
        if answer.status != HTTPStatus.FOUND:
            raise _not_sent(answer)
        host, port, target = _redirected(answer.getheader("Location") or "", connection.port)
    raise NotSent(f"it was sent on {MOST_REDIRECTIONS} times")


def _checked(stream: ResponseStream) -> ExportedBytes:
    """Look at the first bytes: a disk does not begin like an HTTP answer."""
    try:
        first = stream.read(len(_ERROR_PAGE))
    except BaseException:
        stream.close()
        raise
    if first == _ERROR_PAGE:
        stream.close()
        raise NotSent("an error page came behind '200 OK'", is_begun=True)
    return ExportedBytes(stream, first)


def _not_sent(answer: http.client.HTTPResponse) -> NotSent:
    status = answer.status
    if status == HTTPStatus.UNAUTHORIZED:
        return NotSent("the session has ended (HTTP 401)")
    is_final = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    return NotSent(f"HTTP {status}", is_final=is_final)


def _redirected(address: str, port: int) -> tuple[str, int, str]:
    """Return host, port and target; an address without a port is at the pool's port.

    The address itself is not shown: it repeats the query.
    """
    try:
        parts = urlsplit(address)
        host, named = parts.hostname, parts.port
    except ValueError:
        raise HypervisorRefused("Bad redirection of an export: found no address.") from None
    if parts.scheme != "https" or not host or parts.path.rstrip("/") != EXPORT_PATH:
        raise HypervisorRefused(
            f"Bad redirection of an export: found '{parts.scheme}' to '{host}', needed https to a "
            f"host's {EXPORT_PATH}."
        )
    return host, named or port, f"{EXPORT_PATH}?{parts.query}"
