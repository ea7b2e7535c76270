"""Targets that take runs of blocks and start empty: as exact, as frugal, as resumable as others."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic_disk import DATA, HOLE, ZERO, SyntheticDisk
from test_transfer_exactness import LAYOUTS, Layout, grown

from imageport.errors import (
    CloudRefused,
    CloudThrottled,
    CloudUnavailable,
    TransferCancelled,
)
from imageport.model import BLOCK_BYTES, MIB
from imageport.storage.memory import MemoryFolder
from imageport.transfer.journal import Journal
from imageport.transfer.manifest import Manifest
from imageport.transfer.memory_target import Faults, MemoryTarget, Shelf
from imageport.transfer.pipeline import TransferRequest, TransferResult, VerifyLevel, transfer

B = BLOCK_BYTES


def target_of(shelf: Shelf, parent: str = "", put_blocks: int = 8, **traits: Any) -> MemoryTarget:
    """A client of a cloud that starts empty and takes runs."""
    traits.setdefault("starts_from_parent", False)
    return MemoryTarget(shelf, parent=parent, put_blocks=put_blocks, **traits)


def send(
    disk: SyntheticDisk,
    target: MemoryTarget,
    folder: MemoryFolder | None = None,
    **request: Any,
) -> TransferResult:
    journal = Journal(folder or MemoryFolder(), "one.journal")
    return transfer(disk, target, TransferRequest(journal, "token", **request))


def check_exact(target: MemoryTarget, disk: SyntheticDisk, manifest: Manifest) -> None:
    for index, data in target.read_back(range(manifest.block_count)):
        assert data == disk.block(index), index
        assert manifest.digest(index) == hashlib.sha256(data).digest()


def data(*numbers: int) -> Layout:
    return [(B, DATA, number) for number in numbers]


# --- runs ---------------------------------------------------------------------------------------


def test_adjacent_blocks_travel_in_one_aligned_request_and_zeros_split_it():
    shelf = Shelf()
    layout = [(3 * B, HOLE, 0), *data(*range(1, 15)), (3 * B, HOLE, 0), *data(20, 0, 21, 22)]
    result = send(SyntheticDisk(layout), target_of(shelf))
    assert sorted(shelf.requests) == [(3, 5), (8, 8), (16, 1), (20, 1), (22, 2)]
    assert result.stats.requests == 5
    assert result.stats.bytes_sent == 17 * B
    assert result.stats.retries == 0


def test_zeros_that_must_be_put_do_not_split_a_run():
    shelf = Shelf()
    layout = [*data(1, 0, 2, 3), (4 * B, ZERO, 0)]
    send(SyntheticDisk(layout), target_of(shelf, unwritten_reads_zero=False))
    assert shelf.requests == [(0, 8)]


def test_a_target_of_single_blocks_is_never_asked_for_runs():
    shelf = Shelf()
    send(SyntheticDisk(data(*range(1, 20))), MemoryTarget(shelf))
    assert {count for _first, count in shelf.requests} == {1}


def test_little_memory_makes_shorter_runs_and_no_standstill():
    shelf = Shelf()
    disk = SyntheticDisk(data(*range(1, 40)))
    target = target_of(shelf)
    result = send(disk, target, memory_bytes=2 * B)
    check_exact(target, disk, result.manifest)
    assert {count for _first, count in shelf.requests} == {1}


def test_a_run_whose_answer_was_lost_is_repeated_as_one_request_and_counted():
    shelf = Shelf()
    left = [1]

    def fail_once(first: int) -> None:
        if first == 8 and left:
            left.pop()
            raise CloudUnavailable("Cannot put block 8: no answer.")

    shelf.faults.before_put = fail_once
    stats = send(SyntheticDisk(data(*range(1, 25))), target_of(shelf)).stats
    assert (stats.requests, stats.retries, stats.bytes_sent) == (4, 1, 24 * B)
    assert max(Counter(shelf.puts).values()) == 1


# --- a parent that the target does not start from -------------------------------------------------


def test_what_did_not_change_is_taken_from_the_parent_and_not_sent():
    shelf = Shelf()
    numbers = list(range(1, 41))
    first = send(SyntheticDisk([*data(*numbers), (8 * B, HOLE, 0)]), target_of(shelf))
    numbers[3], numbers[7], numbers[11] = 99, 0, 98
    disk = SyntheticDisk([*data(*numbers), (8 * B, HOLE, 0)])
    before = len(shelf.puts)
    child = target_of(shelf, first.reference)
    second = send(disk, child, parent=first.manifest, verify=VerifyLevel.FULL)
    check_exact(child, disk, second.manifest)
    assert sorted(shelf.puts[before:]) == [3, 11]
    assert sorted(shelf.taken) == [n for n in range(40) if n not in (3, 7, 11)]
    assert second.stats.bytes_sent == 2 * B
    assert second.stats.bytes_copied == 37 * B
    assert second.stats.bytes_skipped == 9 * B
    # 0-2, 4-6, 8-10, 12-15 and three whole runs.
    assert second.stats.requests == 2 + 7
    assert not second.manifest.is_written(7)
    assert second.manifest.is_written(0)


def test_a_parent_that_vanishes_midway_makes_the_transfer_longer_and_not_fail():
    shelf = Shelf()
    disk = SyntheticDisk(data(*range(1, 81)))
    first = send(disk, target_of(shelf))
    before = len(shelf.puts)

    def vanish(_first: int) -> None:
        if len(shelf.taken) >= 16:
            shelf.disks[first.reference].state = "deleted"

    shelf.faults.before_take = vanish
    events: list[str] = []
    child = target_of(shelf, first.reference)
    result = send(
        disk, child, parent=first.manifest, events=lambda event: events.append(event.note)
    )
    check_exact(child, disk, result.manifest)
    assert result.stats.bytes_copied >= 16 * B
    assert result.stats.bytes_copied + result.stats.bytes_sent == 80 * B
    assert len(shelf.puts) - before == result.stats.bytes_sent // B > 0
    assert sum("sent, not copied" in sentence for sentence in events) == 1


def test_a_cloud_that_refuses_to_copy_gets_the_blocks_sent():
    shelf = Shelf()
    disk = SyntheticDisk(data(*range(1, 20)))
    first = send(disk, target_of(shelf))

    def refuse(_first: int) -> None:
        raise CloudRefused("Cannot copy: CannotVerifyCopySource.")

    shelf.faults.before_take = refuse
    child = target_of(shelf, first.reference)
    result = send(disk, child, parent=first.manifest)
    check_exact(child, disk, result.manifest)
    assert (result.stats.bytes_copied, result.stats.bytes_sent) == (0, 19 * B)


def test_copies_are_repeated_like_puts():
    shelf = Shelf()
    disk = SyntheticDisk(data(*range(1, 60)))
    first = send(disk, target_of(shelf))
    errors = [CloudThrottled("Cannot copy: slow down."), CloudUnavailable("Cannot copy: 500.")]

    def fail_twice(_first: int) -> None:
        if errors:
            raise errors.pop()

    shelf.faults.before_take = fail_twice
    child = target_of(shelf, first.reference)
    stats = send(disk, child, parent=first.manifest).stats
    assert (stats.bytes_sent, stats.bytes_copied) == (0, 59 * B)
    assert (stats.requests, stats.retries) == (8 + 2, 2)


def test_a_smaller_parent_is_taken_from_as_far_as_it_goes():
    shelf = Shelf()
    first = send(SyntheticDisk(data(*range(1, 11))), target_of(shelf))
    disk = SyntheticDisk(data(*range(1, 21)))
    child = target_of(shelf, first.reference)
    result = send(disk, child, parent=first.manifest, verify=VerifyLevel.FULL)
    check_exact(child, disk, result.manifest)
    assert (result.stats.bytes_copied, result.stats.bytes_sent) == (10 * B, 10 * B)


# --- resuming -----------------------------------------------------------------------------------


def crash_after(shelf: Shelf, puts: int) -> None:
    def crash(_first: int) -> None:
        if len(shelf.puts) >= puts:
            raise KeyboardInterrupt

    shelf.faults.before_put = crash


def test_blocks_that_the_target_lost_are_done_again_and_no_others():
    shelf, folder = Shelf(), MemoryFolder()
    disk = SyntheticDisk(data(*range(1, 101)))
    crash_after(shelf, 40)
    with pytest.raises(KeyboardInterrupt):
        send(disk, target_of(shelf), folder)
    shelf.faults.before_put = lambda _first: None
    [stored] = shelf.disks.values()
    gone = random.Random(1).sample(sorted(stored.blocks), 10)  # noqa: S311 - repeatable
    kept = set(stored.blocks) - set(gone)
    for index in gone:
        del stored.blocks[index]
    before = len(shelf.puts)
    target = target_of(shelf)
    result = send(disk, target, folder)
    check_exact(target, disk, result.manifest)
    assert result.stats.bytes_resumed == len(kept) * B
    assert not kept & set(shelf.puts[before:])
    assert set(gone) <= set(shelf.puts[before:])


def test_a_journal_of_other_traits_is_never_continued():
    disk = SyntheticDisk(data(*range(1, 41)))
    for other in (
        {"unwritten_reads_zero": False},
        {"starts_from_parent": True},
        {"attributes": {"encrypted": "yes"}},
    ):
        shelf, folder = Shelf(), MemoryFolder()
        crash_after(shelf, 16)
        with pytest.raises(KeyboardInterrupt):
            send(disk, target_of(shelf), folder)
        shelf.faults.before_put = lambda _first: None
        target = target_of(shelf, **other)
        result = send(disk, target, folder)
        assert result.stats.bytes_resumed == 0, other
        assert [stored.state for stored in shelf.disks.values()] == ["deleted", "committed"]
        check_exact(target, disk, result.manifest)


def test_another_run_length_goes_on_with_the_same_journal():
    shelf, folder = Shelf(), MemoryFolder()
    disk = SyntheticDisk(data(*range(1, 101)))
    crash_after(shelf, 40)
    with pytest.raises(KeyboardInterrupt):
        send(disk, target_of(shelf), folder)
    shelf.faults.before_put = lambda _first: None
    target = target_of(shelf, put_blocks=2)
    result = send(disk, target, folder)
    assert result.stats.bytes_resumed >= 40 * B
    check_exact(target, disk, result.manifest)


def test_the_caller_decides_what_an_ended_transfer_leaves():
    for stays in (True, False):
        shelf, folder = Shelf(), MemoryFolder()
        asked: list[BaseException] = []

        def rule(error: BaseException, answer: bool = stays, seen: Any = asked) -> bool:
            seen.append(error)
            return answer

        disk = SyntheticDisk(data(*range(1, 200)))
        with pytest.raises(TransferCancelled) as caught:
            send(disk, target_of(shelf), folder, cancelled=lambda: True, may_go_on=rule)
        assert asked == [caught.value]
        states = [stored.state for stored in shelf.disks.values()]
        assert (states, len(folder.list())) == ((["pending"], 1) if stays else (["deleted"], 0))


# --- anything ----------------------------------------------------------------------------------


FAULTS = st.builds(
    Faults,
    unavailable_share=st.sampled_from([0.0, 0.1, 0.3]),
    throttle_per_second=st.sampled_from([0.0, 0.0, 400.0]),
    seed=st.integers(0, 1000),
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    LAYOUTS,
    LAYOUTS,
    st.integers(1, 8),
    st.booleans(),
    st.booleans(),
    FAULTS,
    st.lists(st.integers(0, 12), max_size=2),
    st.randoms(use_true_random=False),
)
def test_whatever_happens_the_result_equals_the_source(
    first: Layout,
    second: Layout,
    put_blocks: int,
    starts_from_parent: bool,
    unwritten_reads_zero: bool,
    faults: Faults,
    kills: list[int],
    dice: random.Random,
):
    traits: dict[str, Any] = {
        "put_blocks": put_blocks,
        "starts_from_parent": starts_from_parent,
        "unwritten_reads_zero": unwritten_reads_zero,
    }
    shelf = Shelf(faults)
    old = SyntheticDisk(first)
    parent = send(old, target_of(shelf, **traits))
    parent_puts = len(shelf.puts)
    disk = SyntheticDisk(grown(first[: len(first) // 2] + second, old.size_bytes))
    folder = MemoryFolder()
    for kill in kills:
        before = len(shelf.puts) + len(shelf.taken)

        def crash(_first: int, last: int = before + kill) -> None:
            if len(shelf.puts) + len(shelf.taken) >= last:
                raise KeyboardInterrupt

        faults.before_put = faults.before_take = crash
        target = target_of(shelf, parent.reference, **traits)
        try:
            send(disk, target, folder, parent=parent.manifest)
        except KeyboardInterrupt:
            stored = list(shelf.disks.values())[-1]
            # What the service lost although it had said that it was stored.
            if not starts_from_parent and stored.blocks and dice.random() < 1 / 2:
                del stored.blocks[dice.choice(sorted(stored.blocks))]
        else:
            break
    faults.before_put = faults.before_take = lambda _first: None
    target = target_of(shelf, parent.reference, **traits)
    result = send(disk, target, folder, parent=parent.manifest, verify=VerifyLevel.FULL)
    check_exact(target, disk, result.manifest)
    if not kills and not faults.unavailable_share:
        assert max(Counter(shelf.puts[parent_puts:]).values(), default=0) <= 1
        assert result.stats.bytes_sent + result.stats.bytes_copied <= disk.size_bytes + MIB
