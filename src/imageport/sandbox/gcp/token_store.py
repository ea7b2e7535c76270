# References: "Using OAuth 2.0 for Server to Server Applications"; IAM, "Credential Access
# Boundaries"; RFC 7515 (JWS), RFC 7519 (JWT).
"""Keys of the emulated account, and the access tokens that were handed out for it."""

from __future__ import annotations

import base64
import json
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from imageport.sandbox.gcp.access_boundary import AccessBoundary
from imageport.sandbox.gcp.account import SERVICE_ACCOUNT

CLOUD_PLATFORM: Final = "https://www.googleapis.com/auth/cloud-platform"
LONGEST_ASSERTION_SECONDS: Final = 3600
"""Google refuses assertions that are valid for more than an hour."""
CLOCK_TOLERANCE_SECONDS: Final = 300
"""By how much clocks may differ before an assertion counts as of the future."""


class BadToken(Exception):
    """A token or assertion that is not accepted; the text says why."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as a token says."""

    email: str
    """Empty for a federated identity that has not become an account yet."""
    scopes: frozenset[str]
    boundary: AccessBoundary | None = None
    """What a downscoped token is restricted to."""
    expires: float = 0.0


class SigningKey:
    """One RSA key pair."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.touch(mode=0o600)
            key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            encoding, layout = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
            path.write_bytes(key.private_bytes(encoding, layout, serialization.NoEncryption()))
        self.pem = path.read_text()
        # Our own key: checking its primes takes longer than all the rest of a start.
        loaded = serialization.load_pem_private_key(
            self.pem.encode(), password=None, unsafe_skip_rsa_key_validation=True
        )
        if not isinstance(loaded, rsa.RSAPrivateKey):
            raise TypeError(f"Bad key: found another in {path.name}, needed RSA.")
        self._key = loaded
        public = loaded.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        digest = hashes.Hash(hashes.SHA256())
        digest.update(public)
        self.id = digest.finalize().hex()[:40]

    def sign(self, data: bytes) -> bytes:
        """Return an RSASSA-PKCS1-v1_5 signature with SHA-256."""
        return self._key.sign(data, padding.PKCS1v15(), hashes.SHA256())

    def verifies(self, data: bytes, signature: bytes) -> bool:
        """Tell whether a signature is this key's."""
        try:
            self._key.public_key().verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return False
        return True

    def jwt(self, claims: dict[str, Any]) -> str:
        """Return a signed token with these claims."""
        header = {"alg": "RS256", "typ": "JWT", "kid": self.id}
        parts = [_base64url(json.dumps(part).encode()) for part in (header, claims)]
        signed = ".".join(parts)
        return f"{signed}.{_base64url(self.sign(signed.encode()))}"

    def claims(self, token: str) -> dict[str, Any]:
        """Return the claims of a token that this key signed.

        Raises:
            BadToken: it is none, or somebody else's.
        """
        try:
            head, body, signature = token.split(".")
            header, claims = (json.loads(_from_base64url(part)) for part in (head, body))
            given = _from_base64url(signature)
        except ValueError as error:
            raise BadToken("Invalid JWT: it has not three parts of base64url.") from error
        if not isinstance(header, dict) or not isinstance(claims, dict):
            raise BadToken("Invalid JWT: its parts are no objects.")
        if header.get("alg") != "RS256" or header.get("kid", self.id) != self.id:
            raise BadToken("Invalid JWT Signature: unknown key or algorithm.")
        if not self.verifies(f"{head}.{body}".encode(), given):
            raise BadToken("Invalid JWT Signature.")
        return claims


class TokenStore:
    """The keys, which outlive the process, and the tokens, which do not; used from all threads."""

    def __init__(self, folder: Path, now: Callable[[], float]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.account_key = SigningKey(folder / "account.pem")
        """The service account's own key, which its file holds."""
        self.system_key = SigningKey(folder / "system.pem")
        """Google's own key of the account, with which signBlob signs."""
        self.issuer_key = SigningKey(folder / "issuer.pem")
        """Of the foreign identity provider that federation trusts."""
        self.now = now
        self._lock = threading.Lock()
        self._tokens: dict[str, Caller] = {}

    def issue(
        self,
        email: str,
        scopes: frozenset[str],
        seconds: float,
        boundary: AccessBoundary | None = None,
    ) -> str:
        """Return a new access token."""
        now = self.now()
        token = f"ya29.{secrets.token_urlsafe(48)}"
        with self._lock:
            self._tokens = {text: one for text, one in self._tokens.items() if one.expires > now}
            self._tokens[token] = Caller(email, scopes, boundary, now + seconds)
        return token

    def find(self, token: str) -> Caller:
        """Return whose token it is; assertions that clients sign themselves count, too.

        Raises:
            BadToken: nobody's, or its time is over.
        """
        with self._lock:
            caller = self._tokens.get(token)
        if caller is None and token.count(".") == 2 and not token.startswith("ya29."):
            return self._self_signed(token)
        if caller is None or caller.expires <= self.now():
            raise BadToken("Invalid Credentials")
        return caller

    def checked_assertion(self, token: str) -> dict[str, Any]:
        """Return the claims of an assertion of the service account.

        Raises:
            BadToken: another's signature, another's name, or another time.
        """
        claims = self.account_key.claims(token)
        if claims.get("iss") != SERVICE_ACCOUNT:
            raise BadToken("Invalid grant: account not found")
        self.check_times(claims, LONGEST_ASSERTION_SECONDS)
        return claims

    def check_times(self, claims: dict[str, Any], longest_seconds: float) -> None:
        """Raise BadToken when the time is not within the claims'."""
        issued, expires, now = claims.get("iat"), claims.get("exp"), self.now()
        if not isinstance(issued, int | float) or not isinstance(expires, int | float):
            raise BadToken("Invalid JWT: Token must have iat and exp.")
        in_time = issued <= now + CLOCK_TOLERANCE_SECONDS and expires > now
        if not in_time or expires - issued > longest_seconds:
            text = "Invalid JWT: Token must be a short-lived token and in a reasonable timeframe. "
            raise BadToken(text + "Check your iat and exp values in the JWT claim.")

    def _self_signed(self, token: str) -> Caller:
        claims = self.checked_assertion(token)
        if claims.get("sub") != SERVICE_ACCOUNT:
            raise BadToken("Invalid Credentials")
        scopes, audience = claims.get("scope"), str(claims.get("aud", ""))
        if scopes is None and not audience.endswith(".googleapis.com/"):
            raise BadToken("Invalid Credentials")
        granted = frozenset(str(scopes).split()) if scopes else frozenset({CLOUD_PLATFORM})
        return Caller(SERVICE_ACCOUNT, granted, None, float(claims["exp"]))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _from_base64url(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
