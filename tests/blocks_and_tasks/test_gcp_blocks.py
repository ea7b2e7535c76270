"""What the Google Cloud block accepts, refuses and hands to the library."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import identity_pool
from google.oauth2 import service_account
from prefect_gcp import GcpCredentials
from pydantic import ValidationError

from blocks import GcpTarget
from imageport.clouds.gcp.settings import GcpSettings
from imageport.errors import InputError

SUBNET = "projects/network-1/regions/europe-west3/subnetworks/machines"
PLACE = {
    "project": "images-1",
    "region": "europe-west3",
    "zone": "europe-west3-a",
    "bucket": "golden-images",
}
PEM = (
    rsa.generate_private_key(public_exponent=65537, key_size=2048)
    .private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    .decode()
)
SECRET = PEM.splitlines()[1]
"""Some line of the key: whoever shows the key shows it."""
KEY = {
    "type": "service_account",
    "project_id": "images-1",
    "private_key_id": "1",
    "private_key": PEM,
    "client_email": "worker@images-1.iam.gserviceaccount.com",
    "token_uri": "https://oauth2.googleapis.com/token",
}
FEDERATION = {
    "type": "external_account",
    "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    "token_url": "https://sts.googleapis.com/v1/token",
    "credential_source": {"file": "/run/token"},
}


def a_target(**values: object) -> GcpTarget:
    return GcpTarget(**(PLACE | values))


@pytest.mark.parametrize(
    "values",
    [
        {"project": "My Project"},
        {"region": "Frankfurt"},
        {"zone": "a"},
        {"zone": "europe-west1-b"},
        {"bucket": "gs://golden-images"},
        {"prefix": "/imageport/"},
        {"archive": "zip"},
        {"subnet": "machines"},
        {"boot_subnet": SUBNET.replace("west3", "west1")},
        {"engine_image": "debian-12"},
        {"boot_machine_type": "n2 standard 2"},
        {"nic_type": "E1000"},
        {"engine_network_tags": ("Shut",)},
        {"isolated_network_tag": "shut", "boot_egress_cidrs": ("10.0.0.0/8",)},
        {"boot_egress_cidrs": ("everywhere",)},
        {"kms_key": "images"},
        {"labels": {"Team": "vdi"}},
        {"signing_account": "worker"},
        {"endpoint_url": "https://a.example/?key=abc"},
        {"endpoint_url": "https://a.example", "private_service_connect": "images"},
        {"credentials_file": "/run/key.json", "credentials": {"service_account_info": KEY}},
        {"machine_type": "n2-standard-2"},
    ],
    ids=lambda values: "+".join(f"{name}={value}"[:30] for name, value in values.items()),
)
def test_a_target_refuses_what_it_cannot_mean(values: dict[str, object]) -> None:
    with pytest.raises((ValidationError, InputError)) as caught:
        a_target(**values)
    assert SECRET not in str(caught.value)


def test_a_target_has_every_setting_of_the_library_that_an_operator_decides() -> None:
    of_the_site = {"site", "proxy", "ca_bundle"}
    of_the_run = {"keep_parent", "expires_seconds", "image_deadline_seconds"}
    known = {field.name for field in dataclasses.fields(GcpSettings)}
    logins = {"credentials", "credentials_file"}
    assert set(GcpTarget.model_fields) == known - of_the_site - of_the_run | logins
    for field in dataclasses.fields(GcpSettings):
        if field.name in GcpTarget.model_fields and field.default is not dataclasses.MISSING:
            assert GcpTarget.model_fields[field.name].default == field.default, field.name
    assert a_target().settings("cloud") == GcpSettings(**PLACE, site="cloud")


def test_a_target_passes_every_setting_to_the_library() -> None:
    values: dict[str, Any] = {
        "prefix": "golden/images",
        "archive": "stream",
        "subnet": SUBNET,
        "boot_subnet": SUBNET.replace("machines", "boots"),
        "boot_machine_type": "c3-standard-4",
        "nic_type": "VIRTIO_NET",
        "engine_network_tags": ("engine", "web"),
        "boot_egress_cidrs": ("10.0.0.0/8",),
        "kms_key": "projects/k-1/locations/europe-west3/keyRings/r/cryptoKeys/k",
        "labels": {"team": "vdi"},
        "keep_stopped_vm": True,
        "private_service_connect": "images",
    }
    settings = a_target(**values).settings("cloud", proxy="http://proxy:3128", ca_bundle="/ca")
    assert {name: getattr(settings, name) for name in values} == values
    assert (settings.site, settings.proxy, settings.ca_bundle) == (
        "cloud", "http://proxy:3128", "/ca",
    )  # fmt: skip
    assert a_target().place == "gcp/europe-west3"


def with_key() -> GcpTarget:
    return a_target(credentials=GcpCredentials(service_account_info=KEY))


def test_no_rendering_of_a_target_or_its_schema_shows_a_secret() -> None:
    target = with_key()
    rendered = [repr(target), str(target), target.model_dump_json(), repr(target.model_dump())]
    rendered += [json.dumps(target.model_json_schema()), repr(target.settings("onprem"))]
    assert not [text for text in rendered if SECRET in text]
    assert GcpTarget.model_json_schema()["secret_fields"] == ["credentials.service_account_info.*"]


def test_a_rejected_target_does_not_show_the_secret_of_its_credentials() -> None:
    key = {"service_account_info": KEY}
    for values in (
        {"credentials": key, "region": "No Where"},
        {"credentials": key | {"service_account_file": "/nowhere"}},
    ):
        with pytest.raises(ValidationError) as caught:
            a_target(**values)
        assert SECRET not in str(caught.value)


def test_a_key_may_stand_in_the_block_or_lie_in_a_file_of_the_worker(tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    file.write_text(json.dumps(KEY))
    for target in (
        with_key(),
        a_target(credentials=GcpCredentials(service_account_file=file)),
        a_target(credentials_file=str(file)),
    ):
        found: Any = target.google_credentials(target.settings("cloud"))
        assert type(found) is service_account.Credentials
        assert found.service_account_email == KEY["client_email"]
        assert found.scopes == ("https://www.googleapis.com/auth/cloud-platform",)


def test_federation_comes_from_a_file_of_the_worker_and_stores_nothing(tmp_path: Path) -> None:
    file = tmp_path / "federation.json"
    file.write_text(json.dumps(FEDERATION))
    target = a_target(credentials_file=str(file))
    found = target.google_credentials(target.settings("cloud"))
    assert type(found) is identity_pool.Credentials


def test_without_credentials_the_workers_own_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "federation.json"
    file.write_text(json.dumps(FEDERATION))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    target = a_target()
    found = target.google_credentials(target.settings("cloud"))
    assert type(found) is identity_pool.Credentials


def test_a_file_that_another_site_has_is_not_looked_for_before_it_is_needed() -> None:
    target = a_target(credentials_file="/nowhere/key.json")
    with pytest.raises(InputError, match=r"Bad Google login '/nowhere/key\.json'"):
        target.google_credentials(target.settings("cloud"))
