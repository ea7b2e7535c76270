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


def test_a_kept_parent_shows_in_the_monthly_line():
    kept = next(line for line in estimate(10 * GIB, 20 * GIB) if "month" in line.item)
    dropped = next(
        line for line in estimate(10 * GIB, 20 * GIB, keep_parent=False) if "month" in line.item
    )
    assert (kept.quantity, dropped.quantity) == (20.0, 10.0)
    assert kept.usd == pytest.approx(2 * dropped.usd)


def test_an_empty_image_costs_only_its_machines_and_volume():
    assert sum(line.usd for line in estimate(0, GIB)) < 0.11
