"""Blocks whose digests are known: as exact as ever, and neither read nor hashed for nothing."""

from __future__ import annotations

import hashlib
import random
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic_disk import HOLE, ZERO, SyntheticDisk
from test_run_transfers import FAULTS, LAYOUTS, Layout, check_exact, data, grown, send, target_of

from imageport.errors import CloudRefused, CloudUnavailable, InputError, VerificationFailed
from imageport.model import BLOCK_BYTES, ZERO_DIGEST
from imageport.progress import Event
from imageport.storage.memory import MemoryFolder
from imageport.transfer.block_target import BlockTarget
from imageport.transfer.journal import Journal
from imageport.transfer.manifest import Manifest
from imageport.transfer.memory_target import Faults, MemoryTarget, Shelf
from imageport.transfer.pipeline import Doubt, TransferRequest, VerifyLevel, transfer

B = BLOCK_BYTES


def known_of(disk: SyntheticDisk, *indexes: int) -> Manifest:
    """The digests of these blocks, of all when none are named."""
    count = -(-disk.size_bytes // B)
    known = Manifest(disk.size_bytes, absent_reads_zero=False)
    for index in indexes or range(count):
        known.set(index, hashlib.sha256(disk.block(index)).digest())
    return known


class HashCount:
    """Stands in for hashlib where blocks are sent."""

    def __init__(self) -> None:
        self.hashed = 0

    def sha256(self, content: bytes) -> Any:
        self.hashed += 1
        return hashlib.sha256(content)


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> HashCount:
    count = HashCount()
    monkeypatch.setattr("imageport.transfer.sending.hashlib", count)
    return count


# --- how little is read and hashed --------------------------------------------------------------


def test_what_is_put_with_a_known_digest_is_read_and_not_hashed(hashes: HashCount) -> None:
    disk = SyntheticDisk([*data(*range(1, 21)), (5 * B, HOLE, 0)])
    target = MemoryTarget()
    result = send(disk, target, known=known_of(disk))
    check_exact(target, disk, result.manifest)
    assert (hashes.hashed, result.stats.bytes_read) == (0, 20 * B)
    assert (result.stats.bytes_sent, result.stats.bytes_skipped) == (20 * B, 5 * B)


def test_zeros_that_are_known_are_not_read(hashes: HashCount) -> None:
    disk = SyntheticDisk(data(1, 0, 0, 2))
    for reads_zero, sent in ((True, 2), (False, 4)):
        shelf = Shelf()
        target = target_of(shelf, unwritten_reads_zero=reads_zero)
        result = send(disk, target, known=known_of(disk))
        check_exact(target, disk, result.manifest)
        assert (result.stats.bytes_read, result.stats.bytes_sent) == (2 * B, sent * B)
        if not reads_zero:
            assert shelf.requests == [(0, 4)]  # what was not read splits no run
    assert hashes.hashed == 0


def test_what_the_target_shows_of_its_parent_is_neither_read_nor_hashed(
    hashes: HashCount,
) -> None:
    shelf = Shelf()
    numbers = list(range(1, 41))
    old = SyntheticDisk(data(*numbers))
    first = send(old, MemoryTarget(shelf))
    numbers[3], numbers[7], numbers[11], numbers[12] = 99, 0, 98, 97
    disk = SyntheticDisk(data(*numbers))
    hashes.hashed = 0
    untouched = [index for index in range(40) if index not in (3, 7, 11)]
    child = MemoryTarget(shelf, parent=first.reference)
    events: list[Event] = []
    result = send(
        disk, child, parent=first.manifest, known=known_of(disk, *untouched), events=events.append
    )
    check_exact(child, disk, result.manifest)
    # 3, 7 and 11 are unknown, and 7 is zeros; 12 is known, and the parent holds something else.
    assert (result.stats.bytes_read, hashes.hashed) == (4 * B, 2)
    assert (result.stats.bytes_sent, result.stats.bytes_skipped) == (4 * B, 36 * B)
    upload = [event for event in events if event.stage == "upload"]
    assert (upload[-1].done, upload[-1].total) == (40 * B, 40 * B)


def test_what_the_parent_holds_is_taken_from_there_unread(hashes: HashCount) -> None:
    shelf = Shelf()
    numbers = list(range(1, 41))
    first = send(SyntheticDisk(data(*numbers)), target_of(shelf))
    numbers[20] = 99
    disk = SyntheticDisk(data(*numbers))
    hashes.hashed = 0
    child = target_of(shelf, first.reference)
    known = known_of(disk, *[n for n in range(40) if n not in (20, 30)])
    result = send(disk, child, parent=first.manifest, known=known, verify=VerifyLevel.FULL)
    check_exact(child, disk, result.manifest)
    assert (result.stats.bytes_read, hashes.hashed) == (2 * B, 2)
    assert (result.stats.bytes_sent, result.stats.bytes_copied) == (B, 39 * B)
    assert result.stats.requests == 4 + 3  # whole runs but for the one that block 20 splits


def test_digests_known_of_another_disk_are_refused() -> None:
    disk = SyntheticDisk(data(1, 2))
    shelf = Shelf()
    with pytest.raises(InputError, match=f"{3 * B} bytes, needed {2 * B}"):
        send(disk, MemoryTarget(shelf), known=Manifest(3 * B, absent_reads_zero=False))
    assert shelf.disks == {}


# --- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize("lives", [0, 16, 32])
def test_what_the_parent_no_longer_gives_is_read_after_all(lives: int, hashes: HashCount) -> None:
    shelf = Shelf()
    disk = SyntheticDisk(data(*range(1, 49)))
    first = send(disk, target_of(shelf))
    hashes.hashed = 0

    def vanish(_first: int) -> None:
        if len(shelf.taken) >= lives:
            shelf.disks[first.reference].state = "deleted"

    shelf.faults.before_take = vanish
    events: list[Event] = []
    child = target_of(shelf, first.reference, initial_in_flight=1, max_in_flight=1)
    result = send(disk, child, parent=first.manifest, known=known_of(disk), events=events.append)
    check_exact(child, disk, result.manifest)
    assert result.stats.bytes_copied >= lives * B
    assert (
        result.stats.bytes_read == result.stats.bytes_sent == (48 * B - result.stats.bytes_copied)
    )
    assert hashes.hashed == 0
    upload = [event for event in events if event.stage == "upload"]
    assert (upload[-1].done, upload[-1].total) == (48 * B, 48 * B)
    assert sum("sent, not copied" in event.note for event in events) == 1


def test_damage_on_the_way_is_found_by_who_checks_what_it_is_given() -> None:
    disk = SyntheticDisk(data(*range(1, 21)))
    known = known_of(disk)
    known.set(7, hashlib.sha256(b"what it was when it was exported").digest())
    shelf = Shelf()
    with pytest.raises(CloudRefused, match="another checksum"):
        send(disk, MemoryTarget(shelf), known=known)
    assert [stored.state for stored in shelf.disks.values()] == ["deleted"]


class Careless(MemoryTarget):
    """Takes whatever it is given."""

    def put(self, index: int, data: bytes | memoryview, digest: bytes) -> None:
        del digest
        super().put(index, data, hashlib.sha256(data).digest())

    def commit(self, digests: Any) -> str:
        return super().commit(
            {n: hashlib.sha256(self._begun().blocks[n]).digest() for n in digests}
        )


def test_damage_on_the_way_to_who_checks_nothing_is_found_by_reading_back() -> None:
    disk = SyntheticDisk(data(*range(1, 21)))
    known = known_of(disk)
    known.set(7, hashlib.sha256(b"what it was when it was exported").digest())
    with pytest.raises(VerificationFailed) as caught:
        send(disk, Careless(), known=known, verify=VerifyLevel.FULL)
    assert caught.value.fields["blocks"] == [7]


@pytest.mark.parametrize("starts_from_parent", [True, False])
def test_what_is_in_doubt_is_read_hashed_and_put_though_it_is_known(
    starts_from_parent: bool, hashes: HashCount
) -> None:
    shelf = Shelf()
    disk = SyntheticDisk(data(*range(1, 21)))
    target = target_of(shelf, starts_from_parent=starts_from_parent)
    first = send(disk, target)
    hashes.hashed = 0
    before = len(shelf.puts)
    child = target_of(shelf, first.reference, starts_from_parent=starts_from_parent)
    doubt = Doubt(frozenset({4, 5}))
    result = send(disk, child, parent=first.manifest, known=known_of(disk), doubt=doubt)
    check_exact(child, disk, result.manifest)
    assert sorted(shelf.puts[before:]) == [4, 5]
    assert (result.stats.bytes_read, hashes.hashed) == (2 * B, 2)


def test_a_killed_transfer_goes_on_with_what_became_known_meanwhile(
    hashes: HashCount,
) -> None:
    shelf, folder = Shelf(), MemoryFolder()
    old = SyntheticDisk(data(*range(1, 41)))
    first = send(old, MemoryTarget(shelf))
    disk = SyntheticDisk(data(*range(1, 11), *range(101, 131)))
    before = len(shelf.puts)

    def crash(_index: int) -> None:
        if len(shelf.puts) - before >= 10:
            time.sleep(0.4)  # the journal is written several times a second
            raise KeyboardInterrupt

    shelf.faults.before_put = crash
    with pytest.raises(KeyboardInterrupt):
        send(disk, MemoryTarget(shelf, parent=first.reference), folder, parent=first.manifest)
    shelf.faults = Faults()
    put = set(shelf.puts[before:])
    hashes.hashed = disk.bytes_read = 0
    child = MemoryTarget(shelf, parent=first.reference)
    result = send(disk, child, folder, parent=first.manifest, known=known_of(disk))
    check_exact(child, disk, result.manifest)
    assert max(Counter(shelf.puts[before:]).values()) == 1
    assert result.stats.bytes_resumed == len(put) * B
    assert (result.stats.bytes_read, hashes.hashed) == ((30 - len(put)) * B, 0)


def test_a_commit_that_fails_for_a_moment_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    commit, left = MemoryTarget.commit, [1]

    def fail_once(self: BlockTarget, digests: Any) -> str:
        if left:
            left.pop()
            raise CloudUnavailable("Cannot commit: no answer.")
        return commit(self, digests)

    monkeypatch.setattr(MemoryTarget, "commit", fail_once)
    disk = SyntheticDisk(data(1, 2))
    target = MemoryTarget()
    check_exact(target, disk, send(disk, target).manifest)


# --- anything -----------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    LAYOUTS,
    LAYOUTS,
    st.integers(1, 8),
    st.booleans(),
    st.booleans(),
    FAULTS,
    st.lists(st.integers(0, 12), max_size=2),
    st.sampled_from([0, 0, 5]),
    st.randoms(use_true_random=False),
)
def test_whatever_is_known_the_result_equals_the_source(
    first: Layout,
    second: Layout,
    put_blocks: int,
    starts_from_parent: bool,
    reads_zero: bool,
    faults: Faults,
    kills: list[int],
    parent_lives: int,
    dice: random.Random,
) -> None:
    traits: dict[str, Any] = {
        "put_blocks": put_blocks,
        "starts_from_parent": starts_from_parent,
        "unwritten_reads_zero": reads_zero,
    }
    shelf = Shelf(faults)
    old = SyntheticDisk(first)
    parent = send(old, target_of(shelf, **traits))
    disk = SyntheticDisk(grown(first[: len(first) // 2] + second, old.size_bytes))
    folder = MemoryFolder()
    count = -(-disk.size_bytes // B)

    def try_once(**wishes: Any) -> Any:
        known = known_of(disk, *dice.sample(range(count), dice.randint(1, count)))
        target = target_of(shelf, parent.reference, **traits)
        journal = Journal(folder, "one.journal")
        request = TransferRequest(journal, "token", parent=parent.manifest, known=known, **wishes)
        return target, transfer(disk, target, request)

    for kill in kills:
        before = len(shelf.puts) + len(shelf.taken)

        def crash(_first: int, last: int = before + kill) -> None:
            if len(shelf.puts) + len(shelf.taken) >= last:
                raise KeyboardInterrupt

        faults.before_put = faults.before_take = crash
        try:
            try_once()
        except KeyboardInterrupt:
            continue
        break

    def vanish(_first: int) -> None:
        if parent_lives and len(shelf.taken) >= parent_lives:
            shelf.disks[parent.reference].state = "deleted"

    faults.before_put, faults.before_take = lambda _first: None, vanish
    target, result = try_once(verify=VerifyLevel.FULL)
    check_exact(target, disk, result.manifest)
    for index in range(count):
        if disk.states(index) == {ZERO} and not reads_zero:
            assert result.manifest.digest(index) == ZERO_DIGEST
