# References: RFC 9112 6 (message body length).
"""A response of a hypervisor, read once from its beginning to its end."""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Mapping

from imageport.errors import ExportInterrupted
from imageport.hypervisors.tls_trust import TrustedConnection, unreachable

_BROKEN = (OSError, http.client.HTTPException, ValueError)
"""What `http.client` raises; ValueError for a header or path that a server gave and that none is,
and for a connection that another thread closed."""


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    headers: Mapping[str, str],
    *,
    server: str,
) -> http.client.HTTPResponse:
    """Send a request and return the beginning of the answer, whatever its status.

    ``target`` is path and query; it may hold secrets and is never shown.

    Raises:
        HypervisorUnreachable: no answer came.
        CertificateRefused: the server is not the one that is trusted; nothing was sent.
    """
    try:
        connection.request(method, target, headers=dict(headers))
        return connection.getresponse()
    except _BROKEN as error:
        connection.close()
        if isinstance(error, (http.client.InvalidURL, ValueError)):
            # The error's own text has the address or the cookie.
            raise unreachable(server, ValueError("it gave an address that is none")) from None
        raise unreachable(server, error) from error


class ResponseStream:
    """A `ByteStream` over the body of a response; owns the connection."""

    def __init__(
        self,
        connection: TrustedConnection,
        response: http.client.HTTPResponse,
        location: str,
    ) -> None:
        self.location = location
        self.received_bytes = 0
        """So far; after the end, all."""
        self._connection = connection
        self._response = response

    def read(self, length_bytes: int) -> bytes:
        """Return up to ``length_bytes``, fewer only at the end.

        A body without a declared length ends where the server closes the connection: whether that
        was all, only the format or a checksum can tell.

        Raises:
            ExportInterrupted: the connection broke, or the declared length was not reached.
        """
        try:
            data = self._response.read(length_bytes)
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            # AttributeError: the response was closed meanwhile.
            raise self._interrupted(str(error) or type(error).__name__) from error
        self.received_bytes += len(data)
        missing = self._response.length or 0
        if len(data) < length_bytes and missing:
            raise self._interrupted(f"{missing} bytes are missing")
        return data

    def interrupt(self) -> None:
        """Let a read that is under way in another thread end at once."""
        if self._connection.wire is not None:
            with contextlib.suppress(OSError):  # it is closed already
                # The plain socket's: TLS would first say goodbye to a server that does not listen.
                socket.socket.shutdown(self._connection.wire, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; may be called twice, by the thread that reads."""
        self._connection.close()
        self._response.close()

    def _interrupted(self, cause: str) -> ExportInterrupted:
        return ExportInterrupted(
            f"Cannot go on receiving '{self.location}' after {self.received_bytes} bytes: {cause}.",
            received_bytes=self.received_bytes,
        )
