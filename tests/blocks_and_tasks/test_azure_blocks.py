"""What the Azure blocks accept, refuse and hand to the library."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from azure.identity import (
    ClientSecretCredential,
    EnvironmentCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)
from pydantic import ValidationError

from blocks import AzureCredentials, AzureTarget
from imageport.clouds.azure.settings import AzureSettings
from imageport.clouds.azure.worker_login import worker_credential, worker_login
from imageport.errors import InputError

SECRET = "Pa55-in-the-open"
TENANT, CLIENT = "11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-000000000000"
GROUP = f"/subscriptions/{TENANT}/resourceGroups/vdi"
SUBNET = f"{GROUP}/providers/Microsoft.Network/virtualNetworks/lab/subnets/machines"
PLACE = {"subscription_id": TENANT, "resource_group": "vdi", "location": "germanywestcentral"}
PRINCIPAL = {"kind": "service_principal", "tenant_id": TENANT, "client_id": CLIENT}
SETTINGS = AzureSettings(**PLACE, environment="usgovernment", proxy="http://p:1", ca_bundle="/ca")


def a_target(**values: object) -> AzureTarget:
    return AzureTarget(**(PLACE | values))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"kind": "password"}, "kind"),
        ({"tenant": TENANT}, "tenant"),
        ({"client_id": "my-app"}, "client_id"),
        ({"tenant_id": TENANT}, "tenant_id, needed none"),
        ({"client_secret": SECRET}, "client_secret, needed none"),
        ({"kind": "workload_federation", "client_secret": SECRET}, "client_secret, needed none"),
        ({"kind": "service_principal"}, "no tenant_id.*no client_id.*no secret"),
        (PRINCIPAL, "no secret, needed exactly one source"),
        (PRINCIPAL | {"client_secret": SECRET, "token_file": "/t"}, "token_file, needed none"),
        (
            PRINCIPAL | {"client_secret": SECRET, "client_secret_file": "/run/secret"},
            "client_secret and client_secret_file, needed exactly one",
        ),
    ],
)
def test_credentials_refuse_what_cannot_sign_in(values: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=rf"(?s){problem}") as caught:
        AzureCredentials(**values)
    assert SECRET not in str(caught.value)


def test_managed_identity_comes_first_and_stores_nothing() -> None:
    kinds = AzureCredentials.model_json_schema()["properties"]["kind"]["enum"]
    assert kinds == ["managed_identity", "workload_federation", "service_principal"]
    assert AzureCredentials().login(SETTINGS).kind == "managed_identity"


def test_a_secret_comes_from_the_source_that_the_block_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_SECRET", SECRET)
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    for source in (
        {"client_secret": SECRET},
        {"client_secret_variable": "LAB_SECRET"},
        {"client_secret_file": str(file)},
    ):
        login = AzureCredentials(**PRINCIPAL, **source).login(SETTINGS)
        assert login.client_secret == SECRET
        assert (login.tenant_id, login.client_id) == (TENANT, CLIENT)
        assert SECRET not in repr(login)


def test_a_login_takes_the_ways_to_the_cloud_from_the_site() -> None:
    login = AzureCredentials(**PRINCIPAL, certificate_file="/run/c.pem").login(SETTINGS)
    assert login.certificate_path == "/run/c.pem"
    assert (login.environment, login.proxy, login.ca_bundle) == (
        "usgovernment",
        "http://p:1",
        "/ca",
    )


@pytest.mark.parametrize(
    "source",
    [{"client_secret_variable": "NOT_SET_HERE"}, {"client_secret_file": "/nowhere/secret"}],
)
def test_a_missing_source_of_a_secret_is_named(source: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"Cannot read the secret of Azure client '{CLIENT}'"):
        AzureCredentials(**PRINCIPAL, **source).login(SETTINGS)


@pytest.mark.parametrize(
    "values",
    [
        {"subscription_id": "my-subscription"},
        {"location": "Germany West Central"},
        {"zone": "4"},
        {"environment": "germany"},
        {"subnet_id": "machines"},
        {"subnet_id": f"{GROUP}/providers/Microsoft.Network/virtualNetworks/lab"},
        {"boot_vm_size": "D2s v5"},
        {"upload_disk_sku": "Standard"},
        {"network_access_policy": "DenyAll"},
        {"network_access_policy": "AllowPrivate"},
        {"job_container_url": "https://a.blob.core.windows.net/jobs?sv=1&sig=abc"},
        {"endpoint_url": "http://management.example.com"},
        {"boot_egress_cidrs": ("everywhere",)},
        {"subnet": SUBNET},
    ],
    ids=lambda values: "+".join(f"{name}={value}"[:40] for name, value in values.items()),
)
def test_a_target_refuses_what_it_cannot_mean(values: dict[str, object]) -> None:
    with pytest.raises((ValidationError, InputError)):
        a_target(**values)


def test_a_target_has_every_setting_of_the_library_that_an_operator_decides() -> None:
    of_the_site = {"site", "proxy", "ca_bundle"}
    of_the_run = {"keep_parent", "expires_seconds", "snapshot_deadline_seconds"}
    known = {field.name for field in dataclasses.fields(AzureSettings)}
    assert set(AzureTarget.model_fields) == known - of_the_site - of_the_run | {"credentials"}
    for field in dataclasses.fields(AzureSettings):
        if field.name in AzureTarget.model_fields and field.default is not dataclasses.MISSING:
            assert AzureTarget.model_fields[field.name].default == field.default, field.name


def test_a_target_passes_every_setting_to_the_library() -> None:
    values = {
        "subnet_id": SUBNET,
        "boot_vm_size": "Standard_E4s_v5",
        "zone": "2",
        "network_access_policy": "AllowPrivate",
        "disk_access_id": f"{GROUP}/providers/Microsoft.Compute/diskAccesses/private",
        "boot_egress_cidrs": ("10.0.0.0/8",),
        "job_container_url": "https://account.blob.core.usgovcloudapi.net/jobs",
        "environment": "usgovernment",
    }
    settings = a_target(**values).settings("cloud", proxy="http://proxy:3128", ca_bundle="/ca")
    assert {name: getattr(settings, name) for name in values} == values
    assert (settings.site, settings.proxy, settings.ca_bundle) == (
        "cloud", "http://proxy:3128", "/ca",
    )  # fmt: skip
    assert a_target().place == "azure/germanywestcentral"


def test_no_rendering_of_a_block_or_its_schema_shows_a_secret() -> None:
    credentials = AzureCredentials(**PRINCIPAL, client_secret=SECRET)
    target = a_target(credentials=credentials)
    for block in (credentials, target):
        rendered = [repr(block), str(block), block.model_dump_json(), repr(block.model_dump())]
        rendered += [json.dumps(block.model_json_schema()), repr(target.settings("onprem"))]
        assert not [text for text in rendered if SECRET in text], type(block)
    secrets = AzureCredentials.model_json_schema()["secret_fields"]
    assert secrets == ["client_secret"]
    assert AzureTarget.model_json_schema()["secret_fields"] == ["credentials.client_secret"]


def test_a_rejected_target_does_not_show_the_secret_of_its_credentials() -> None:
    secret = PRINCIPAL | {"client_secret": SECRET}
    for values in (
        {"credentials": secret, "location": "No Where"},
        {"credentials": secret | {"x": 1}},
    ):
        with pytest.raises(ValidationError) as caught:
            a_target(**values)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        ({}, ManagedIdentityCredential),
        ({"AZURE_CLIENT_ID": CLIENT}, ManagedIdentityCredential),
        ({"AZURE_FEDERATED_TOKEN_FILE": "/token"}, WorkloadIdentityCredential),
        ({"AZURE_CLIENT_SECRET": SECRET}, EnvironmentCredential),
    ],
    ids=["nothing", "user-assigned", "federation", "secret"],
)
def test_without_credentials_the_workers_own_are_taken(
    variables: dict[str, str], kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CLIENT_SECRET", "CLIENT_CERTIFICATE_PATH", "FEDERATED_TOKEN_FILE", "CLIENT_ID"):
        monkeypatch.delenv(f"AZURE_{name}", raising=False)
    for name, value in {"AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": CLIENT, **variables}.items():
        monkeypatch.setenv(name, value)
    target = a_target()
    found = target.credential(target.settings("cloud"))
    try:
        assert type(found) is kind
    finally:
        found.close()  # type: ignore[attr-defined]


def test_the_workers_own_login_keeps_the_settings_ways_to_the_cloud() -> None:
    login = worker_login(SETTINGS, {"AZURE_CLIENT_ID": CLIENT})
    assert (login.kind, login.client_id) == ("managed_identity", CLIENT)
    assert (login.environment, login.proxy, login.ca_bundle) == (
        "usgovernment",
        "http://p:1",
        "/ca",
    )


def test_named_credentials_count_before_the_workers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", "/token")
    target = a_target(credentials=AzureCredentials(**PRINCIPAL, client_secret=SECRET))
    found = target.credential(target.settings("cloud"))
    try:
        assert type(found) is ClientSecretCredential
    finally:
        found.close()


def test_a_laboratory_on_loopback_needs_no_credentials() -> None:
    target = a_target(endpoint_url="http://127.0.0.1:8000")
    token = target.credential(target.settings("cloud")).get_token("any").token
    assert "imageport" in token
    real = AzureSettings(**PLACE)
    assert type(worker_credential(real)).__module__.startswith("azure.identity")
