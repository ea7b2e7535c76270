"""Transfers over one reading: each is exact, and the source is read and hashed once for all."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic_disk import DATA, HOLE, ZERO, SyntheticDisk

from imageport.errors import CloudRefused
from imageport.model import BLOCK_BYTES, ZERO_DIGEST, ExtentState
from imageport.storage.memory import MemoryFolder
from imageport.transfer.hashed_once import HashedOnce
from imageport.transfer.journal import Journal
from imageport.transfer.manifest import Manifest
from imageport.transfer.memory_target import Faults, MemoryTarget, Shelf
from imageport.transfer.pipeline import TransferRequest, TransferResult, VerifyLevel, transfer
from imageport.transfer.shared_reading import SharedReading, SharedView

B = BLOCK_BYTES
Layout = list[tuple[int, ExtentState, int]]
LENGTHS = st.one_of(
    st.integers(1, 2 * B // 512).map(lambda sectors: sectors * 512),
    st.integers(1, 3).map(lambda blocks: blocks * B),
)
LAYOUTS = st.lists(
    st.tuples(LENGTHS, st.sampled_from([HOLE, ZERO, DATA]), st.integers(0, 3)),
    min_size=1,
    max_size=12,
)


def data(*seeds: int) -> Layout:
    return [(B, DATA, seed) for seed in seeds]


def side_by_side(*work: Callable[[], Any]) -> list[Any]:
    """What each returned or raised."""
    with ThreadPoolExecutor(len(work)) as pool:
        futures = [pool.submit(one) for one in work]
        return [future.exception() or future.result() for future in futures]


def send(view: SharedView, target: MemoryTarget, **more: Any) -> TransferResult:
    request = TransferRequest(Journal(MemoryFolder(), "one"), "token", partitions=(), **more)
    with view:
        return transfer(view, target, request)


def sent_to(reading: SharedReading, *targets: MemoryTarget, **more: Any) -> list[Any]:
    def one(view: SharedView, target: MemoryTarget) -> Callable[[], TransferResult]:
        return lambda: send(view, target, **more)

    pairs = zip(reading.views, targets, strict=True)
    return side_by_side(*(one(view, target) for view, target in pairs))


def check_exact(target: MemoryTarget, disk: SyntheticDisk, manifest: Manifest) -> None:
    for index, block in target.read_back(range(manifest.block_count)):
        assert block == disk.block(index), index


class HashCount:
    """Stands in for hashlib where shared blocks are hashed."""

    def __init__(self) -> None:
        self.hashed = 0

    def sha256(self, content: bytes) -> Any:
        self.hashed += 1
        return hashlib.sha256(content)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(LAYOUTS, LAYOUTS, st.integers(1, 8))
def test_targets_of_every_manner_are_exact_and_only_data_is_read(
    layout: Layout, behind: Layout, window_blocks: int
) -> None:
    disk = SyntheticDisk([*layout, *behind])
    targets = [
        MemoryTarget(),
        MemoryTarget(unwritten_reads_zero=False),
        MemoryTarget(starts_from_parent=False, put_blocks=8),
    ]
    with SharedReading(disk, 3, window_bytes=window_blocks * B) as reading:
        results = sent_to(reading, *targets, verify=VerifyLevel.FULL)
        assert disk.bytes_read == reading.bytes_read
    for target, result in zip(targets, results, strict=True):
        check_exact(target, disk, result.manifest)
    assert len({result.manifest.image_digest() for result in results}) == 1
    allocated = sum(e.length_bytes for e in disk.extents() if e.state is DATA)
    assert reading.bytes_read == allocated


def test_a_delta_a_whole_upload_and_one_that_was_killed_read_each_block_once() -> None:
    old, numbers = list(range(1, 61)), list(range(1, 61))
    for changed in (5, 17, 44):
        numbers[changed] = 900 + changed
    before, disk = SyntheticDisk(data(*old)), SyntheticDisk(data(*numbers))
    shelves = [Shelf() for _ in range(3)]
    first = transfer(
        before, MemoryTarget(shelves[0]), TransferRequest(Journal(MemoryFolder(), "0"), "t")
    )
    known = Manifest(disk.size_bytes, absent_reads_zero=False)
    for index in set(range(60)) - {5, 17, 44}:
        known.set(index, hashlib.sha256(disk.block(index)).digest())
    folder = MemoryFolder()

    def die(index: int) -> None:
        if index == 40:
            raise KeyboardInterrupt

    shelves[2].faults.before_put = die
    with pytest.raises(KeyboardInterrupt):
        transfer(disk, MemoryTarget(shelves[2]), TransferRequest(Journal(folder, "2"), "t"))
    shelves[2].faults.before_put = lambda _index: None
    put_before = len(shelves[2].puts)
    assert put_before > 10
    disk.bytes_read = 0
    child = MemoryTarget(shelves[0], parent=first.reference)
    whole, resumed = MemoryTarget(shelves[1]), MemoryTarget(shelves[2])
    with SharedReading(disk, 3, window_bytes=8 * B) as reading:
        views = reading.views
        results = side_by_side(
            lambda: send(views[0], child, parent=first.manifest, known=known),
            lambda: send(views[1], whole, known=known),
            lambda: transfer(views[2], resumed, TransferRequest(Journal(folder, "2"), "t")),
        )
    for target, result in zip((child, whole, resumed), results, strict=True):
        check_exact(target, disk, result.manifest)
    assert results[0].stats.bytes_sent == 3 * B
    assert results[1].stats.bytes_sent == 60 * B
    assert results[2].stats.bytes_resumed >= 10 * B
    assert 60 * B <= disk.bytes_read <= 60 * B * 1.05


def test_a_block_is_hashed_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    count = HashCount()
    monkeypatch.setattr("imageport.transfer.hashed_once.hashlib", count)
    alone = HashCount()
    monkeypatch.setattr("imageport.transfer.sending.hashlib", alone)
    disk = SyntheticDisk(data(*range(1, 31), 0, 0))
    with SharedReading(disk, 3) as reading:
        targets = [MemoryTarget() for _ in range(3)]
        results = sent_to(reading, *targets)
    assert all(result.stats.bytes_sent == 30 * B for result in results)
    assert (count.hashed, alone.hashed) == (30, 0)


def test_a_block_of_another_size_is_no_block() -> None:
    block = random.Random(1).randbytes(B)  # noqa: S311 - contents
    assert HashedOnce(block).digest() == hashlib.sha256(block).digest()
    assert HashedOnce(bytes(B)).digest() == ZERO_DIGEST
    with pytest.raises(ValueError, match=f"found 512 bytes, needed {B}"):
        HashedOnce(block[:512])


def test_a_parent_that_vanishes_has_its_blocks_read_by_that_transfer_alone() -> None:
    disk = SyntheticDisk(data(*range(1, 41)))
    shelf = Shelf()
    kind: dict[str, Any] = {"starts_from_parent": False, "put_blocks": 8}
    first = transfer(
        disk, MemoryTarget(shelf, **kind), TransferRequest(Journal(MemoryFolder(), "0"), "t")
    )
    shelf.disks[first.reference].state = "deleted"
    disk.bytes_read = 0
    child = MemoryTarget(shelf, parent=first.reference, **kind)
    with SharedReading(disk, 2) as reading:
        views = reading.views
        results = side_by_side(
            lambda: send(views[0], child, parent=first.manifest, known=first.manifest),
            lambda: send(views[1], MemoryTarget()),
        )
    check_exact(child, disk, results[0].manifest)
    assert results[1].stats.bytes_sent == 40 * B
    assert reading.views[0].bytes_read_alone == 40 * B
    assert disk.bytes_read == 80 * B


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(8))
def test_targets_that_fail_stall_and_lag_leave_the_others_exact(seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - schedules
    numbers = [dice.choice([0, dice.randint(1, 9999)]) for _ in range(400)]
    disk = SyntheticDisk(data(*numbers))
    shelves = [Shelf(Faults(seed=seed + n)) for n in range(4)]
    shelves[0].faults.seconds_per_put = dice.choice([0.0, 0.01])
    shelves[1].faults.unavailable_share = 0.05
    shelves[2].faults.throttle_per_second = 150
    last = dice.randint(1, 300)

    def refuse(index: int) -> None:
        if index >= last:
            raise CloudRefused("Cannot put: refused.")

    shelves[3].faults.before_put = refuse
    targets = [MemoryTarget(shelf, put_blocks=dice.choice([1, 8])) for shelf in shelves]
    window, hold = dice.choice([2, 16, 64]) * B, dice.choice([0.3, 60.0])
    with SharedReading(disk, 4, window_bytes=window, hold_seconds=hold) as reading:
        results = sent_to(reading, *targets)
    assert isinstance(results[3], CloudRefused)
    for target, result in zip(targets[:3], results[:3], strict=True):
        check_exact(target, disk, result.manifest)
    if hold > 1:
        assert disk.bytes_read == 400 * B
