"""Every way to sign in at Azure makes its credential, and none shows its secret."""

from __future__ import annotations

from typing import Any

import pytest
from azure.core.pipeline import PipelineContext, PipelineRequest
from azure.core.rest import HttpRequest
from azure.identity import (
    ClientSecretCredential,
    EnvironmentCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)

from imageport.clouds.azure.clients import AzureClients
from imageport.clouds.azure.credentials import (
    AzureLogin,
    LaboratoryTokenPolicy,
    credential_for,
    laboratory_credential,
)
from imageport.errors import InputError
from tests.clouds.test_azure_settings import settings

TENANT = "11111111-2222-3333-4444-555555555555"
PRINCIPAL: dict[str, Any] = {
    "kind": "service_principal",
    "tenant_id": TENANT,
    "client_id": "app",
    "client_secret": "5ecre7",
}


@pytest.mark.parametrize(
    ("login", "kind"),
    [
        ({}, ManagedIdentityCredential),
        ({"client_id": "app"}, ManagedIdentityCredential),
        (PRINCIPAL, ClientSecretCredential),
        ({"kind": "environment"}, EnvironmentCredential),
        (
            {"kind": "workload_federation", "tenant_id": TENANT, "client_id": "app",
             "token_file": "token"},
            WorkloadIdentityCredential,
        ),
    ],
)  # fmt: skip
def test_each_kind_of_login_has_its_credential(login: dict[str, Any], kind: type):
    credential: Any = credential_for(AzureLogin(**login))
    assert isinstance(credential, kind)
    credential.close()


def test_a_service_principal_signs_in_where_its_cloud_does():
    credential: Any = credential_for(AzureLogin(**(PRINCIPAL | {"environment": "usgovernment"})))
    assert credential._authority == "https://login.microsoftonline.us"
    credential.close()


@pytest.mark.parametrize(
    ("login", "problem"),
    [
        ({"kind": "password"}, "kind 'password' is none of"),
        ({"environment": "germany"}, "environment 'germany' is none of"),
        ({"kind": "service_principal", "client_secret": "s"}, "tenant_id is missing"),
        (PRINCIPAL | {"client_secret": ""}, "either client_secret or certificate_path"),
        (PRINCIPAL | {"certificate_path": "x.pem"}, "either client_secret or certificate_path"),
        ({"client_secret": "s"}, "of no use to managed_identity"),
    ],
)
def test_a_login_that_never_works_is_refused(login: dict[str, Any], problem: str):
    with pytest.raises(InputError, match=problem):
        AzureLogin(**login)


def test_a_certificate_that_cannot_be_read_is_the_operators_to_correct():
    login = AzureLogin(**(PRINCIPAL | {"client_secret": "", "certificate_path": "/nowhere.pem"}))
    with pytest.raises(InputError, match="Bad Azure login"):
        credential_for(login)


def test_no_secret_and_no_proxy_password_is_ever_shown():
    login = AzureLogin(**PRINCIPAL, proxy="http://u:5ecre7@proxy")
    assert "5ecre7" not in f"{login!r}{login!s}"


def test_a_laboratory_token_is_for_this_machine_alone():
    assert laboratory_credential("http://127.0.0.1:9").get_token("x").token
    for elsewhere in ("http://10.0.0.1:9", "https://management.azure.com"):
        with pytest.raises(InputError, match="needed an address of this machine"):
            laboratory_credential(elsewhere)


def test_no_token_goes_anywhere_else_over_plain_http():
    policy = LaboratoryTokenPolicy(laboratory_credential("http://127.0.0.1:9"), "x/.default")
    for url, fits in {"http://127.0.0.1:9/a": True, "http://10.0.0.1/a": False}.items():
        request = PipelineRequest(HttpRequest("GET", url), PipelineContext(None))
        if fits:
            policy.on_request(request)
            assert request.http_request.headers["Authorization"].startswith("Bearer ")
        else:
            with pytest.raises(InputError):
                policy.on_request(request)
            assert "Authorization" not in request.http_request.headers


@pytest.mark.parametrize("environment", ["public", "usgovernment", "china"])
def test_clients_speak_to_the_cloud_of_their_settings_with_time_outs_and_proxy(environment: str):
    chosen = settings(environment=environment, proxy="http://proxy:3128", ca_bundle="/ca.pem")
    clients = AzureClients(chosen, credential_for(AzureLogin(environment=environment)))
    compute: Any = clients.compute
    config: Any = compute._config
    assert config.base_url == chosen.cloud.resource_manager
    assert config.credential_scopes == [chosen.cloud.management_scope]
    assert config.proxy_policy.proxies["https"] == "http://proxy:3128"
    assert config.retry_policy.total_retries > 0
    connection = compute._client._pipeline._transport.connection_config
    assert (connection.timeout, connection.read_timeout, connection.verify) == (5, 60, "/ca.pem")
    assert clients.data._pipeline._transport.connection_config.verify == "/ca.pem"
    clients.close()


def test_the_data_path_tries_once_and_has_connections_for_all_that_is_in_flight():
    clients = AzureClients(settings(), credential_for(AzureLogin()))
    pipeline: Any = clients.data._pipeline
    names = [type(getattr(item, "_policy", item)).__name__ for item in pipeline._impl_policies]
    assert not [name for name in names if "Retry" in name]
    adapter = pipeline._transport.session.get_adapter("https://x")
    assert adapter._pool_maxsize >= 64
    assert adapter.max_retries.total == 0
    clients.close()
