# References: XML-RPC specification; XenServer Management API, "Wire protocol for remote API calls".
"""How calls of the vendor's client travel: once each, to a checked server, with bounded answers."""

from __future__ import annotations

import http.client
import time
import xmlrpc.client
from collections.abc import Callable
from typing import Any, Final
from xml.parsers import expat

from imageport.errors import HypervisorRefused
from imageport.hypervisors.tls_trust import TrustedConnection

ORIGINATOR: Final = "imageport"
"""xapi keeps a bounded number of sessions for each originator: ours push out nobody else's."""
LARGEST_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""All tasks of a pool, the longest answer asked for, take a few MiB; parsed, an answer of nothing
but empty lists takes eight times its length."""
IDLE_SECONDS: Final = 30.0
"""An export may last hours in which nothing is called, and firewalls forget idle connections
without a word to either side: a call on one would wait for its answer until it times out."""
_READ_BYTES: Final = 64 * 1024


class PoolTransport(xmlrpc.client.Transport):
    """One connection to one host; `connect` makes it, and it checks its server.

    The standard transport repeats any call that a closed connection did not answer, also one that
    makes a snapshot; it reads error pages of any length, and its parser keeps every line of a text
    and every entity of a document type.
    """

    accept_gzip_encoding = False
    user_agent = ORIGINATOR

    def __init__(self, connect: Callable[[], TrustedConnection]) -> None:
        super().__init__()
        self._connect = connect
        self._open: TrustedConnection | None = None
        self._used = 0.0

    def make_connection(self, host: Any) -> http.client.HTTPSConnection:
        """Return the one connection; it connects again by itself after `close`."""
        del host  # known: the vendor's client has it from the same settings
        if self._open is None:
            self._open = self._connect()
        return self._open

    def close(self) -> None:
        """Close the connection."""
        if self._open is not None:
            self._open.close()

    def request(self, host: Any, handler: str, request_body: Any, verbose: bool = False) -> Any:
        """Send a call once and return what its answer holds."""
        if time.monotonic() - self._used > IDLE_SECONDS:
            self.close()
        try:
            answer = self.send_request(host, handler, request_body, verbose).getresponse()
            if answer.status != http.client.OK:
                raise xmlrpc.client.ProtocolError(str(host), answer.status, answer.reason, {})
            return self.parse_response(answer)
        except BaseException:
            self.close()
            raise
        finally:
            self._used = time.monotonic()

    def parse_response(self, response: Any) -> Any:
        """Read an answer, up to a bound."""
        unmarshaller = xmlrpc.client.Unmarshaller()
        parser = _parser(unmarshaller)
        received = 0
        while True:
            data = response.read(_READ_BYTES)
            received += len(data)
            if received > LARGEST_ANSWER_BYTES:
                raise HypervisorRefused(
                    f"Bad answer of XenServer: found more than {received} bytes, needed at most "
                    f"{LARGEST_ANSWER_BYTES}."
                )
            parser.Parse(data, not data)
            if not data:
                return unmarshaller.close()


def _parser(unmarshaller: xmlrpc.client.Unmarshaller) -> expat.XMLParserType:
    """Return a parser that hands texts on in one piece and knows no entities of a document's."""
    unmarshaller.xml("", None)  # texts come decoded
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = unmarshaller.start
    parser.EndElementHandler = unmarshaller.end
    parser.CharacterDataHandler = unmarshaller.data
    parser.StartDoctypeDeclHandler = _refuse_document_type
    return parser


def _refuse_document_type(*_declaration: object) -> None:
    raise ValueError("found a document type")  # no answer of xapi has one
