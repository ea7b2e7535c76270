"""Whatever the layout, the parent and the target: what is read back is what the guest sees."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic_disk import DATA, HOLE, ZERO, SyntheticDisk

from imageport.errors import SourceChanged, VerificationFailed
from imageport.formats.gpt import Partition
from imageport.model import BLOCK_BYTES, MIB, ZERO_BLOCK, ExtentState
from imageport.storage.memory import MemoryFolder
from imageport.transfer.journal import Journal
from imageport.transfer.memory_target import MemoryTarget, Shelf
from imageport.transfer.pipeline import TransferRequest, TransferResult, VerifyLevel, transfer

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


def send(
    disk: SyntheticDisk,
    target: MemoryTarget,
    *,
    folder: MemoryFolder | None = None,
    **request: object,
) -> TransferResult:
    journal = Journal(folder or MemoryFolder(), "one.journal")
    return transfer(disk, target, TransferRequest(journal, "token", **request))


def grown(layout: Layout, size_bytes: int) -> Layout:
    """The layout with a hole behind it, so that a child is at least as large as its parent."""
    missing = size_bytes - sum(length for length, _state, _seed in layout)
    return [*layout, (missing, HOLE, 0)] if missing > 0 else layout


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(LAYOUTS, LAYOUTS, LAYOUTS, st.booleans())
def test_three_generations_read_back_exactly(
    first: Layout, second: Layout, third: Layout, unwritten_reads_zero: bool
):
    shelf = Shelf()
    parent, reference = None, ""
    size = 0
    for layout in (first, second, third):
        disk = SyntheticDisk(grown(layout, size))
        size = disk.size_bytes
        target = MemoryTarget(shelf, parent=reference, unwritten_reads_zero=unwritten_reads_zero)
        result = send(disk, target, parent=parent, verify=VerifyLevel.FULL)
        for index, data in target.read_back(range(result.manifest.block_count)):
            assert data == disk.block(index), index
            assert result.manifest.digest(index) == hashlib.sha256(data).digest()
        parent, reference = result.manifest, result.reference


def test_a_child_that_may_become_encrypted_writes_the_zeros_that_its_parent_left_out():
    shelf = Shelf()
    disk = SyntheticDisk([(2 * B, DATA, 1), (3 * B, ZERO, 0), (2 * B, DATA, 0)])
    plain = send(disk, MemoryTarget(shelf, unwritten_reads_zero=True))
    assert not plain.manifest.is_written(3)
    target = MemoryTarget(shelf, parent=plain.reference, unwritten_reads_zero=False)
    child = send(disk, target, parent=plain.manifest, verify=VerifyLevel.FULL)
    for index, data in target.read_back(range(7)):
        assert data == disk.block(index), index
    assert child.manifest.is_written(3)
    assert not child.manifest.absent_reads_zero
    assert child.stats.bytes_sent == 5 * B


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(LAYOUTS)
def test_only_data_is_read_and_read_once(layout: Layout):
    disk = SyntheticDisk(layout)
    target = MemoryTarget()
    result = send(disk, target, verify=VerifyLevel.AGGREGATE, partitions=())
    allocated = sum(length for length, state, _seed in layout if state is DATA)
    assert result.stats.bytes_read == disk.bytes_read == allocated


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(LAYOUTS, st.booleans())
def test_sending_the_same_image_as_a_child_puts_nothing(layout: Layout, unwritten_reads_zero: bool):
    shelf = Shelf()
    disk = SyntheticDisk(layout)
    first = send(disk, MemoryTarget(shelf, unwritten_reads_zero=unwritten_reads_zero))
    before = len(shelf.puts)
    child = MemoryTarget(shelf, parent=first.reference, unwritten_reads_zero=unwritten_reads_zero)
    second = send(disk, child, parent=first.manifest)
    assert len(shelf.puts) == before
    assert second.stats.bytes_sent == 0
    assert second.manifest == first.manifest


def test_a_delta_sends_the_changed_blocks_and_the_tombstones_only():
    shelf = Shelf()
    layout = [(B, DATA, number) for number in range(1, 41)]
    first = send(SyntheticDisk(layout), MemoryTarget(shelf))
    before = len(shelf.puts)
    layout[3] = (B, DATA, 99)
    layout[7] = (B, DATA, 0)
    layout[11] = (B, HOLE, 0)
    layout[15] = (B, ZERO, 0)
    child = MemoryTarget(shelf, parent=first.reference)
    second = send(SyntheticDisk(layout), child, parent=first.manifest)
    assert sorted(shelf.puts[before:]) == [3, 7, 11, 15]
    assert dict(child.read_back([7, 11, 15])) == dict.fromkeys([7, 11, 15], ZERO_BLOCK)
    assert second.stats.bytes_sent == 4 * B
    assert second.stats.bytes_skipped == 36 * B


def test_the_image_digest_does_not_depend_on_holes_or_on_the_target():
    one = SyntheticDisk([(B, DATA, 1), (B, HOLE, 0), (B + 512, DATA, 2)])
    other = SyntheticDisk([(B, DATA, 1), (B, ZERO, 0), (B + 512, DATA, 2)])
    digests = {
        send(disk, MemoryTarget(unwritten_reads_zero=reads_zero)).manifest.image_digest()
        for disk in (one, other)
        for reads_zero in (True, False)
    }
    assert len(digests) == 1
    larger = SyntheticDisk([*other.layout, (B, HOLE, 0)])
    assert send(larger, MemoryTarget()).manifest.image_digest() not in digests


def test_a_source_that_changed_before_the_end_is_not_committed():
    shelf = Shelf()
    disk = SyntheticDisk([(20 * B, DATA, 1)])

    def change(index: int) -> None:
        disk.changed = disk.changed or index == 10

    shelf.faults.before_put = change
    folder = MemoryFolder()
    with pytest.raises(SourceChanged):
        send(disk, MemoryTarget(shelf), folder=folder)
    assert [stored.state for stored in shelf.disks.values()] == ["deleted"]
    assert folder.list() == []


class Rotting(MemoryTarget):
    """Loses one bit of one block between commit and reading back."""

    rotten = 5

    def read_back(self, indexes: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        for index, data in super().read_back(indexes):
            yield index, (b"\x01" + data[1:] if index == self.rotten else data)


class Forgetful(MemoryTarget):
    """Does not give back one block."""

    def read_back(self, indexes: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        return ((index, data) for index, data in super().read_back(indexes) if index != 5)


@pytest.mark.parametrize("kind", [Rotting, Forgetful])
@pytest.mark.parametrize("level", [VerifyLevel.SAMPLE, VerifyLevel.FULL])
def test_damage_behind_our_back_fails_the_verification(
    kind: type[MemoryTarget], level: VerifyLevel
):
    shelf = Shelf()
    with pytest.raises(VerificationFailed) as caught:
        send(SyntheticDisk([(20 * B, DATA, 1)]), kind(shelf), verify=level)
    assert caught.value.fields["blocks"] == [5]


@pytest.mark.parametrize("level", [VerifyLevel.SERVER_CHECKSUM, VerifyLevel.AGGREGATE])
def test_a_level_that_reads_nothing_back_does_not_claim_to(level: VerifyLevel):
    result = send(SyntheticDisk([(20 * B, DATA, 1)]), Rotting(), verify=level)
    assert result.verified.startswith("not read back")
    assert f"({level})" in result.verified


def test_a_sample_always_has_the_ends_and_the_efi_partition(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("imageport.transfer.verify.SAMPLE_BLOCKS", 3)
    read: list[int] = []

    class Watched(MemoryTarget):
        def read_back(self, indexes: Iterable[int]) -> Iterator[tuple[int, bytes]]:
            chosen = list(indexes)
            read.extend(chosen)
            return super().read_back(chosen)

    efi = Partition(
        1, 20 * B, 2 * MIB, "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "GUID", "EFI system"
    )
    result = send(SyntheticDisk([(100 * B, DATA, 1)]), Watched(), partitions=(efi,))
    assert {0, 1, 98, 99, 20, 21, 22, 23} <= set(read)
    assert 8 <= len(read) <= 11
    assert "(L2)" in result.verified
