"""One run at a time: taken, renewed, given back, taken over, and noticed when lost."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from imageport.errors import LeaseHeld, LeaseLost
from imageport.state.leases import Lease
from imageport.state.store import StateStore

NAME = "Win11 Office@aws/eu-central-1/site-b"


def freeze(lease: Lease) -> None:
    """Stop renewing without giving back: what a killed or stuck process does."""
    lease._end.set()
    assert lease._thread is not None
    lease._thread.join()


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imageport.state.leases.GRACE_SECONDS", 0.2)


def wait_for(lease: Lease, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            lease.__enter__()
        except LeaseHeld:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return


def test_a_held_lease_is_refused_to_others_and_names_the_holder(
    store: StateStore, open_folder: Any
):
    other = StateStore(open_folder())
    with store.lease(NAME, "run-1") as lease:
        lease.check()
        with pytest.raises(LeaseHeld, match="run-1"), other.lease(NAME, "run-2"):
            pass
        assert other.leases.holders() == {NAME: "run-1"}
        with other.lease("another image", "run-2") as free:
            free.check()


def test_a_lease_given_back_is_free_at_once_and_its_fencing_number_grows(
    store: StateStore, open_folder: Any
):
    other = StateStore(open_folder())
    numbers = []
    for state, owner in ((store, "run-1"), (other, "run-2"), (store, "run-3")):
        with state.lease(NAME, owner) as lease:
            numbers.append(lease.fencing)
    assert numbers == [1, 2, 3]
    assert store.leases.holders() == {}


def test_a_lease_is_renewed_far_beyond_its_time_to_live(store: StateStore, open_folder: Any):
    other = StateStore(open_folder())
    with store.lease(NAME, "run-1", 1.5) as lease:
        for _number in range(8):
            time.sleep(0.4)
            lease.check()
            with pytest.raises(LeaseHeld), other.lease(NAME, "run-2", 1.5):
                pass


def test_the_lease_of_a_dead_process_is_taken_over_and_the_dead_one_notices(
    store: StateStore, open_folder: Any
):
    dead = store.lease(NAME, "run-1", 1.0)
    dead.__enter__()
    freeze(dead)
    other = StateStore(open_folder()).lease(NAME, "run-2", 1.0)
    with pytest.raises(LeaseHeld):
        other.__enter__()
    wait_for(other, 10)
    assert other.fencing == 2
    with pytest.raises(LeaseLost):
        dead.check()
    dead.__exit__(None, None, None)
    time.sleep(0.5)
    other.check()
    assert store.leases.holders() == {NAME: "run-2"}
    other.__exit__(None, None, None)


def test_the_same_run_takes_its_lease_over_at_once_and_the_older_process_loses_it(
    store: StateStore, open_folder: Any
):
    with store.lease(NAME, "run-1", 2.0) as older:
        with StateStore(open_folder()).lease(NAME, "run-1", 2.0) as newer:
            assert newer.fencing == older.fencing + 1
            time.sleep(2.5)
            with pytest.raises(LeaseLost):
                older.check()
            newer.check()
        assert store.leases.holders() == {}


def test_of_many_that_want_it_at_once_exactly_one_gets_it(open_folder: Any):
    sites = [StateStore(open_folder()) for _site in range(6)]
    got: list[str] = []
    done = threading.Barrier(6)

    def take(site: StateStore, owner: str) -> None:
        lease = site.lease(NAME, owner)
        done.wait()
        try:
            lease.__enter__()
        except LeaseHeld:
            done.wait()
            return
        got.append(owner)
        done.wait()
        lease.__exit__(None, None, None)

    threads = [
        threading.Thread(target=take, args=(site, f"run-{number}"))
        for number, site in enumerate(sites)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1


def test_a_lease_that_cannot_be_renewed_is_no_longer_claimed(store: StateStore):
    lease = store.lease(NAME, "run-1", 0.5)
    lease.__enter__()
    freeze(lease)
    lease.check()
    time.sleep(0.6)
    with pytest.raises(LeaseLost, match="renewed"):
        lease.check()
    lease.__exit__(None, None, None)


def test_a_lease_is_lost_before_it_is_entered_and_after_it_is_left(store: StateStore):
    lease = store.lease(NAME, "run-1")
    with pytest.raises(LeaseLost):
        lease.check()
    with lease:
        lease.check()
    with pytest.raises(LeaseLost):
        lease.check()


def test_clocks_of_workers_play_no_part(
    store: StateStore, open_folder: Any, monkeypatch: pytest.MonkeyPatch
):
    real = time.time
    with store.lease(NAME, "run-1", 30):
        monkeypatch.setattr(time, "time", lambda: real() + 86_400)
        with pytest.raises(LeaseHeld), StateStore(open_folder()).lease(NAME, "run-2", 30):
            pass
