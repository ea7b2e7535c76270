"""Where the scheduled janitor looks: every saved target at which its site has anything."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blocks import AwsTarget, AzureTarget, GcpTarget, PvsStore, Site, SmbShare
from flows.janitor import _outcome
from flows.register import register_types
from imageport.model import GenerationRole
from imageport.state.records import Generation
from tasks._places import load_site
from tasks.catalogue import images_at, targets_of
from tasks.models import Route

pytestmark = [pytest.mark.prefect]
ID = "11111111-2222-3333-4444-555555555555"
AWS, AZURE = "imageport-aws-target/reach", "imageport-azure-target/reach"
GCP = "imageport-gcp-target/reach"
OURS = {AWS, AZURE, GCP}


@pytest.fixture(scope="module")
def _saved(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001 - needed first
    """Save the site and all targets once, which takes seconds; return the folder of its state."""
    register_types()
    folder = tmp_path_factory.mktemp("reach") / "state"
    share = SmbShare(host="127.0.0.1", port=1, share="store")
    block = Site(
        name="reach", work_pool="reach", store=PvsStore(share=share), state_folder=str(folder)
    )
    block.save("reach", overwrite=True)
    AwsTarget(region="eu-north-1").save("reach", overwrite=True)
    azure = {"subscription_id": ID, "resource_group": "vdi", "location": "swedencentral"}
    AzureTarget(**azure).save("reach", overwrite=True)
    gcp = {"project": "images-1", "region": "europe-north1", "zone": "europe-north1-a"}
    GcpTarget(**gcp, bucket="golden-images").save("reach", overwrite=True)
    return folder


@pytest.fixture
def site(_saved: Path) -> Iterator[str]:
    """A site that has nothing yet."""
    _saved.mkdir()
    yield "reach"
    shutil.rmtree(_saved)


def generation(target: str) -> Generation:
    return Generation(
        id="p-1", image="gold", target=target, role=GenerationRole.PREPARED,
        created="2026-01-01T00:00:00+00:00", size_bytes=8, source_key="k", image_digest="d",
        handle={"snapshot_id": "snap-1"},
    )  # fmt: skip


def looked_at(site: str) -> set[str]:
    return OURS & set(targets_of.fn(site))


def test_a_site_that_has_nothing_anywhere_is_looked_for_nowhere(site: str) -> None:
    assert looked_at(site) == set()


def test_what_the_catalogue_has_is_looked_at(site: str) -> None:
    with load_site(site).open_state() as state:
        state.catalogue.add(generation("azure/swedencentral/reach"))
    assert looked_at(site) == {AZURE}


def test_another_sites_images_are_that_sites_business(site: str) -> None:
    with load_site(site).open_state() as state:
        state.catalogue.add(generation("azure/swedencentral/other"))
    assert looked_at(site) == set()


def test_an_intent_without_an_image_is_enough_in_every_cloud(site: str) -> None:
    with load_site(site).open_state() as state:
        state.ledger.intend("volume", "aws/eu-north-1/0123", "run", "reach", 3600.0)
        token = f"azure/swedencentral/{ID}/vdi/4567"
        state.ledger.intend("disk", token, "run", "reach", 3600.0)
        token = "gcp/europe-north1/images-1/golden-images/89ab"
        state.ledger.intend("object", token, "run", "reach", 3600.0)
    assert looked_at(site) == OURS


def test_exported_machines_are_no_vdisks_that_could_be_brought_again(site: str) -> None:
    with load_site(site).open_state() as state:
        state.catalogue.add(generation("aws/eu-north-1/cloud"))
        master = replace(generation("aws/eu-north-1/cloud"), id="p-2", image="master")
        state.catalogue.add(master)
        exported = {"role": GenerationRole.SOURCE, "target": f"export/{site}"}
        state.catalogue.add(replace(master, id="s-1", **exported))
    route = Route(source=site, target="cloud", cloud=AWS, place="aws/eu-north-1/cloud")
    assert images_at.fn(route) == ["gold"]


def test_one_clouds_trouble_is_told_and_keeps_no_other_dirty() -> None:
    state: Any = _outcome([([], "imageport-aws-target/a: Cannot list."), (["disk d-1"], "")])
    assert state.is_failed()
    assert "Deleted 1: disk d-1" in state.message
    assert "imageport-aws-target/a: Cannot list." in state.message
    assert _outcome([([], ""), ([], "")]).message == "Deleted 0: nothing was left"
