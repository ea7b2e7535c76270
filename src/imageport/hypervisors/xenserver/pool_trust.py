# References: xapi-project/xen-api, ocaml/xapi/certificates.ml: each host has its own certificate.
"""Whom a connection to a pool trusts: an export comes from whichever host has the storage."""

from __future__ import annotations

from imageport.errors import CertificateRefused
from imageport.hypervisors.tls_trust import TlsTrust


class PoolTrust(TlsTrust):
    """One rule for all hosts of a pool; with several thumbprints, a host shows one of them."""

    def __init__(self, thumbprints: str = "", ca_file: str = "") -> None:
        found = [part for part in thumbprints.replace(",", " ").split() if part]
        super().__init__(found[0] if found else "", ca_file)
        self._others = [TlsTrust(thumbprint, ca_file) for thumbprint in found[1:]]

    def check(self, certificate: bytes, server: str) -> None:
        """Compare a server's certificate with every thumbprint that is pinned.

        Raises:
            CertificateRefused: it is none of them.
        """
        try:
            super().check(certificate, server)
        except CertificateRefused as refused:
            if any(_is_the_one(other, certificate, server) for other in self._others):
                return
            if not self._others:
                raise
            raise CertificateRefused(
                f"Bad certificate of '{server}': found thumbprint {refused.fields['found']}, "
                f"needed one of the {len(self._others) + 1} that are pinned.",
                hint="Pin the thumbprint of every host of the pool, or name the file of its CA.",
                server=server,
                found=refused.fields["found"],
            ) from None


def _is_the_one(trust: TlsTrust, certificate: bytes, server: str) -> bool:
    try:
        trust.check(certificate, server)
    except CertificateRefused:
        return False
    return True
