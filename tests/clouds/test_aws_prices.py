from __future__ import annotations

import pytest

from imageport.clouds.aws.prices import PRICES_AS_OF, estimate
from imageport.model import GIB


def test_blocks_cost_what_the_price_page_works_out():
    # 30 GiB of data: 61 440 blocks; AWS's own example prices a put at $0.006 per thousand.
    lines = {line.unit: line for line in estimate(30 * GIB, 64 * GIB) if line.unit == "blocks"}
    written = next(line for line in estimate(30 * GIB, 64 * GIB) if "written" in line.item)
    assert written.quantity == 61440
    assert written.usd == pytest.approx(0.3686, abs=1e-3)
    assert lines["blocks"].usd == pytest.approx(0.3686, abs=1e-3)  # two reads at half the price


def test_the_estimate_says_how_old_its_prices_are():
    assert any(PRICES_AS_OF in line.item for line in estimate(GIB, GIB))


def test_the_kept_parent_is_a_line_of_its_own():
    kept = {line.item: line for line in estimate(10 * GIB, 20 * GIB)}
    dropped = {line.item: line for line in estimate(10 * GIB, 20 * GIB, keep_parent=False)}
    parent = "parent kept for the next upload, each month"
    assert (kept[parent].quantity, kept[parent].usd) == (10.0, 0.5)
    assert (dropped[parent].quantity, dropped[parent].usd) == (0.0, 0.0)
    prepared = "prepared snapshot, each month"
    assert kept[prepared] == dropped[prepared]


def test_machines_are_told_in_minutes_and_the_way_out_by_its_price():
    lines = estimate(10 * GIB, 20 * GIB)
    assert [line.quantity for line in lines if line.unit == "minutes"] == [30.0, 30.0]
    (out,) = [line for line in lines if "outside AWS" in line.item]
    assert "$0.09 a GiB" in out.item
    assert (out.quantity, out.usd) == (10.0, 0.0)


def test_an_empty_image_costs_only_its_machines_and_volume():
    assert sum(line.usd for line in estimate(0, GIB)) < 0.11
