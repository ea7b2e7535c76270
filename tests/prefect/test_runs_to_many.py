"""One image to two clouds by one run of a real worker: one reading, and one that fails."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from imageport.model import GenerationRole
from imageport.sandbox.prefect_api import RunState
from imageport.sandbox.site_facts import TARGET_BLOCKS, place_of
from tests.prefect.running_site import IMAGE, RunningSite, saved

pytestmark = [pytest.mark.prefect, pytest.mark.guest, pytest.mark.slow]
NAME = "to-many"
CLOUDS = ("aws", "gcp")
DESTINATIONS = [
    {
        "site": saved("imageport-site/cloud"),
        "cloud": saved(TARGET_BLOCKS[cloud]),
        "suffix": f"-{cloud}",
    }
    for cloud in CLOUDS
]


def roles_at(running_site: RunningSite, cloud: str) -> list[GenerationRole]:
    found = running_site.state().catalogue.list(image=NAME, target=place_of(cloud))
    return [item.role for item in found]


def started(running_site: RunningSite) -> str:
    places = {"source": saved("imageport-site/onprem"), "destinations": DESTINATIONS}
    return running_site.api.start("fan-out/onprem", {**places, "image": NAME})


def table_of(running_site: RunningSite, run: str) -> tuple[dict[str, dict[str, Any]], str]:
    """Return the report's rows by target, and the sentence that stands with them."""
    (table,) = (item for item in running_site.api.artifacts([run]) if item["type"] == "table")
    rows = {row["target"]: row for row in json.loads(table["data"])}
    return rows, str(table["description"])


def ended(state: RunState) -> tuple[str, str]:
    return state.type, state.name


@pytest.mark.timeout(1600)
def test_a_target_that_fails_late_stops_no_other_and_the_source_is_read_once(
    running_site: RunningSite,
) -> None:
    store = running_site.folder("source-store")
    shutil.copyfile(store / f"{IMAGE}.vhdx", store / f"{NAME}.vhdx")
    run = started(running_site)
    running_site.until(
        lambda: roles_at(running_site, "gcp") or running_site.api.state(run).is_terminal, 900
    )
    try:
        running_site.site.gcp.turn(denied=["compute.instances.create"])  # after preflight
        state = running_site.api.wait(run, 1500)
    finally:
        running_site.site.gcp.turn(denied=[])
    assert ended(state) == ("FAILED", "PartiallyPublished"), state.message
    assert "compute.instances.create" in state.message
    rows, sentence = table_of(running_site, run)
    outcomes = {target: row["outcome"] for target, row in rows.items()}
    assert outcomes == {place_of("aws"): "published", place_of("gcp"): "failed"}
    assert roles_at(running_site, "aws") == [GenerationRole.UPLOADED, GenerationRole.PREPARED]
    assert roles_at(running_site, "gcp") == [GenerationRole.UPLOADED]
    assert (running_site.folder("target-store") / f"{NAME}-aws.vhdx").exists()
    assert not (running_site.folder("target-store") / f"{NAME}-gcp.vhdx").exists()
    read = rows[place_of("aws")]["MiB read"]
    assert read > 0
    assert f"{read} MiB read for 2 targets" in sentence
    assert running_site.leftovers() == {}


@pytest.mark.timeout(1600)
def test_started_again_it_brings_only_what_is_missing(running_site: RunningSite) -> None:
    run = started(running_site)
    state = running_site.api.wait(run, 1500)
    assert ended(state) == ("COMPLETED", "Completed"), state.message
    rows, sentence = table_of(running_site, run)
    outcomes = {target: row["outcome"] for target, row in rows.items()}
    assert outcomes == {place_of("aws"): "already there", place_of("gcp"): "published"}
    assert {row["MiB sent"] for row in rows.values()} == {0}
    assert "0 MiB read for 2 targets" in sentence
    assert (running_site.folder("target-store") / f"{NAME}-gcp.vhdx").exists()
