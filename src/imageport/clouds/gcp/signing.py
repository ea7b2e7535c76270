# References: Cloud Storage, "V4 signing process with your own program"; IAM Service Account
# Credentials API v1, "signBlob".
"""URLs that open one object for a while: what an engine machine gets instead of an identity.

They are secrets. Whoever has one can do what it says and no more than the account that signed it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from google.auth.credentials import Signing
from google.oauth2 import service_account

from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.error_mapping import asked
from imageport.clouds.gcp.token_request import readable_answers
from imageport.clouds.waiting import retried
from imageport.errors import CloudUnavailable, InputError

CLOCK_SECONDS: Final = 900.0
"""How far the clocks of worker, machine and store may be apart."""
LONGEST_SECONDS: Final = 7 * 24 * 3600.0
"""Of a V4 signature. One that IAM makes is good for twelve hours at least: the keys that Google
keeps change, and a job that takes longer may find its URLs refused."""
SIGN: Final = "iam.serviceAccounts.signBlob"


class UrlSigner:
    """Signs URLs of one account's bucket: by the credentials' own key, else by asking IAM."""

    def __init__(self, account: GcpAccount) -> None:
        self._account = account
        self._signing = _signing_of(account)

    def url(
        self, key: str, method: str, seconds: float, headers: Mapping[str, str] | None = None
    ) -> str:
        """Return a URL for one method on one object.

        Args:
            key: Of the object, which need not exist.
            method: ``GET`` or ``PUT``.
            seconds: How long it is good, beside what clocks may differ.
            headers: Which must be sent with just these values.

        Raises:
            CloudError: IAM does not sign.
        """
        account = self._account
        blob: Any = account.clients.storage.bucket(account.settings.bucket).blob(key)
        seconds = min(seconds + CLOCK_SECONDS, LONGEST_SECONDS)
        url: str = blob.generate_signed_url(
            version="v4",
            method=method,
            expiration=timedelta(seconds=seconds),
            headers=dict(headers or {}),
            credentials=self._signing,
            api_access_endpoint=account.settings.endpoint("storage"),
        )
        return url


def account_at_google(account: GcpAccount) -> str:
    """Return the service account whose key Google keeps and signs with; empty for a key at hand.

    Raises:
        InputError: nobody can sign.
    """
    signing = _signing_of(account)
    return signing.signer_email if isinstance(signing, _SigningByIam) else ""


def _signing_of(account: GcpAccount) -> Signing:
    credentials: Any = account.clients.credentials
    named = account.settings.signing_account
    if isinstance(credentials, service_account.Credentials):
        email = credentials.service_account_email
        if named in {"", email}:
            return credentials
    return _SigningByIam(account, named or _own_email(account))


def _own_email(account: GcpAccount) -> str:
    """Return the service account that the credentials are for.

    Raises:
        InputError: they are for none, as those of a person or of plain federation.
    """
    credentials: Any = account.clients.credentials
    email = str(getattr(credentials, "service_account_email", None) or "")
    if email == "default":  # of an attached account, until its first token
        with asked("iam.serviceAccounts.get", "attached account"), readable_answers():
            credentials.refresh(account.clients.token_request)
        email = str(credentials.service_account_email or "")
    if "@" not in email:
        raise InputError(
            "Bad signing_account: found none, needed a service account that signs URLs.",
            hint="These credentials are for no service account: name one in signing_account, and "
            "grant them the role Service Account Token Creator on it.",
            problems=["signing_account is missing"],
        )
    return email


class _SigningByIam(Signing):
    """A key that stays with Google; each signature is a request.

    google-auth has such a signer, but it asks at the public address alone.
    """

    def __init__(self, account: GcpAccount, email: str) -> None:
        self._account = account
        self._email = email

    @property
    def signer_email(self) -> str:
        """Return whose key it is."""
        return self._email

    @property
    def signer(self) -> Any:
        """Return the object that signs."""
        return self

    def sign_bytes(self, message: bytes) -> bytes:
        """Return a signature (RSA-SHA256).

        Raises:
            CloudError: IAM does not sign.
        """
        path = f"/v1/projects/-/serviceAccounts/{self._email}:signBlob"
        body = {"payload": base64.b64encode(message).decode()}
        clients = self._account.clients

        def ask() -> bytes:
            with asked(SIGN, self._email):
                answer = clients.ask("iamcredentials", "POST", path, body=body)
            try:
                return base64.b64decode(answer["signedBlob"], validate=True)
            except (KeyError, ValueError, TypeError) as error:
                raise CloudUnavailable(f"Cannot sign as '{self._email}': no signature.") from error

        return retried(ask)
