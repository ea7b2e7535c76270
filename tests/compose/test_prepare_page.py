"""``docs/prepare.md`` names every step, option, reason to refuse and verdict item, no others."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from imageport.compose import refusals
from imageport.compose.cloud_target import TARGETS
from imageport.compose.contract import EngineOptions
from imageport.compose.first_boot.plan import MAX_STEPS
from imageport.compose.steps.order import STEPS
from imageport.compose.verdict.judge import CHECKS

PAGE = (Path(__file__).parents[2] / "docs" / "prepare.md").read_text(encoding="utf-8")
PAYLOAD_CODES = {"driver_incomplete", "payload_missing"}


def table(heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading."""
    section = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip().strip("`") for cell in row] for row in rows]


def test_every_step_is_told_with_its_tier_in_order() -> None:
    assert [(row[0], row[1]) for row in table("Steps")] == [(s.name, str(s.tier)) for s in STEPS]


def test_every_option_is_told() -> None:
    assert [row[0] for row in table("Options")] == [item.name for item in fields(EngineOptions)]


def test_every_reason_to_refuse_is_told() -> None:
    told = [row[0] for row in table("Reasons to refuse")]
    assert sorted(told) == sorted(set(refusals._HINTS) | PAYLOAD_CODES)


def test_every_verdict_item_is_told() -> None:
    told = [row[0] for row in table("The readiness verdict")]
    assert sorted(told) == sorted({check.name for check in CHECKS})


def test_the_bounds_and_defaults_are_those_of_the_code() -> None:
    defaults = {row[0]: row[1] for row in table("Options")}
    options = EngineOptions()
    assert defaults["first_boot_deadline_seconds"] == str(options.first_boot_deadline_seconds)
    assert defaults["first_boot_attempts"] == str(options.first_boot_attempts)
    assert re.search(rf"less than {refusals.MIN_FREE_BYTES // 2**20} MiB", PAGE)
    assert re.search(rf"more than {MAX_STEPS} steps", PAGE)


def test_what_third_generation_machines_need_is_told_by_its_id() -> None:
    (gvnic,) = [name for name in TARGETS["gcp"].nic_ids if "VEN_1AE0" in name]
    assert f"`{gvnic}` in `required_nic_ids`" in PAGE


GUIDES = {"Azure": 27, "Google Cloud": 17, "AWS": 14}
"""How many points each cloud's guides have."""
TIERS = {"required", "recommended", "checked", "not done", "never", "elsewhere"}


def points(cloud: str) -> list[list[str]]:
    """Return the cells of the table of a cloud's guides."""
    section = PAGE.split(f"## {cloud}: what its guides ask for, and what is done\n", 1)[1]
    lines = [line for line in section.split("\n## ", 1)[0].splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


@pytest.mark.parametrize("cloud", GUIDES)
def test_every_point_of_a_clouds_guides_is_told_with_its_tier_and_a_reason(cloud: str) -> None:
    rows = points(cloud)
    assert {int(row[0]) for row in rows} == set(range(1, GUIDES[cloud] + 1))
    assert {"required", "recommended", "never"} <= {row[2] for row in rows} <= TIERS
    assert all(len(row) == 4 and row[3] for row in rows)
    assert [int(row[0]) for row in rows] == sorted(int(row[0]) for row in rows)


@pytest.mark.parametrize("cloud", GUIDES)
def test_a_point_that_names_a_step_has_the_steps_tier_and_is_for_that_cloud(cloud: str) -> None:
    steps = {step.name: step for step in STEPS}
    word = {"Google Cloud": "gcp"}.get(cloud, cloud.lower())
    for row in points(cloud):
        named = re.match(r"`(\w+)`", row[3])
        if named and named[1] in steps:
            assert row[2] == str(steps[named[1]].tier), row
            assert steps[named[1]].is_for(word), row


@pytest.mark.parametrize("cloud", GUIDES)
def test_a_point_that_says_checked_names_a_refusal_or_a_verdict_item(cloud: str) -> None:
    known = set(refusals._HINTS) | {check.name for check in CHECKS}
    for row in points(cloud):
        if row[2] == "checked":
            assert known & set(re.findall(r"`(\w+)`", row[3])), row
