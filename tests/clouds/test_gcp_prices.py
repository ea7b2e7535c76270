from __future__ import annotations

from typing import Any

import pytest

from imageport.clouds.gcp.prices import (
    PRICES_AS_OF,
    USD_PER_DISK_GIB_MONTH,
    class_a_operations,
    estimate,
    usd_per_disk_gib_month,
)
from imageport.clouds.gcp.settings import GcpSettings
from imageport.model import GIB


def settings(**changes: Any) -> GcpSettings:
    known = {
        "project": "images-1",
        "region": "us-central1",
        "zone": "us-central1-a",
        "bucket": "b-1",
    }
    return GcpSettings(**(known | changes))


def lines(data_gib: float = 30, size_gib: int = 64, **changes: Any):
    return estimate(settings(**changes), int(data_gib * GIB), size_gib * GIB)


def line(needle: str, data_gib: float = 30, size_gib: int = 64, **changes: Any):
    (found,) = [item for item in lines(data_gib, size_gib, **changes) if needle in item.item]
    return found


def test_an_upload_of_segments_writes_one_object_for_every_block():
    # 61440 blocks; listed twice, in 16 lists of pages of 1000; joined by 1921 + 61 + 2 + 1 calls.
    assert class_a_operations(61440, 61440) == 61440 + 2 * (16 + 62) + 1921 + 61 + 2 + 1 + 4
    assert line("segments written").quantity == class_a_operations(61440, 61440)
    assert line("segments written").usd == pytest.approx(0.3179, abs=1e-4)


def test_a_delta_pays_for_what_it_sends_and_for_composing_the_whole():
    whole, delta = class_a_operations(61440, 61440), class_a_operations(614, 61440)
    assert whole - delta == 61440 - 614
    assert delta < whole / 20


def test_a_stream_takes_hardly_any_operation_and_leaves_no_block_of_the_upload():
    assert line("one archive", archive="stream").quantity == 3
    assert line("blocks in the bucket", 10, archive="stream").quantity == 10.0
    assert line("blocks in the bucket", 10).quantity == 11.0


def test_a_prepared_disk_is_written_whole_where_a_stream_left_no_blocks():
    assert line("prepared disk: blocks written").quantity == 6144
    assert line("prepared disk: blocks written", archive="stream").quantity == 61440


def test_reading_is_counted_by_blocks_once_to_verify_and_once_to_publish():
    assert line("blocks read").quantity == 2 * 61440
    assert line("blocks read").usd == pytest.approx(0.0492, abs=1e-4)


def test_a_disk_is_paid_by_its_whole_size_and_type():
    assert line("working disk pd-balanced").quantity == 128.0
    assert line("working disk").usd == pytest.approx(128 * 0.1 / 730, abs=1e-4)
    dear = line("working disk", disk_type="pd-ssd")
    assert dear.usd > line("working disk").usd


def test_an_unknown_kind_of_disk_is_never_estimated_too_low():
    assert usd_per_disk_gib_month("hyperdisk-extreme") == max(USD_PER_DISK_GIB_MONTH.values())


def test_the_machine_that_writes_blocks_runs_as_long_as_the_disk_takes_to_read():
    small, large = (line("machine that writes", 1, size).quantity for size in (10, 1000))
    assert small == pytest.approx(2 + 10 * 1024 / 6000, abs=0.01)
    assert large > 90 * small / 2


def test_the_estimate_says_how_old_its_prices_are_and_that_no_windows_licence_is_in_it():
    assert PRICES_AS_OF in line("segments written").item
    assert "no Windows licence" in line("boot machine").item


def test_a_kept_parent_shows_in_the_monthly_line():
    kept, dropped = line("images kept", 10, 20), line("images kept", 10, 20, keep_parent=False)
    assert (kept.quantity, dropped.quantity) == (20.0, 10.0)
    assert "parent" in kept.item
    assert "parent" not in dropped.item


def test_a_stopped_machine_beside_the_image_costs_its_disk():
    assert not [item for item in lines() if "stopped machine" in item.item]
    assert line("stopped machine", keep_stopped_vm=True).usd == pytest.approx(6.4)


def test_what_leaves_google_cloud_is_told_by_the_gibibyte_and_never_added_up():
    told = line("outside Google Cloud", data_gib=10)
    assert (told.quantity, told.unit, told.usd) == (10.0, "GiB", 0.0)
    assert "$0.12" in told.item


def test_an_empty_image_costs_only_its_machines_and_disk():
    assert sum(item.usd for item in lines(0, 1)) < 0.12
