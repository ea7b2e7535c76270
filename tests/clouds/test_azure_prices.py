from __future__ import annotations

import pytest

from imageport.clouds.azure.prices import (
    PRICES_AS_OF,
    TIER_GIB,
    USD_PER_DISK_MONTH,
    disk_usd_per_month,
    estimate,
)
from imageport.model import GIB


def line(needle: str, data_gib: float = 30, size_gib: int = 64, **options: bool | str):
    lines = estimate(int(data_gib * GIB), size_gib * GIB, **options)  # type: ignore[arg-type]
    (found,) = [item for item in lines if needle in item.item]
    return found


def test_pages_are_counted_by_requests_of_four_mebibytes():
    assert line("written").quantity == 7680
    assert line("pages read").quantity == 15360
    assert line("written").usd == pytest.approx(7680 * 0.0005 / 10_000, abs=1e-4)


def test_an_upload_costs_hours_of_a_standard_hdd_whatever_the_working_disk_is():
    # 30 GiB at 60 MiB/s is 8.5 min: one hour of an S6 (64 GiB).
    assert line("upload disk").quantity == 1.0
    assert line("upload disk").usd == pytest.approx(3.01 / 730, abs=1e-4)
    assert line("upload disk", disk_sku="Premium_LRS") == line("upload disk")
    # 500 GiB is 2.4 h.
    assert line("upload disk", data_gib=500, size_gib=512).quantity == 3.0


@pytest.mark.parametrize(
    ("size_gib", "tier"), [(1, 0), (32, 0), (33, 1), (64, 1), (127, 2), (4095, 7), (40_000, 10)]
)
def test_a_disk_costs_the_smallest_tier_that_holds_it(size_gib: int, tier: int):
    assert (
        disk_usd_per_month("Standard_LRS", size_gib * GIB)
        == (USD_PER_DISK_MONTH["Standard_LRS"][tier])
    )


def test_every_kind_of_disk_has_a_price_for_every_tier():
    for prices in USD_PER_DISK_MONTH.values():
        assert len(prices) == len(TIER_GIB)
        assert list(prices) == sorted(prices)


def test_an_unknown_kind_of_disk_is_never_estimated_too_low():
    assert disk_usd_per_month("PremiumV2_LRS", 64 * GIB) == disk_usd_per_month(
        "Premium_LRS", 64 * GIB
    )


def test_the_estimate_says_how_old_its_prices_are_and_that_no_windows_licence_is_in_it():
    assert PRICES_AS_OF in line("written").item
    assert line("engine machine").unit == "minutes"
    assert "no Windows licence" in line("boot machine").item


def test_a_kept_parent_shows_in_the_monthly_line():
    kept, dropped = line("month", 10, 20), line("month", 10, 20, keep_parent=False)
    assert (kept.quantity, dropped.quantity) == (20.0, 10.0)
    assert kept.usd == pytest.approx(2 * dropped.usd)
    assert "parent" in kept.item
    assert "parent" not in dropped.item


def test_what_leaves_azure_is_told_by_the_gibibyte_and_never_added_up():
    told = line("outside Azure", data_gib=10)
    assert (told.quantity, told.unit, told.usd) == (10.0, "GiB", 0.0)
    assert "$0.087" in told.item


def test_an_empty_image_costs_only_its_machines_and_disks():
    assert sum(item.usd for item in estimate(0, GIB)) < 0.12
