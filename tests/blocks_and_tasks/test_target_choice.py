"""A run's ``cloud`` is a saved target of any kind: a real server and flow engine tell which."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect_aws import AwsCredentials
from prefect_gcp import GcpCredentials

from blocks import AwsTarget, AzureCredentials, AzureTarget, CloudTarget, GcpTarget
from flows._checked import checked_flow
from flows._destinations import Destination
from flows.pvs_to_pvs import pvs_to_pvs
from flows.register import register_types
from tasks._places import load_target, saved_targets

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("_saved")]
AWS_SECRET, AZURE_SECRET = "aws-Pa55-in-the-open", "azure-Pa55-in-the-open"
GCP_SECRET = "gcp-Pa55-in-the-open"
ID = "11111111-2222-3333-4444-555555555555"


def service_account_key() -> dict[str, str]:
    """Return the document of a key; its id stands for all of it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return {
        "type": "service_account",
        "project_id": "images-1",
        "private_key_id": GCP_SECRET,
        "private_key": key.private_bytes(*private, serialization.NoEncryption()).decode(),
        "client_email": "worker@images-1.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    }


@pytest.fixture(scope="module")
def _saved(prefect_server: None) -> None:  # noqa: ARG001 - needed first
    register_types()
    keys = AwsCredentials(aws_access_key_id="key", aws_secret_access_key=AWS_SECRET)
    keys.save("choice", overwrite=True)
    AwsTarget(region="eu-central-1", credentials=keys).save("choice", overwrite=True)
    principal = AzureCredentials(
        kind="service_principal", tenant_id=ID, client_id=ID, client_secret=AZURE_SECRET
    )
    principal.save("choice", overwrite=True)
    AzureTarget(
        subscription_id=ID,
        resource_group="vdi",
        location="germanywestcentral",
        credentials=principal,
    ).save("choice", overwrite=True)
    key = GcpCredentials(service_account_info=service_account_key())
    key.save("choice", overwrite=True)
    GcpTarget(
        project="images-1", region="europe-west3", zone="europe-west3-a", bucket="golden",
        credentials=key,
    ).save("choice", overwrite=True)  # fmt: skip


def reference(slug: str) -> dict[str, Any]:
    return {"$ref": {"block_document_slug": slug}}


def by_id(slug: str) -> dict[str, Any]:
    kind, _, name = slug.partition("/")
    with get_client(sync_client=True) as client:
        found = client.read_block_document_by_name(name, kind)
    return {"$ref": {"block_document_id": str(found.id)}}


def secret_of(cloud: CloudTarget) -> str:
    if isinstance(cloud, GcpTarget):
        info = cloud.credentials.service_account_info.get_secret_value()
        return str(info["private_key_id"])
    if isinstance(cloud, AzureTarget):
        return cloud.credentials.client_secret.get_secret_value()
    return str(cloud.credentials.aws_secret_access_key.get_secret_value())


@flow
def shown(cloud: CloudTarget) -> str:
    return f"{type(cloud).__name__} {type(cloud.credentials).__name__} {secret_of(cloud)}"


@flow
def shown_all(destinations: list[CloudTarget]) -> list[str]:
    return [type(cloud).__name__ for cloud in destinations]


AWS, AZURE = "imageport-aws-target/choice", "imageport-azure-target/choice"
GCP = "imageport-gcp-target/choice"
EXPECTED = {
    AWS: f"AwsTarget AwsCredentials {AWS_SECRET}",
    AZURE: f"AzureTarget AzureCredentials {AZURE_SECRET}",
    GCP: f"GcpTarget GcpCredentials {GCP_SECRET}",
}


@pytest.mark.parametrize("slug", [AWS, AZURE, GCP])
@pytest.mark.parametrize("referred", [reference, by_id], ids=["by-name", "by-id"])
def test_a_saved_target_arrives_as_its_own_class_with_its_credentials(
    slug: str, referred: Any
) -> None:
    assert shown(cloud=referred(slug)) == EXPECTED[slug]


def test_a_list_may_name_all_kinds() -> None:
    assert shown_all(destinations=[reference(AZURE), reference(GCP), reference(AWS)]) == [
        "AzureTarget",
        "GcpTarget",
        "AwsTarget",
    ]


@pytest.mark.parametrize("slug", [AWS, AZURE, GCP])
def test_a_task_loads_the_class_that_the_slug_names(slug: str) -> None:
    target = load_target(slug)
    assert type(target).__name__ == EXPECTED[slug].split()[0]
    assert type(target.credentials).__name__ == EXPECTED[slug].split()[1]


@pytest.mark.parametrize(
    ("kind", "secret"),
    [("imageport-azure-target", AZURE_SECRET), ("imageport-gcp-target", GCP_SECRET)],
)
def test_a_saved_target_shows_no_secret_unasked(kind: str, secret: str) -> None:
    with get_client(sync_client=True) as client:
        document = client.read_block_document_by_name("choice", kind, include_secrets=False)
    assert secret not in document.model_dump_json()


def test_every_saved_target_is_found_whatever_its_cloud() -> None:
    assert {AWS, AZURE, GCP} <= set(saved_targets())


@pytest.mark.parametrize(
    ("cloud", "found"),
    [
        (
            reference("imageport-azure-target/nowhere"),
            "imageport-azure-target/nowhere', which",
        ),
        (reference("imageport-azure-targt/choice"), "imageport-azure-targt/choice', which is no"),
        (reference("nonsense"), "nonsense', which is no saved block"),
        (reference("imageport-azure-credentials/choice"), "imageport-azure-credentials/choice', n"),
    ],
    ids=["name", "slug", "neither", "another-kind"],
)
def test_a_wrong_target_is_named_and_nothing_runs(cloud: dict[str, Any], found: str) -> None:
    ran = []

    @checked_flow(name="refused")
    def refused(cloud: CloudTarget, target: AwsTarget | None = None) -> None:
        ran.append((cloud, target))

    state: Any = refused(cloud=cloud, target=reference(AWS), return_state=True)
    assert state.is_failed()
    assert f"Bad cloud: found '{found}" in state.message
    assert "needed" in state.message
    assert "imageport-azure-target/NAME" in state.message
    assert "target: " not in state.message
    assert AWS_SECRET not in state.message
    assert ran == []


def test_a_wrong_block_of_a_destination_is_named_with_its_place_in_the_list() -> None:
    @checked_flow(name="refused-destinations")
    def refused(destinations: list[Destination]) -> None:
        raise AssertionError(destinations)

    places = [
        {"site": reference(GCP), "cloud": reference(AWS)},
        {"site": reference("imageport-site/nowhere"), "cloud": reference("imageport-site/a")},
    ]
    state: Any = refused(destinations=places, return_state=True)
    assert state.is_failed()
    told = state.message.partition("ParameterTypeError: ")[2].splitlines()
    assert [line.partition(", needed")[0] for line in told] == [
        f"Bad destinations[0].site: found '{GCP}'",
        "Bad destinations[1].site: found 'imageport-site/nowhere', which is no saved block",
        "Bad destinations[1].cloud: found 'imageport-site/a', which is no saved block",
    ]


@pytest.mark.parametrize("cloud", [AWS, AZURE, GCP])
def test_the_server_takes_every_target_for_a_deployment(cloud: str) -> None:
    schema = pvs_to_pvs.parameters.model_dump_for_openapi()
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(pvs_to_pvs)
        deployment = client.create_deployment(
            flow_id, name=f"choice-{cloud[:13]}", parameter_openapi_schema=schema,
            enforce_parameter_schema=True,
        )  # fmt: skip
        values = {"source": reference("imageport-site/a"), "target": reference("imageport-site/b")}
        run = client.create_flow_run_from_deployment(
            deployment, parameters={**values, "cloud": reference(cloud), "image": "gold"}
        )
    assert run.parameters["cloud"] == reference(cloud)


def test_what_is_no_block_at_all_is_refused_by_the_server() -> None:
    with get_client(sync_client=True) as client:
        schema = pvs_to_pvs.parameters.model_dump_for_openapi()
        deployment = client.create_deployment(
            client.create_flow(pvs_to_pvs), name="choice-none", parameter_openapi_schema=schema,
            enforce_parameter_schema=True,
        )  # fmt: skip
        sites = {"source": reference("imageport-site/a"), "target": reference("imageport-site/b")}
        with pytest.raises(PrefectHTTPStatusError, match="cloud"):
            client.create_flow_run_from_deployment(
                deployment, parameters={**sites, "cloud": AZURE, "image": "gold"}
            )
