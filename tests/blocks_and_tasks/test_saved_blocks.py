"""Blocks as a server keeps them: nested ones come back whole and typed, and tasks get names."""

from pathlib import Path

import pytest
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client

from blocks import AwsTarget, PvsStore, Site, VsphereConnection
from flows._hand_over import reference
from flows.register import register_types, save_blocks
from imageport.errors import InputError
from imageport.sandbox.site_facts import SiteFacts, SourceStore, block_documents
from imageport.storage.smb_location import SmbLocation
from tasks._places import load_site, load_target, route_between

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]
SECRET = "Pa55-in-the-open"


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> SiteFacts:
    return SiteFacts(
        root=str(tmp_path_factory.mktemp("site")), ui_url="", api_url="", api_auth="",
        smb_port=4450, smb_user="u", smb_password=SECRET, aws_endpoint="http://127.0.0.1:1",
        subnet_id="subnet-1", payload_sha256="0" * 64, azure_endpoint="http://127.0.0.1:2",
        vcenter_port=4443, vcenter_user="exporter", vcenter_password=SECRET,
        vcenter_thumbprint="AB" * 32,
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _saved(prefect_server: None, facts: SiteFacts) -> None:  # noqa: ARG001 - needed first
    register_types()
    save_blocks(block_documents(facts))


def test_the_embedded_sites_blocks_come_back_as_they_were_given(facts: SiteFacts) -> None:
    source, target = load_site("onprem"), load_site("cloud")
    assert isinstance(source.store, PvsStore)
    assert source.store.location == "smb://127.0.0.1:4450/source-store"
    assert source.store.share.credentials().password == SECRET
    assert target.store.location == "smb://127.0.0.1:4450/target-store"
    assert target.payload_folder == ""
    assert source.exports is not None
    assert source.exports.location == "smb://127.0.0.1:4450/exports"
    assert target.exports is None
    assert source.payload_folder == str(Path(facts.root, "payload"))


def test_a_hypervisor_comes_back_as_its_own_kind() -> None:
    found = Block.load("imageport-vsphere/vcenter")
    assert type(found) is VsphereConnection
    assert found.location == "127.0.0.1:4443"
    assert SECRET not in repr(found)


def test_a_target_comes_back_with_its_own_kind_of_credentials() -> None:
    target = load_target("imageport-aws-target/aws")
    assert type(target) is AwsTarget
    assert type(target.credentials).__name__ == "AwsCredentials"
    assert target.settings("cloud").endpoint_url == "http://127.0.0.1:1"


def test_what_the_server_shows_without_asking_holds_no_secret() -> None:
    with get_client(sync_client=True) as client:
        shown = client.read_block_documents(include_secrets=False)
    assert shown
    assert SECRET not in repr([document.model_dump_json() for document in shown])


def test_tasks_get_names_and_a_place() -> None:
    source, target = load_site("onprem"), load_site("cloud")
    cloud = load_target("imageport-aws-target/aws")
    route = route_between(source, target, cloud)
    assert route.model_dump() == {
        "source": "onprem",
        "target": "cloud",
        "cloud": "imageport-aws-target/aws",
        "place": "aws/eu-central-1/cloud",
        "exports": False,
    }
    assert reference(source) == {"$ref": {"block_document_slug": "imageport-site/onprem"}}


def test_a_block_that_is_not_saved_cannot_be_passed_on() -> None:
    with pytest.raises(InputError, match="not saved"):
        reference(AwsTarget(region="eu-central-1"))


@pytest.mark.parametrize("name", ["nowhere", ""])
def test_a_site_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(InputError, match="Cannot load the Site block"):
        load_site(name)


def test_a_block_of_another_kind_is_no_target() -> None:
    with pytest.raises(InputError, match="no target block"):
        load_target("imageport-site/onprem")


def test_site_blocks_are_sites() -> None:
    assert type(load_site("cloud")) is Site


def test_saving_again_replaces(facts: SiteFacts) -> None:
    """The last of this file: what it saves stays."""
    store = SourceStore(SmbLocation.parse("smb://files/vdisks/pvs"), "svc", "CORP", "MY_PASSWORD")
    names = {"source-store", "onprem"}
    save_blocks([found for found in block_documents(facts, store) if found["name"] in names])
    share = load_site("onprem").store.share
    assert share.location == "smb://files/vdisks/pvs"
    assert (share.password, share.password_variable) == (None, "MY_PASSWORD")
