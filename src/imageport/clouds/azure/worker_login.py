# References: Azure SDK for Python, azure-identity, "Environment variables".
"""Which identity a machine has when nobody names one: its environment's, else its own."""

from __future__ import annotations

import os
from collections.abc import Mapping

from azure.core.credentials import TokenCredential

from imageport.clouds.azure.credentials import AzureLogin, credential_for, laboratory_credential
from imageport.clouds.azure.settings import AzureSettings, is_loopback


def worker_login(settings: AzureSettings, variables: Mapping[str, str]) -> AzureLogin:
    """Return the login that ``variables`` point to; a managed identity when none do.

    Nothing is tried out: a chain that asks one source after another hides a wrong secret behind
    the error of the last source.
    """
    client_id = ""
    if variables.get("AZURE_CLIENT_SECRET") or variables.get("AZURE_CLIENT_CERTIFICATE_PATH"):
        kind = "environment"
    elif variables.get("AZURE_FEDERATED_TOKEN_FILE"):
        kind = "workload_federation"
    else:
        kind, client_id = "managed_identity", variables.get("AZURE_CLIENT_ID", "")
    return AzureLogin(
        kind=kind,
        client_id=client_id,
        environment=settings.environment,
        proxy=settings.proxy,
        ca_bundle=settings.ca_bundle,
    )


def worker_credential(settings: AzureSettings) -> TokenCredential:
    """Return the machine's own credential; an endpoint on loopback is the laboratory's."""
    if settings.endpoint_url and is_loopback(settings.endpoint_url):
        return laboratory_credential(settings.endpoint_url)
    return credential_for(worker_login(settings, os.environ))
