# References: [MS-SMB2] 3.2.4.1.2 credits, 3.2.5.1.3 signatures, 3.2.4.2 connecting.
"""One login to one share: connect, prove who we are, send requests, wait for answers.

smbprotocol carries the protocol. This module adds what a long transfer needs on top: answers that
are not signed are refused, every wait has an end, credits are waited for instead of overrun, and a
connection that died says so to all who wait.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
import uuid
from typing import Any

from smbprotocol import Dialects  # type: ignore[import-untyped]
from smbprotocol.connection import (  # type: ignore[import-untyped]
    Connection,
    SigningAlgorithms,
)
from smbprotocol.exceptions import (  # type: ignore[import-untyped]
    SMBAuthenticationError,
    SMBException,
    SMBResponseException,
)
from smbprotocol.header import NtStatus, Smb2Flags  # type: ignore[import-untyped]
from smbprotocol.session import Session  # type: ignore[import-untyped]
from smbprotocol.transport import Tcp  # type: ignore[import-untyped]
from smbprotocol.tree import TreeConnect  # type: ignore[import-untyped]

from imageport.errors import (
    ImageportError,
    MissingTool,
    ShareLoginRefused,
    ShareRefused,
    ShareUnreachable,
)
from imageport.storage.smb_errors import ACCESS_DENIED, error_of_status
from imageport.storage.smb_location import SmbCredentials, SmbLocation
from imageport.storage.smb_signature import HeaderApart, Parts, cmac, gmac, without_signature

CREDIT_BYTES = 65536  # [MS-SMB2] 3.1.5.2: one credit pays for 64 KiB
_ANSWER_SECONDS = 60
_FAREWELL_SECONDS = 5
_CREDITS_WANTED = 256
_UNANSWERED = (SMBException, OSError, ValueError, KeyError)
"""What smbprotocol raises when a connection breaks, times out or carries nonsense."""

# At DEBUG these print every block of the guest's disk and every login exchange.
for _name in ("smbprotocol", "spnego"):
    if logging.getLogger(_name).level == logging.NOTSET:
        logging.getLogger(_name).setLevel(logging.CRITICAL)


class _WatchedTcp(Tcp):  # type: ignore[misc]
    """A socket that notices a peer that vanished, and a peer that speaks something else."""

    def connect(self) -> None:
        """Connect and let the kernel watch the connection, also while we send."""
        super().connect()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            milliseconds = _ANSWER_SECONDS * 1000
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)

    def send(self, header: Any) -> None:
        """Send one message; the base class copies it three times more."""
        message = header if isinstance(header, bytes) else header.pack()
        if len(message) > self.MAX_SIZE:
            raise ValueError(f"a message of {len(message)} bytes is longer than SMB allows")
        with self._sock_lock:
            self._sock.sendall(len(message).to_bytes(4, "big") + message)

    def _recv(self, length: int, timeout: float) -> tuple[Any, float]:
        """Receive exactly ``length`` bytes, or None at the end of the connection.

        The base class asks the kernel for a dozen pieces of a megabyte and copies each; here it
        fills one string. Who waits for a peer that stops midway closes the connection.
        """
        # [MS-SMB2] 2.1: the length has three bytes. "HTTP" read as one would reserve 1.2 GB.
        if length > self.MAX_SIZE:
            raise SMBException("the peer does not speak SMB")
        pieces = []
        while length:
            with self._close_lock:
                if not self.connected:
                    return None, timeout
                started = time.monotonic()
                waiting = select.poll()  # select() knows no descriptor beyond 1023
                waiting.register(self._sock, select.POLLIN)
                if not waiting.poll(max(timeout, 1) * 1000):
                    raise TimeoutError(f"nothing came for {timeout:.0f} s")
                timeout -= time.monotonic() - started
                try:
                    piece = self._sock.recv(length, socket.MSG_WAITALL)
                except ConnectionError:
                    piece = b""
            if not piece:
                self.close()
                return None, timeout
            pieces.append(piece)  # more than one only where a signal came between
            length -= len(piece)
        return b"".join(pieces), timeout


class StrictConnection(Connection):  # type: ignore[misc]
    """A connection that refuses unsigned answers and never waits for ever."""

    connect_seconds: float = 15
    answer_seconds: float = _ANSWER_SECONDS
    _t_exc: BaseException | None
    _tcp: _WatchedTcp | None = None

    @property
    def transport(self) -> _WatchedTcp | None:
        """Return the socket; whatever the base class puts here becomes a watched one."""
        return self._tcp

    @transport.setter
    def transport(self, tcp: Any) -> None:
        self._tcp = None if tcp is None else _WatchedTcp(tcp.server, tcp.port, tcp.timeout)

    def receive(
        self,
        request: Any,
        wait: bool = True,
        timeout: float | None = None,
        resolve_symlinks: bool = False,
    ) -> Any:
        """Wait for an answer, at most `answer_seconds`."""
        deadline = time.monotonic() + (timeout or self.answer_seconds)
        while not request.response_event.wait(0.5):
            self._check_worker_running()
            if time.monotonic() > deadline:
                raise SMBException(f"no answer in {timeout or self.answer_seconds:.0f} s")
        return super().receive(request, wait, timeout or self.answer_seconds, resolve_symlinks)

    def verify_signature(self, header: Any, session_id: int, force: bool = False) -> None:
        """Check an answer that came unencrypted.

        The base class lets unsigned answers pass, so whoever sits between could strip signatures.
        """
        session = self.session_table.get(session_id)
        interim = header["status"].get_value() == NtStatus.STATUS_PENDING
        if session is not None and not force and not interim:
            signed = header["flags"].has_flag(Smb2Flags.SMB2_FLAGS_SIGNED)
            if session.encrypt_data or (session.signing_required and not signed):
                raise SMBException("an answer was neither encrypted nor signed")
        super().verify_signature(HeaderApart(header), session_id, force)

    def _generate_signature(
        self, b_header: bytes | Parts, signing_key: bytes, message_id: int, *about: Any
    ) -> bytes:
        from_server, command = about
        algorithm = self.signing_algorithm_id
        if algorithm is None and self.dialect >= Dialects.SMB_3_0_0:
            algorithm = SigningAlgorithms.AES_CMAC
        if algorithm == SigningAlgorithms.AES_GMAC:
            parts = without_signature(b_header)
            return gmac(signing_key, parts, message_id, command, from_server=from_server)
        if algorithm == SigningAlgorithms.AES_CMAC:
            return cmac(signing_key, without_signature(b_header))
        message = b"".join(b_header) if isinstance(b_header, tuple) else b_header
        return bytes(super()._generate_signature(message, signing_key, message_id, *about))

    def _process_message_thread(self) -> None:
        try:
            super()._process_message_thread()
        except RuntimeError as error:
            # It walks a table that senders change at the same time; the connection is over anyway.
            self._t_exc = self._t_exc or error
        finally:
            for request in list(self.outstanding_requests.values()):
                request.response_event.set()


class SmbSession:
    """A logged-in connection to a share. Requests may come from several threads.

    Once it failed it stays failed (`alive` is False): whoever uses it opens another one.
    """

    def __init__(self, location: SmbLocation, credentials: SmbCredentials) -> None:
        self._where = str(location)
        self._room = threading.Condition()
        self._failed = False
        self._connection = StrictConnection(
            uuid.uuid4(),
            location.host,
            location.port,
            require_signing=credentials.require_signing,
        )
        try:
            self._connect()
            self._log_in(location, credentials)
        except BaseException:
            self.abandon()
            raise

    @property
    def alive(self) -> bool:
        """Tell whether the connection still stands, as far as this side knows."""
        transport = self._connection.transport
        return bool(not self._failed and transport is not None and transport.connected)

    @property
    def piece_bytes(self) -> int:
        """Return the most that one read or write carries: 1 MiB measured fastest."""
        limits = (self._connection.max_read_size, self._connection.max_write_size)
        return int(min(1024 * 1024, *limits))

    @property
    def encrypted(self) -> bool:
        """Tell whether what goes over the wire is encrypted."""
        return bool(self._session.encrypt_data or self._tree.encrypt_data)

    def start(self, message: Any, credits_needed: int = 1) -> Any:
        """Send a request, once there is room for it; `finish` waits for its answer."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        try:
            with self._room:
                while self._credits() < credits_needed:
                    if not self.alive or time.monotonic() > deadline:
                        raise SMBException("the server grants no more requests")
                    self._room.wait(0.1)
                return self._connection.send(
                    message,
                    sid=self._session.session_id,
                    tid=self._tree.tree_connect_id,
                    credit_request=credits_needed,
                )
        except _UNANSWERED as error:
            self.abandon()
            raise self._dropped(str(error)) from error

    def finish(self, request: Any, verb: str, subject: str, accept: frozenset[int]) -> Any:
        """Wait for the answer and return its header, whose ``data`` is the body.

        A status outside ``accept`` raises what `error_of_status` says; no answer raises
        `ShareUnreachable` and ends the session.
        """
        try:
            return self._connection.receive(request)
        except SMBResponseException as error:
            if error.status in accept:
                return error.header
            ours = error_of_status(error.status, verb, subject)
            if isinstance(ours, ShareUnreachable):
                self.abandon()
            raise ours from None
        except _UNANSWERED as error:
            self.abandon()
            raise self._dropped(str(error)) from error
        finally:
            with self._room:
                self._room.notify_all()

    def close(self) -> None:
        """Log off, politely where the server still answers."""
        self._connection.answer_seconds = _FAREWELL_SECONDS
        try:
            self._connection.disconnect(close=True, timeout=_FAREWELL_SECONDS)
        except _UNANSWERED:
            self.abandon()

    def abandon(self) -> None:
        """Drop the connection without a word; nobody uses it from here on."""
        self._failed = True
        if self._connection.transport is not None:
            with contextlib.suppress(*_UNANSWERED):
                self._connection.disconnect(close=False)

    def _connect(self) -> None:
        try:
            self._connection.connect(timeout=self._connection.connect_seconds)
        except _UNANSWERED as error:
            raise self._dropped(str(error)) from error
        if self._connection.dialect < Dialects.SMB_3_0_0:
            raise ShareRefused(
                f"Cannot use '{self._where}': the server offers SMB "
                f"0x{self._connection.dialect:04X}, needed 3.0 or newer.",
                hint="Enable SMB 3 on the file server.",
            )

    def _log_in(self, location: SmbLocation, credentials: SmbCredentials) -> None:
        self._session = Session(
            self._connection,
            username=credentials.account or None,  # Kerberos without a user takes the ticket's
            password=credentials.password or None,
            require_encryption=credentials.encrypt,
            auth_protocol=str(credentials.auth),
        )
        self._tree = TreeConnect(self._session, rf"\\{location.host}\{location.share}")
        try:
            self._session.connect()
            self._connect_share()
            for _ in range(3):  # each answer grants a part of what was asked for
                self._connection.echo(self._session.session_id, credit_request=_CREDITS_WANTED)
        except ImportError as error:
            raise MissingTool(
                f"Cannot log in to '{self._where}' by {credentials.auth}: {error}.",
                hint="Install gssapi and krb5 into this environment, or choose ntlm or negotiate.",
            ) from None
        except SMBAuthenticationError:
            raise self._login_refused("the login exchange failed") from None
        except SMBResponseException as error:
            # The causes are cut off: they hold the exchange that proves the password.
            raise self._refused(error.status) from None
        except SMBException as error:
            if not self.alive:
                raise self._dropped(str(error)) from None
            raise ShareRefused(f"Cannot use '{self._where}': {error}.") from None
        except _UNANSWERED as error:
            raise self._dropped(str(error)) from None

    def _connect_share(self) -> None:
        # [MS-SMB2] 3.2.4.2.5: this one is signed whatever was agreed; 3.1.1 servers insist.
        agreed = self._session.signing_required
        self._session.signing_required = not self._session.encrypt_data
        self._tree.connect()
        self._session.signing_required = agreed

    def _credits(self) -> int:
        window = self._connection.sequence_window
        return int(window["high"] - window["low"])

    def _refused(self, status: int) -> ImageportError:
        if status == ACCESS_DENIED:
            return ShareRefused(f"Cannot use '{self._where}': the server denies access to it.")
        return error_of_status(status, "use", self._where)

    def _login_refused(self, cause: str) -> ShareLoginRefused:
        return ShareLoginRefused(f"Cannot log in to '{self._where}': {cause}.")

    def _dropped(self, cause: str) -> ShareUnreachable:
        return ShareUnreachable(f"Cannot reach '{self._where}': {cause.rstrip('.')}.")
