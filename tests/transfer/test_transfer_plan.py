"""Which blocks are read, which are written as zeros, which are left alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_disk import DATA, HOLE, ZERO, SyntheticDisk

from imageport.errors import InputError
from imageport.model import BLOCK_BYTES, ZERO_DIGEST, ExtentState
from imageport.transfer.block_target import TargetTraits
from imageport.transfer.manifest import Manifest
from imageport.transfer.plan import block_runs, make_plan

FILE = TargetTraits("file", unwritten_reads_zero=True)
ENCRYPTED = TargetTraits("encrypted", unwritten_reads_zero=False)
PERHAPS_ENCRYPTED = TargetTraits("perhaps", unwritten_reads_zero=False, fills_holes=False)
B = BLOCK_BYTES


@dataclass(frozen=True)
class Part:
    first_byte: int
    length_bytes: int


def parent_of(digests: dict[int, bytes], blocks: int, *, absent_reads_zero: bool) -> Manifest:
    manifest = Manifest(blocks * B, absent_reads_zero=absent_reads_zero)
    for index, digest in digests.items():
        manifest.set(index, digest)
    return manifest


def test_a_new_file_needs_data_blocks_only():
    disk = SyntheticDisk([(B, DATA, 1), (B, HOLE, 0), (B, ZERO, 0), (B, DATA, 2)])
    plan = make_plan(disk, FILE)
    assert list(plan.data_blocks) == [0, 3]
    assert list(plan.zero_blocks) == []
    assert plan.bytes_to_read == 2 * B


def test_an_encrypted_volume_gets_written_zeros_and_holes_inside_partitions():
    disk = SyntheticDisk([(B, ZERO, 0), (2 * B, HOLE, 0), (B, DATA, 1), (2 * B, HOLE, 0)])
    plan = make_plan(disk, ENCRYPTED, partitions=[Part(2 * B, 3 * B)])
    assert list(plan.zero_blocks) == [0, 2, 4]


def test_a_volume_that_may_become_encrypted_gets_written_zeros_but_no_holes():
    disk = SyntheticDisk([(B, ZERO, 0), (2 * B, HOLE, 0), (B, DATA, 1), (2 * B, HOLE, 0)])
    plan = make_plan(disk, PERHAPS_ENCRYPTED, partitions=[Part(0, 6 * B)])
    assert list(plan.zero_blocks) == [0]


def test_a_hole_over_the_parents_data_is_written_even_where_holes_are_left_out():
    disk = SyntheticDisk([(3 * B, HOLE, 0)])
    parent = parent_of({1: b"d" * 32}, 3, absent_reads_zero=False)
    assert list(make_plan(disk, PERHAPS_ENCRYPTED, parent=parent).zero_blocks) == [1]


def test_a_block_that_only_touches_a_partition_counts_as_inside():
    disk = SyntheticDisk([(4 * B, HOLE, 0)])
    plan = make_plan(disk, ENCRYPTED, partitions=[Part(B + B // 2, B)])
    assert list(plan.zero_blocks) == [1, 2]


def test_a_disk_without_a_partition_table_counts_as_one_partition():
    disk = SyntheticDisk([(3 * B, HOLE, 0)])
    assert list(make_plan(disk, ENCRYPTED).zero_blocks) == [0, 1, 2]


@pytest.mark.parametrize("traits", [FILE, ENCRYPTED])
def test_a_hole_over_data_of_the_parent_is_written_as_zeros_even_outside_partitions(
    traits: TargetTraits,
):
    disk = SyntheticDisk([(4 * B, HOLE, 0)])
    parent = parent_of({1: b"d" * 32, 2: ZERO_DIGEST}, 4, absent_reads_zero=True)
    plan = make_plan(disk, traits, parent=parent, partitions=[Part(3 * B, B)])
    assert list(plan.zero_blocks) == [1]


def test_a_hole_of_an_encrypted_parent_is_garbage_and_not_zero():
    disk = SyntheticDisk([(3 * B, HOLE, 0)])
    parent = parent_of({}, 3, absent_reads_zero=False)
    plan = make_plan(disk, ENCRYPTED, parent=parent, partitions=[Part(B, B)])
    assert list(plan.zero_blocks) == [1]


def test_zeros_that_the_parent_has_are_not_written_again():
    disk = SyntheticDisk([(4 * B, ZERO, 0)])
    parent = parent_of({0: ZERO_DIGEST, 1: b"d" * 32}, 4, absent_reads_zero=False)
    assert list(make_plan(disk, ENCRYPTED, parent=parent).zero_blocks) == [1, 2, 3]


def test_a_grown_disk_takes_nothing_for_granted_behind_the_parent():
    disk = SyntheticDisk([(4 * B, ZERO, 0)])
    parent = parent_of({0: ZERO_DIGEST, 1: ZERO_DIGEST}, 2, absent_reads_zero=False)
    assert list(make_plan(disk, ENCRYPTED, parent=parent).zero_blocks) == [2, 3]


def test_a_parent_larger_than_the_disk_is_refused():
    disk = SyntheticDisk([(B, DATA, 1)])
    with pytest.raises(InputError, match="parent"):
        make_plan(disk, FILE, parent=parent_of({}, 2, absent_reads_zero=True))


def test_a_mixed_block_counts_as_its_strongest_state():
    third = B // 4
    disk = SyntheticDisk(
        [
            (third, HOLE, 0), (third, ZERO, 0), (third, DATA, 1), (third, HOLE, 0),
            (third, HOLE, 0), (third, ZERO, 0), (2 * third, HOLE, 0),
        ]
    )  # fmt: skip
    plan = make_plan(disk, ENCRYPTED)
    assert (list(plan.data_blocks), list(plan.zero_blocks)) == ([0], [1])
    assert plan.bytes_to_read == third


LENGTHS = st.one_of(
    st.integers(1, 4 * B // 512).map(lambda sectors: sectors * 512),
    st.integers(1, 5).map(lambda blocks: blocks * B),
)
LAYOUTS = st.lists(st.tuples(LENGTHS, st.sampled_from([HOLE, ZERO, DATA]), st.just(1)), min_size=1)


@given(LAYOUTS)
def test_block_runs_cover_every_block_once_with_its_strongest_state(
    layout: list[tuple[int, ExtentState, int]],
):
    disk = SyntheticDisk(layout)
    order = [HOLE, ZERO, DATA]
    expected = [
        max(disk.states(index), key=order.index) for index in range(-(-disk.size_bytes // B))
    ]
    runs = list(block_runs(disk))
    assert [state for first, end, state in runs for _index in range(first, end)] == expected
    assert all(first < end for first, end, _state in runs)
    assert runs[0][0] == 0
    assert all(left[1] == right[0] for left, right in pairwise(runs))
