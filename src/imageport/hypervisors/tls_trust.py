# References: RFC 8446 (TLS 1.3), RFC 9110 9.3.6 (CONNECT).
"""Whom a connection to a hypervisor trusts, checked before the first byte of a request.

The clients' own ways are not enough. pyVmomi compares a thumbprint only where the chain did not
verify, and then switches checks off for the whole pool, so later connections are compared with
nothing; requests lets ``REQUESTS_CA_BUNDLE`` and ``HTTPS_PROXY`` change what a program asked for.
Here there is no way to switch checks off, and the environment decides nothing.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import socket
import ssl
from urllib.parse import urlsplit

from imageport.errors import CertificateRefused, HypervisorUnreachable, InputError

CONNECT_SECONDS = 30.0
"""A host that has not answered by then is down or behind a firewall that drops."""
READ_SECONDS = 120.0
"""Longest silence on an open connection: a host that makes a snapshot answers late."""

_CAUSE_CHARACTERS = 200
"""An answer that is none is quoted by `http.client`, however long it is."""

_SHA1_DIGITS, _SHA256_DIGITS = 40, 64


class TlsTrust:
    """One rule for the certificate of a server; may be shared by threads.

    With ``thumbprint`` the server shows exactly that certificate, whoever signed it. Without one an
    authority in ``ca_file`` (PEM) must have signed it for the name that was connected to, or one of
    the system's authorities. With both, both must hold.

    Raises:
        InputError: the thumbprint is none, or the file holds no certificates.
    """

    def __init__(self, thumbprint: str = "", ca_file: str = "") -> None:
        self.thumbprint = _digits(thumbprint, {_SHA256_DIGITS: "SHA-256"})
        self.ca_file = ca_file
        self.context = _context(self.thumbprint, ca_file)

    @classmethod
    def given(cls, thumbprint: str) -> TlsTrust:
        """Return the rule for a server whose thumbprint a trusted server gave.

        vCenter names its hosts' certificates so in leases, by SHA-1: taken here, never from a
        setting. No authority is asked: hosts go by addresses that their certificates do not name.
        """
        known = {_SHA1_DIGITS: "SHA-1", _SHA256_DIGITS: "SHA-256"}
        trust = cls.__new__(cls)
        trust.thumbprint = _digits(thumbprint, known)
        if not trust.thumbprint:
            raise InputError("Bad thumbprint: found none, needed one of SHA-1 or SHA-256.")
        trust.ca_file = ""
        trust.context = _context(trust.thumbprint, "")
        return trust

    def check(self, certificate: bytes, server: str) -> None:
        """Compare a server's certificate (DER) with the pinned thumbprint, if there is one.

        Raises:
            CertificateRefused: it is another; the message has both thumbprints.
        """
        if not self.thumbprint:
            return
        name = "sha1" if len(self.thumbprint) == _SHA1_DIGITS else "sha256"
        found = hashlib.new(name, certificate, usedforsecurity=False).hexdigest().upper()
        if found != self.thumbprint:
            raise CertificateRefused(
                f"Bad certificate of '{server}': found thumbprint {_shown(found)}, "
                f"needed {_shown(self.thumbprint)}.",
                server=server,
                found=_shown(found),
                needed=_shown(self.thumbprint),
            )

    def describe(self) -> str:
        """Say in words what is trusted, for reports."""
        if self.thumbprint:
            return f"the certificate {_shown(self.thumbprint)}"
        return (
            f"the authorities in '{self.ca_file}'" if self.ca_file else "the system's authorities"
        )


class TrustedConnection(http.client.HTTPSConnection):
    """An `http.client` connection that sends nothing before its server was checked.

    It connects by itself at the first request and again when the server has closed it; each time
    the certificate is checked first. ``proxy`` is ``http://host:port`` or empty; proxies of the
    environment are never used.

    Raises from `connect` and so from any request:
        CertificateRefused: the server is not the one that is trusted.
        HypervisorUnreachable: it could not be connected to.
    """

    def __init__(
        self,
        host: str,
        port: int,
        trust: TlsTrust,
        *,
        proxy: str = "",
        timeout_seconds: float = READ_SECONDS,
    ) -> None:
        self._trust = trust
        self._read_seconds = timeout_seconds
        self.wire: socket.socket | None = None
        """The socket of the last connection, which a response may have taken over."""
        self.server = server_name(host, port)
        first = proxy_address(proxy) if proxy else (host, port)
        connect_seconds = min(CONNECT_SECONDS, timeout_seconds)
        super().__init__(*first, timeout=connect_seconds, context=trust.context)
        if proxy:
            self.set_tunnel(host, port)

    def connect(self) -> None:
        """Connect and check; nothing of a request was sent when this fails."""
        try:
            super().connect()
            self.wire = self.sock
            self._trust.check(self.sock.getpeercert(binary_form=True) or b"", self.server)
            self.sock.settimeout(self._read_seconds)
        except ssl.SSLCertVerificationError as error:
            self.close()
            raise self._not_trusted(error) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise unreachable(self.server, error) from error
        except BaseException:
            self.close()
            raise

    def _not_trusted(self, error: ssl.SSLCertVerificationError) -> CertificateRefused:
        found = self._shown_certificate()
        return CertificateRefused(
            f"Bad certificate of '{self.server}': found one with thumbprint {found} "
            f"({error.verify_message}), needed one that {self._trust.describe()} vouch for.",
            server=self.server,
            found=found,
        )

    def _shown_certificate(self) -> str:
        """Shake hands once more, only to name what the server shows; nothing is sent."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._context, kept = context, self._context
        try:
            super().connect()
            shown = self.sock.getpeercert(binary_form=True) or b""
            return _shown(hashlib.sha256(shown).hexdigest().upper())
        except (OSError, http.client.HTTPException):
            return "unknown"
        finally:
            self._context = kept
            self.close()


def _context(thumbprint: str, ca_file: str) -> ssl.SSLContext:
    if thumbprint and not ca_file:
        # The certificate itself is compared: its chain, name and dates say nothing more.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        try:
            context = ssl.create_default_context(cafile=ca_file or None)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise InputError(
                f"Cannot read the certificate authorities in '{ca_file}': {error}.",
                hint="Name a PEM file that the worker can read.",
            ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def proxy_address(proxy: str) -> tuple[str, int]:
    """Return host and port of ``http://host:port``.

    Raises:
        InputError: it is something else, or holds a password that messages could show.
    """
    try:
        parts = urlsplit(proxy)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme != "http" or not host or not port or parts.username is not None:
        raise InputError("Bad proxy: needed 'http://host:port' without user and password.")
    return host, port


def server_name(host: str, port: int) -> str:
    """Return host and port as addresses and messages have them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def unreachable(server: str, error: BaseException) -> HypervisorUnreachable:
    """Return the error for a server that could not be asked; the cause in words."""
    cause = (str(error) or type(error).__name__)[:_CAUSE_CHARACTERS]
    return HypervisorUnreachable(f"Cannot reach '{server}': {cause}.", server=server)


def _digits(thumbprint: str, kinds: dict[int, str]) -> str:
    digits = thumbprint.strip().replace(":", "").upper()
    if digits and (len(digits) not in kinds or not re.fullmatch("[0-9A-F]+", digits)):
        needed = " or ".join(
            f"{count} hexadecimal digits ({kind})" for count, kind in kinds.items()
        )
        raise InputError(
            f"Bad thumbprint: found '{thumbprint}', needed {needed}, with or without colons.",
            hint="openssl s_client -connect HOST:443 | openssl x509 -noout -fingerprint -sha256",
        )
    return digits


def _shown(digits: str) -> str:
    return ":".join(digits[i : i + 2] for i in range(0, len(digits), 2))
