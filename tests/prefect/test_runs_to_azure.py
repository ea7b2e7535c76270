"""The same job to Azure, on the site that also has AWS: chosen by the run, not by the site."""

from __future__ import annotations

import shutil

import pytest

from imageport.model import GenerationRole
from imageport.sandbox.azure.account import LOCATION, RESOURCE_GROUP, SUBSCRIPTION
from imageport.sandbox.site_facts import REGION, TARGET_BLOCKS, place_of
from tests.prefect.running_site import IMAGE, RunningSite, saved

pytestmark = [pytest.mark.prefect, pytest.mark.guest, pytest.mark.slow]
AZURE = saved(TARGET_BLOCKS["azure"])
NAME = "azure-gold"


@pytest.mark.timeout(1600)
def test_a_run_to_azure_publishes_and_leaves_only_what_the_catalogue_has(
    running_site: RunningSite,
) -> None:
    run = running_site.start("pvs-to-pvs/onprem", image=IMAGE, cloud=AZURE, publish_name=NAME)
    state = running_site.api.wait(run, 1500)
    assert (state.type, state.name) == ("COMPLETED", "Completed"), state.message
    generations = running_site.state().catalogue.list(target=place_of("azure"))
    assert [item.role for item in generations] == [GenerationRole.UPLOADED, GenerationRole.PREPARED]
    (publication,) = generations[1].publications
    assert (running_site.folder("target-store") / publication.file_name).exists()
    assert generations[1].details["composed"]
    assert running_site.leftovers("azure") == {}
    # AWS' own driver is in the payload, and belongs to AWS.
    children = running_site.api.child_runs(run)
    found = {item["key"]: item for item in running_site.api.artifacts([run, *children])}
    changes = str(found[f"changes-{IMAGE}"]["data"])
    assert "storvsc" in changes
    assert "ena.inf" not in changes.lower()


@pytest.mark.timeout(700)
def test_a_burst_to_azure_finds_it_ready(running_site: RunningSite) -> None:
    run = running_site.start("cloud-burst/cloud", image=IMAGE, cloud=AZURE, publish_name=NAME)
    state = running_site.api.wait(run, 600)
    assert (state.type, state.name) == ("COMPLETED", "AlreadyThere"), state.message


@pytest.mark.timeout(1200)
def test_a_cancelled_run_to_azure_leaves_nothing_after_two_minutes(
    running_site: RunningSite,
) -> None:
    store = running_site.folder("source-store")
    shutil.copyfile(store / f"{IMAGE}.vhdx", store / "azure-cancelled.vhdx")
    running_site.site.azure.turn(mib_per_second=0.5)
    try:
        run = running_site.start("pvs-to-pvs/onprem", image="azure-cancelled", cloud=AZURE)
        running_site.until(
            lambda: (
                running_site.progress_of(run, "upload") >= 3
                or running_site.api.state(run).is_terminal
            ),
            600,
        )
        assert running_site.leftovers("azure"), running_site.api.state(run).message
        running_site.api.cancel(run)
        assert running_site.api.wait(run, 90).type == "CANCELLED"
        running_site.until(lambda: running_site.leftovers("azure") == {}, 120)
    finally:
        running_site.site.azure.turn(mib_per_second=0.0)
    assert running_site.state().catalogue.list(image="azure-cancelled") == []


@pytest.mark.timeout(300)
def test_the_scheduled_janitor_looks_in_both_clouds(running_site: RunningSite) -> None:
    ledger = running_site.state().ledger
    scopes = (f"aws/{REGION}", f"azure/{LOCATION}/{SUBSCRIPTION}/{RESOURCE_GROUP}")
    planted = {
        ledger.intend("snapshot", f"{scope}/never-made", "ended", "cloud", -60.0).id
        for scope in scopes
    }
    run = running_site.api.start(
        "janitor/cloud", {"target": saved("imageport-site/cloud"), "cloud": None}
    )
    state = running_site.api.wait(run, 240)
    assert state.type == "COMPLETED", state.message
    # What was intended and never made is closed by a sweep of its own cloud, and by no other.
    assert not planted & {entry.id for entry in ledger.open_entries(site="cloud")}
