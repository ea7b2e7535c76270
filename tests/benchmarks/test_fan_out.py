"""One image of 4 GiB with 1 GiB of data from a real share to three targets: at once, against one
after another, in the same run.

The targets keep nothing and take as much a second as is said, as a cloud or the line to it does:
three emulators on this machine would measure its cores. Their traits are those of the three clouds.
Bytes and the ratio of the times are asserted, because the pace is set; the rest is printed.
``pytest tests/benchmarks -m slow -s`` shows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imageport.model import MIB
from imageport.sandbox.samba import SambaServer
from tests.benchmarks.contest import (
    NAME,
    SIZE_BYTES,
    run_contender,
    say,
    share,
    tell,
    tell_ratio,
    write_image,
)

SCRIPT = Path(__file__).with_name("fan_out_contender.py")
MOST_PEAK_MIB = 448
"""For three targets, without the clients of clouds; docs/fan-out.md says it."""


@pytest.fixture(scope="module")
def samba(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SambaServer]:
    with share(tmp_path_factory.mktemp("samba")) as server:
        yield server


@pytest.fixture(scope="module")
def allocated_bytes(samba: SambaServer) -> int:
    return write_image(samba)


def run(way: str, speeds: str, samba: SambaServer) -> dict[str, Any]:
    return run_contender(SCRIPT, way, speeds, samba.location("store"), NAME)


@pytest.mark.benchmark
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("speeds", "most_share"), [("60,60,60", 0.5), ("60,30,60", 0.6)], ids=["alike", "one-slow"]
)
def test_three_targets_at_once_cost_one_read_and_the_time_of_the_slowest(
    samba: SambaServer, allocated_bytes: int, speeds: str, most_share: float
) -> None:
    slowest = speeds.split(",").index(min(speeds.split(","), key=float))
    one = run(str(slowest), speeds, samba)
    fan_out = run("fan-out", speeds, samba)
    sequence = run("sequence", speeds, samba)
    say(f"allocated  {allocated_bytes / MIB:12.0f} MiB of {SIZE_BYTES / MIB:.0f}; {speeds} MiB/s")
    tell("slowest", one)
    tell("fan-out", fan_out)
    tell("sequence", sequence)
    tell_ratio("sequence", sequence, fan_out)
    say("")
    assert fan_out["targets"] == sequence["targets"] == 3
    assert fan_out["digests"] == sequence["digests"] == one["digests"]
    assert len(one["digests"]) == 1
    assert fan_out["sent_bytes"] == sequence["sent_bytes"]
    assert fan_out["read_bytes"] <= 1.05 * one["read_bytes"]
    assert sequence["read_bytes"] >= 2.95 * one["read_bytes"]
    assert fan_out["seconds"] < most_share * sequence["seconds"]
    assert fan_out["peak_mib"] < MOST_PEAK_MIB


@pytest.mark.benchmark
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_three_targets_without_a_limit_at_once_against_one_after_another(
    samba: SambaServer, allocated_bytes: int
) -> None:
    """What is left is the share and this machine's cores: nothing is claimed of the time."""
    fan_out, sequence = (run(way, "9e9,9e9,9e9", samba) for way in ("fan-out", "sequence"))
    say(f"allocated  {allocated_bytes / MIB:12.0f} MiB; no limit")
    tell("fan-out", fan_out)
    tell("sequence", sequence)
    tell_ratio("sequence", sequence, fan_out)
    say("")
    assert fan_out["read_bytes"] <= allocated_bytes * 1.05
    assert fan_out["digests"] == sequence["digests"]
