"""The doctor on a site that works: from this shell, and from the site's own worker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from imageport.sandbox.site_facts import TARGET_BLOCKS
from tests.prefect.running_site import RunningSite, saved

pytestmark = [pytest.mark.prefect]


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
