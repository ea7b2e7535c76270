"""Who works at Azure: one token credential for each way to sign in."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Final

from azure.core.credentials import AccessToken, TokenCredential
from azure.core.pipeline import PipelineRequest
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.identity import (
    CertificateCredential,
    ClientSecretCredential,
    EnvironmentCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)

from imageport.clouds.azure.settings import ENVIRONMENTS, is_loopback
from imageport.errors import InputError

KINDS: Final = ("managed_identity", "workload_federation", "service_principal", "environment")
LABORATORY_TOKEN: Final = "imageport-sandbox-token"  # noqa: S105 - opens nothing but an emulator


@dataclass(frozen=True, slots=True)
class AzureLogin:
    """How to sign in.

    ``managed_identity`` needs nothing (``client_id`` names one of several); ``workload_federation``
    needs tenant, client and the file with the platform's token, each of which may come from the
    environment; ``service_principal`` needs tenant, client and a secret or a certificate (PEM or
    PFX); ``environment`` takes all from ``AZURE_*`` variables.
    """

    kind: str = "managed_identity"
    tenant_id: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    certificate_path: str = ""
    token_file: str = ""
    environment: str = "public"
    proxy: str = field(default="", repr=False)
    ca_bundle: str = ""

    def __post_init__(self) -> None:
        """Refuse what can never sign in, all at once."""
        problems = []
        if self.kind not in KINDS:
            problems.append(f"kind '{self.kind}' is none of {', '.join(KINDS)}")
        if self.environment not in ENVIRONMENTS:
            problems.append(
                f"environment '{self.environment}' is none of {', '.join(ENVIRONMENTS)}"
            )
        if self.kind == "service_principal":
            needed = ("tenant_id", "client_id")
            problems += [f"{name} is missing" for name in needed if not getattr(self, name)]
            if bool(self.client_secret) is bool(self.certificate_path):
                problems.append("needed is either client_secret or certificate_path")
        elif self.client_secret or self.certificate_path:
            problems.append(f"client_secret and certificate_path are of no use to {self.kind}")
        if problems:
            raise InputError(f"Bad Azure login: {'; '.join(problems)}.", problems=problems)


def credential_for(login: AzureLogin) -> TokenCredential:
    """Return the credential; nothing is asked before the first call.

    Raises:
        InputError: a certificate or token file that cannot be read, or values that do not fit.
    """
    try:
        return _make(login)
    except (ValueError, OSError) as error:
        raise InputError(f"Bad Azure login: {type(error).__name__}: {error}") from error


def _make(login: AzureLogin) -> TokenCredential:
    network: dict[str, Any] = {}
    if login.proxy:
        network["proxies"] = {"http": login.proxy, "https": login.proxy}
    if login.ca_bundle:
        network["connection_verify"] = login.ca_bundle
    given = {"tenant_id": login.tenant_id, "client_id": login.client_id}
    known: dict[str, Any] = {name: value for name, value in given.items() if value}
    network["authority"] = ENVIRONMENTS[login.environment].authority_host
    if login.kind == "managed_identity":
        # The token service of the machine itself is reached neither by proxy nor by TLS.
        return ManagedIdentityCredential(client_id=login.client_id or None)
    if login.kind == "environment":
        return EnvironmentCredential(**network)
    if login.kind == "workload_federation":
        file = {"token_file_path": login.token_file} if login.token_file else {}
        return WorkloadIdentityCredential(**known, **file, **network)
    if login.certificate_path:
        return CertificateCredential(
            **known, certificate_path=login.certificate_path, send_certificate_chain=True, **network
        )
    return ClientSecretCredential(**known, client_secret=login.client_secret, **network)


class _FixedToken:
    """A credential that always has the same token."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self, *_scopes: str, **_options: Any) -> AccessToken:
        """Return the token, good for an hour."""
        return AccessToken(self._token, int(time.time()) + 3600)


def laboratory_credential(endpoint: str) -> TokenCredential:
    """Return the credential of an emulator on this machine.

    Raises:
        InputError: ``endpoint`` is elsewhere: no well-known token may ever protect a real one.
    """
    if not is_loopback(endpoint):
        raise InputError(f"Bad laboratory: found '{endpoint}', needed an address of this machine.")
    credential: TokenCredential = _FixedToken(LABORATORY_TOKEN)
    return credential


class LaboratoryTokenPolicy(SansIOHTTPPolicy[Any, Any]):
    """Signs requests to an emulator over plain http, and refuses to send a token anywhere else."""

    def __init__(self, credential: TokenCredential, scope: str) -> None:
        super().__init__()
        self._credential = credential
        self._scope = scope

    def on_request(self, request: PipelineRequest[Any]) -> None:
        """Add the token."""
        if not is_loopback(request.http_request.url):
            raise InputError("Bad endpoint: found plain http, needed https or this machine.")
        token = self._credential.get_token(self._scope).token
        request.http_request.headers["Authorization"] = f"Bearer {token}"
