"""The main job through Prefect: a real server, two workers, deployments and the REST API.

The tests follow each other on one site, as days at a site do: the first brings the image, the last
ask the doctor from the shell and from the site's own worker.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from imageport.model import MIB, GenerationRole
from imageport.sandbox.site_facts import TARGET_BLOCKS
from tests.prefect.running_site import IMAGE, RunningSite, saved

pytestmark = [pytest.mark.prefect, pytest.mark.guest]
LONG = 1500.0


@pytest.mark.timeout(1600)
def test_a_run_started_over_rest_publishes_the_prepared_image(running_site: RunningSite) -> None:
    run = running_site.start("pvs-to-pvs/onprem", image=IMAGE)
    state = running_site.api.wait(run, LONG)
    assert (state.type, state.name) == ("COMPLETED", "Completed"), state.message
    generations = running_site.state().catalogue.list(image=IMAGE, target=running_site.target)
    assert [item.role for item in generations] == [GenerationRole.UPLOADED, GenerationRole.PREPARED]
    (publication,) = generations[1].publications
    assert (running_site.folder("target-store") / publication.file_name).exists()
    assert running_site.leftovers() == {}


def test_the_publishing_run_worked_at_the_target_site(running_site: RunningSite) -> None:
    runs = running_site.runs("publish-to-store")
    assert runs[0]["work_pool_name"] == "cloud"
    assert runs[0]["state_type"] == "COMPLETED"


def test_artifacts_show_progress_and_what_was_changed(running_site: RunningSite) -> None:
    run = running_site.runs("pvs-to-pvs")[0]
    children = running_site.api.child_runs(run["id"])
    found = {item["key"]: item for item in running_site.api.artifacts([run["id"], *children])}
    for stage in ("preflight", "upload", "prepare", "publish"):
        assert found[f"{stage}-{IMAGE}"]["data"] == 100.0
    assert "GiB hold data" in str(found[f"found-{IMAGE}"]["data"])
    assert "ena" in str(found[f"changes-{IMAGE}"]["data"]).lower()
    assert f"{IMAGE}" in str(found[f"published-{IMAGE}"]["data"])


@pytest.mark.timeout(700)
def test_a_second_run_of_the_unchanged_image_moves_nothing(running_site: RunningSite) -> None:
    before = running_site.snapshots()
    run = running_site.start("pvs-to-pvs/onprem", image=IMAGE)
    state = running_site.api.wait(run, 600)
    assert (state.type, state.name) == ("COMPLETED", "AlreadyThere"), state.message
    assert state.message.startswith("Nothing had to move")
    assert running_site.snapshots() == before


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_a_burst_finds_the_image_ready_and_the_same_key_is_the_same_run(
    running_site: RunningSite,
) -> None:
    first = running_site.start("cloud-burst/cloud", key="burst-1", image=IMAGE)
    again = running_site.start("cloud-burst/cloud", key="burst-1", image=IMAGE)
    assert first == again
    state = running_site.api.wait(first, 600)
    assert (state.type, state.name) == ("COMPLETED", "AlreadyThere"), state.message
    alone = running_site.start("cloud-burst/cloud", image=IMAGE, compare_with_source=False)
    assert "not compared" in running_site.api.wait(alone, 300).message


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_prestaging_leaves_current_images_alone_and_says_which_failed(
    running_site: RunningSite,
) -> None:
    values = {
        "source": {"$ref": {"block_document_slug": "imageport-site/onprem"}},
        "destinations": [
            {
                "site": {"$ref": {"block_document_slug": "imageport-site/cloud"}},
                "cloud": {"$ref": {"block_document_slug": "imageport-aws-target/aws"}},
            }
        ],
        "images": [IMAGE, "not-there"],
        "options": {"drivers": ["aws/ena"]},
    }
    run = running_site.api.start("dr-prestage/onprem", values)
    state = running_site.api.wait(run, 600)
    assert (state.type, state.name) == ("COMPLETED", "PartiallyStaged"), state.message
    assert f"{IMAGE} to cloud: Nothing had to move" in state.message
    assert "not-there to cloud: Cannot" in state.message


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_a_run_whose_engine_works_at_the_site_sends_what_was_composed(
    running_site: RunningSite,
) -> None:
    options = {"drivers": ["aws/ena"], "list_of_ddcs": ["ddc9.cloud.example"]}
    run = running_site.start("pvs-to-pvs/onprem", image=IMAGE, engine="site", options=options)
    state = running_site.api.wait(run, LONG)
    assert (state.type, state.name) == ("COMPLETED", "Completed"), state.message
    catalogue = running_site.state().catalogue
    uploaded, prepared = (
        catalogue.latest(IMAGE, running_site.target, role)
        for role in (GenerationRole.UPLOADED, GenerationRole.PREPARED)
    )
    assert uploaded is not None
    assert prepared is not None
    assert uploaded.details["engine"] == prepared.details["engine"] == "site"
    assert prepared.parent_id == uploaded.id
    assert 0 < uploaded.details["stats"]["bytes_sent"] <= 16 * MIB  # of the raw upload before it
    children = running_site.api.child_runs(run)
    found = {item["key"]: item for item in running_site.api.artifacts([run, *children])}
    assert "## The guest" in str(found[f"found-{IMAGE}"]["data"])
    assert "ddc9.cloud.example" in str(found[f"changes-{IMAGE}"]["data"])
    assert running_site.leftovers() == {}


@pytest.mark.timeout(300)
def test_a_working_site_is_found_well_from_the_shell(running_site: RunningSite) -> None:
    command = [Path(sys.executable).with_name("imageport"), "doctor", "onprem", "--json"]
    done = subprocess.run(
        command, env=running_site.site.control.environment(), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    checks: dict[str, Any] = {item["name"]: item for item in json.loads(done.stdout)}
    bad = {name: item for name, item in checks.items() if not item["passed"]}
    assert {name for name, item in bad.items() if not item["optional"]} == set(), bad
    assert done.returncode == 0
    for reference in TARGET_BLOCKS.values():
        assert checks[reference]["found"] == "every action of a run is permitted"
    assert checks["work pool onprem, workers"]["found"] == "onprem-worker"
    assert checks["operator's files"]["found"] == "its digest is the pinned one"


@pytest.mark.timeout(400)
def test_a_missing_permission_is_told_by_the_sites_own_worker(running_site: RunningSite) -> None:
    action = "Microsoft.Compute/snapshots/beginGetAccess/action"
    running_site.site.azure.turn(denied=[action])
    values = {"site": saved("imageport-site/cloud"), "cloud": saved(TARGET_BLOCKS["azure"])}
    try:
        run = running_site.api.start("site-doctor/cloud", values)
        state = running_site.api.wait(run, 300)
    finally:
        running_site.site.azure.turn(denied=[])
    assert state.type == "FAILED"
    assert action in state.message
    (table,) = [item for item in running_site.api.artifacts([run]) if item["type"] == "table"]
    assert table["key"] == "doctor-cloud"
    (row,) = [row for row in json.loads(table["data"]) if row["what"] == action]
    assert "Grant Microsoft.Compute/snapshots/beginGetAccess/action" in row["how to mend it"]
    assert "/resourceGroups/imageport-lab" in row["how to mend it"]
