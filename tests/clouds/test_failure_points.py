"""Wherever a run is killed, one sweep later nothing of it is left: no resource, no open entry."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imageport.cloud import Cloud
from imageport.clouds import engine_setup
from imageport.clouds.sweep import sweep
from imageport.compose.contract import Action, EngineDisk, EngineJob
from imageport.errors import CloudError
from imageport.model import BLOCK_BYTES
from tests.clouds.cloud_contract import BLOCKS, GUID, SITE, Killed, block, in_days, uploaded
from tests.clouds.failure_points import Wire, spread, tapped_wire
from tests.clouds.stand_in_engine import build_stand_in
from tests.clouds.stand_in_guest import guest_of

# A thread that is killed with its process has nobody to tell.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception in thread LROPoller:pytest.PytestUnhandledThreadExceptionWarning"
)
CLOUDS = ("aws", "azure", "gcp")
SHORT_POINTS = 6
RUN = "doomed"


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_setup, "build_engine", build_stand_in)


@pytest.fixture
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The account of a cloud, whose guests shut down at once."""
    found: Any = request.getfixturevalue(f"{request.param}_lab")
    guest_of(found.service, tmp_path)("work")
    found.service.turn(state_seconds=0.02)
    return found


@pytest.fixture
def wire() -> Iterator[Wire]:
    with tapped_wire() as tapped:
        yield tapped


def whole_run(cloud: Cloud) -> None:
    """Everything that a run makes, in the order in which it makes it."""
    first = uploaded(cloud, BLOCKS, token="u-1")
    changed = {3: block(33), 9: block(9)}
    second = uploaded(cloud, changed, token="u-2", parent=first)
    disk = cloud.make_disk(second, GUID)
    job = EngineJob(action=Action.COMPOSE, disk=EngineDisk(path="", disk_guid=GUID))
    assert cloud.run_engine(disk, job, deadline_seconds=60).ok
    assert cloud.boot_once(disk, deadline_seconds=60).stopped_by_itself
    prepared = cloud.snapshot(disk, "P")
    with cloud.open_snapshot(prepared) as opened:
        opened.read_at(0, BLOCK_BYTES)
    cloud.delete_disk(disk)


def requests_of_a_run(lab: Any, wire: Wire) -> int:
    wire.requests = 0
    whole_run(lab.cloud("counted"))
    count = wire.requests
    assert left_after_a_sweep(lab) == []
    return count


def killed_run(lab: Any, wire: Wire, number: int, *, after: bool) -> None:
    cloud = lab.cloud(RUN)
    try:
        # How often a state is polled differs: a run with fewer requests ends alive.
        with wire.dying_at(number, after=after):
            try:
                whole_run(cloud)
            except Killed:
                pass
            except Exception:
                # Microsoft's client polls in a thread of its own: where that one dies, ours goes
                # on for a moment with no answer, until its next request.
                if not wire.is_dead:
                    raise
    finally:
        with contextlib.suppress(Killed):
            cloud.close()


def left_after_a_sweep(lab: Any) -> list[str]:
    """Sweep as the janitor does, again where a state was in mid-change; return what is left."""
    for attempt in range(3):
        try:
            sweep(lab.cloud("sweep"), lab.state, SITE, in_days(2))
        except CloudError:
            if attempt == 2:
                raise
            continue
        break
    entries = [f"ledger: {entry.kind} {entry.token}" for entry in lab.state.ledger.open_entries()]
    return entries + lab.everything()


@pytest.mark.slow  # dying threads of a client library have been seen to hang a run of it
@pytest.mark.timeout(300)
@pytest.mark.parametrize("lab", CLOUDS, indirect=True)
def test_a_run_killed_at_some_requests_leaves_nothing_after_the_sweep(lab: Any, wire: Wire):
    count = requests_of_a_run(lab, wire)
    for turn, number in enumerate(spread(count, SHORT_POINTS)):
        killed_run(lab, wire, number, after=bool(turn % 2))
        assert left_after_a_sweep(lab) == [], f"killed at request {number} of {count}"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("lab", CLOUDS, indirect=True)
def test_a_run_killed_at_any_request_leaves_nothing_after_the_sweep(
    lab: Any, wire: Wire, *, after: bool
):
    count = requests_of_a_run(lab, wire)
    for number in spread(count, 60):
        killed_run(lab, wire, number, after=after)
        assert left_after_a_sweep(lab) == [], f"killed at request {number} of {count}"
