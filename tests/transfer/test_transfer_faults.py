"""A service that throttles, fails, hangs and forgets; a full disk; an operator who cancels."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import pytest
from synthetic_disk import DATA, ZERO, SyntheticDisk

from imageport.errors import (
    CloudRefused,
    CloudUnavailable,
    LeaseHeld,
    LeaseLost,
    ResourceGone,
    ShareFull,
    TransferCancelled,
)
from imageport.formats.vhdx_target import VhdxFileTarget
from imageport.model import BLOCK_BYTES, MIB
from imageport.progress import Event, EventKind
from imageport.storage.memory import MemoryFolder
from imageport.transfer.journal import Journal
from imageport.transfer.memory_target import Faults, MemoryTarget, Shelf
from imageport.transfer.pipeline import TransferRequest, transfer

B = BLOCK_BYTES


def request(folder: MemoryFolder, **changes: Any) -> TransferRequest:
    return TransferRequest(Journal(folder, "one.journal"), "token", **changes)


def exact(target: MemoryTarget, disk: SyntheticDisk) -> bool:
    return all(data == disk.block(i) for i, data in target.read_back(range(disk.size_bytes // B)))


def test_a_tenth_of_the_wanted_rate_and_server_errors_complete_without_duplicate_resources():
    # Unthrottled this machine puts well over 500 blocks a second.
    shelf = Shelf(Faults(throttle_per_second=60, unavailable_share=0.05, seed=1))
    disk = SyntheticDisk([(200 * B, DATA, 1)])
    target = MemoryTarget(shelf)
    result = transfer(disk, target, request(MemoryFolder()))
    assert exact(target, disk)
    assert len(shelf.disks) == 1
    assert result.stats.retries > 0
    repeated = sum(count - 1 for count in Counter(shelf.puts).values())
    assert repeated <= 200 * 0.05  # only puts whose answer was lost are stored twice
    assert shelf.refusals < 200  # the pacer learns instead of hammering


def test_puts_that_hang_are_repeated():
    shelf = Shelf(Faults(hang_share=0.02, hang_seconds=0.3, seed=3))
    disk = SyntheticDisk([(200 * B, DATA, 1)])
    target = MemoryTarget(shelf)
    transfer(disk, target, request(MemoryFolder()))
    assert exact(target, disk)


def test_a_service_that_stays_down_is_given_up_and_the_transfer_can_be_resumed(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("imageport.transfer.retrying._pause_seconds", lambda *_: 0.001)
    shelf = Shelf()
    disk = SyntheticDisk([(60 * B, DATA, 1)])
    folder = MemoryFolder()

    def fail(index: int) -> None:
        if len(shelf.puts) >= 30:
            raise CloudUnavailable(f"Cannot put block {index}: the service is down.")

    shelf.faults.before_put = fail
    with pytest.raises(CloudUnavailable):
        transfer(disk, MemoryTarget(shelf), request(folder))
    assert [stored.state for stored in shelf.disks.values()] == ["pending"]
    shelf.faults.before_put = lambda _index: None
    target = MemoryTarget(shelf)
    result = transfer(disk, target, request(folder))
    assert exact(target, disk)
    assert result.stats.bytes_resumed >= 30 * B
    assert len(shelf.disks) == 1
    assert max(Counter(shelf.puts).values()) == 1


@pytest.mark.parametrize("error", [CloudRefused("no"), ResourceGone("gone"), ValueError("a bug")])
def test_the_first_fatal_error_stops_everything_and_is_the_one_raised(error: Exception):
    shelf = Shelf(Faults(seconds_per_put=0.002))
    disk = SyntheticDisk([(2000 * B, DATA, 0)])
    calls = []

    def fail(index: int) -> None:
        calls.append(index)
        if len(calls) == 20:
            raise error

    shelf.faults.before_put = fail
    with pytest.raises(type(error)) as caught:
        transfer(disk, MemoryTarget(shelf, unwritten_reads_zero=False), request(MemoryFolder()))
    assert caught.value is error
    assert len(calls) < 100


def test_after_a_fatal_error_neither_target_nor_journal_are_left():
    shelf = Shelf()
    folder = MemoryFolder()

    def fail(index: int) -> None:
        if index == 7:
            raise CloudRefused("no")

    shelf.faults.before_put = fail
    with pytest.raises(CloudRefused):
        transfer(SyntheticDisk([(20 * B, DATA, 1)]), MemoryTarget(shelf), request(folder))
    assert [stored.state for stored in shelf.disks.values()] == ["deleted"]
    assert folder.list() == []


def test_no_threads_are_left_after_success_or_failure():
    before = threading.active_count()
    transfer(SyntheticDisk([(20 * B, DATA, 1)]), MemoryTarget(), request(MemoryFolder()))
    shelf = Shelf(Faults(unavailable_share=1.0))
    cancelled = iter([False, True])
    with pytest.raises(TransferCancelled):
        transfer(
            SyntheticDisk([(20 * B, DATA, 1)]),
            MemoryTarget(shelf),
            request(MemoryFolder(), cancelled=lambda: next(cancelled, True)),
        )
    assert threading.active_count() == before


def test_cancelling_stops_soon_and_a_later_run_goes_on():
    shelf = Shelf(Faults(seconds_per_put=0.05))
    disk = SyntheticDisk([(400 * B, DATA, 1)])
    folder = MemoryFolder()
    asked: list[float] = []

    def cancelled() -> bool:
        if len(shelf.puts) < 60:
            return False
        asked.append(time.monotonic())
        return True

    with pytest.raises(TransferCancelled):
        transfer(disk, MemoryTarget(shelf), request(folder, cancelled=cancelled))
    assert time.monotonic() - asked[0] < 5
    shelf.faults.seconds_per_put = 0
    target = MemoryTarget(shelf)
    result = transfer(disk, target, request(folder))
    assert exact(target, disk)
    assert result.stats.bytes_resumed >= 60 * B
    assert max(Counter(shelf.puts).values()) == 1


def test_an_error_of_the_cancel_question_ends_the_transfer_and_keeps_it_resumable():
    shelf = Shelf(Faults(seconds_per_put=0.02))
    folder = MemoryFolder()

    def check() -> bool:
        raise LeaseLost("Cannot go on: another run took over.")

    with pytest.raises(LeaseLost):
        transfer(
            SyntheticDisk([(400 * B, DATA, 1)]),
            MemoryTarget(shelf),
            request(folder, cancelled=check),
        )
    assert [stored.state for stored in shelf.disks.values()] == ["pending"]


def test_a_full_disk_is_a_clear_error_and_leaves_no_part_file():
    store = MemoryFolder("store", capacity_bytes=48 * MIB)
    target = VhdxFileTarget(store, "disk.vhdx.part")
    with pytest.raises(ShareFull):
        transfer(SyntheticDisk([(200 * B, DATA, 1)]), target, request(MemoryFolder()))
    target.close()
    assert store.list() == []


def test_a_journal_that_cannot_be_written_ends_the_transfer():
    state = MemoryFolder("state", capacity_bytes=4096 + 44 * 3)
    shelf = Shelf(Faults(seconds_per_put=0.05))
    with pytest.raises(ShareFull):
        transfer(SyntheticDisk([(400 * B, DATA, 1)]), MemoryTarget(shelf), request(state))


def test_events_add_up_to_the_plan_and_stay_few():
    events: list[Event] = []
    disk = SyntheticDisk([(50 * B, DATA, 1), (20 * B, ZERO, 0)])
    transfer(
        disk,
        MemoryTarget(unwritten_reads_zero=False),
        request(MemoryFolder(), events=events.append, stage="publish"),
    )
    mine = [event for event in events if event.stage == "publish"]
    assert mine[0].kind is EventKind.STARTED
    assert mine[-1].kind is EventKind.FINISHED
    assert mine[-1].done == mine[-1].total == 70 * B
    assert len(mine) < 40


def test_figures_say_what_moved():
    disk = SyntheticDisk([(50 * B, DATA, 1), (10 * B, DATA, 0), (20 * B, ZERO, 0)])
    stats = transfer(disk, MemoryTarget(), request(MemoryFolder())).stats
    assert stats.bytes_planned == 60 * B
    assert stats.bytes_read == 60 * B
    assert stats.bytes_sent == 50 * B
    assert stats.bytes_skipped == 30 * B
    assert (stats.requests, stats.retries, stats.bytes_resumed) == (50, 0, 0)


def test_a_journal_that_another_process_writes_is_neither_used_nor_removed():
    folder = MemoryFolder()
    shelf = Shelf(Faults(seconds_per_put=0.05))
    disk = SyntheticDisk([(400 * B, DATA, 1)])
    with pytest.raises(TransferCancelled):
        transfer(disk, MemoryTarget(shelf), request(folder, cancelled=lambda: len(shelf.puts) > 20))
    other = Journal(folder, "one.journal")
    other.load()
    with pytest.raises(LeaseHeld) as caught:
        transfer(disk, MemoryTarget(shelf), request(folder))
    assert caught.value.retryable
    assert [stored.state for stored in shelf.disks.values()] == ["pending"]
    assert len(folder.list()) == 1
    other.close()


def test_a_target_file_that_another_process_writes_is_neither_used_nor_removed():
    store, folder = MemoryFolder("store"), MemoryFolder("state")
    disk = SyntheticDisk([(40 * B, DATA, 1)])
    first = VhdxFileTarget(store, "disk.vhdx.part")
    with pytest.raises(TransferCancelled):
        transfer(disk, first, request(folder, cancelled=lambda: True, memory_bytes=2 * B))
    second = VhdxFileTarget(store, "disk.vhdx.part")
    with pytest.raises(LeaseHeld):
        transfer(disk, second, request(folder))
    second.close()
    first.close()
    third = VhdxFileTarget(store, "disk.vhdx.part")
    transfer(disk, third, request(folder))
    third.close()
