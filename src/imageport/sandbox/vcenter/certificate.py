"""The embedded vCenter's private authority and the certificate that it signed."""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

KEY_BITS = 2048
"""What vCenter's own authority signs by default."""
_LIFE = dt.timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """Files of one server, PEM; the authority stays when the certificate is renewed."""

    folder: Path

    @property
    def ca_file(self) -> Path:
        """Return the authority's certificate."""
        return self.folder / "ca.pem"

    @property
    def certificate_file(self) -> Path:
        """Return the server's certificate."""
        return self.folder / "server.pem"

    @property
    def key_file(self) -> Path:
        """Return the server's key."""
        return self.folder / "server-key.pem"

    @property
    def thumbprint(self) -> str:
        """Return the certificate's SHA-256, two digits a byte with colons."""
        der = ssl.PEM_cert_to_DER_cert(self.certificate_file.read_text("ascii"))
        return hashlib.sha256(der).digest().hex(":").upper()

    def make_missing(self) -> None:
        """Make authority and certificate unless the folder has them."""
        if not self.ca_file.exists():
            self._make_authority()
        if not self.certificate_file.exists():
            self.renew()

    def renew(self) -> None:
        """Let the authority sign another certificate, with another key, for 127.0.0.1."""
        key = _new_key()
        text = (self.folder / "ca-key.pem").read_bytes()
        signer = serialization.load_pem_private_key(text, None)
        if not isinstance(signer, rsa.RSAPrivateKey):
            raise TypeError("the authority's key is an RSA key")
        issuer = x509.load_pem_x509_certificate(self.ca_file.read_bytes())
        address = ipaddress.ip_address("127.0.0.1")
        names = x509.SubjectAlternativeName([x509.IPAddress(address), x509.DNSName("localhost")])
        builder = (
            _builder("vcenter.sandbox", issuer.subject, key.public_key(), signer)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(names, critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        )
        _write_key(self.key_file, key)
        _write(self.certificate_file, builder.sign(signer, hashes.SHA256()))

    def _make_authority(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        key = _new_key()
        builder = (
            _builder("CA of the sandbox", _name("CA of the sandbox"), key.public_key(), key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_signs_certificates(), critical=True)
        )
        _write_key(self.folder / "ca-key.pem", key)
        _write(self.ca_file, builder.sign(key, hashes.SHA256()))


def _builder(
    title: str, issuer: x509.Name, key: rsa.RSAPublicKey, signer: rsa.RSAPrivateKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    signed_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(_name(title))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(signed_by, critical=False)
    )


def _signs_certificates() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _name(title: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)])


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)


def _write_key(path: Path, key: rsa.RSAPrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def _write(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
