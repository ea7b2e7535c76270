"""Adjacent blocks travel together, aligned, and no block waits for one that may not come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imageport.transfer.block_groups import Block, BlockGroups


def grouped(indexes: list[int], put_blocks: int, most_blocks: int) -> list[list[int]]:
    groups = BlockGroups(put_blocks, most_blocks)
    closed = [group for index in indexes for group in groups.add(Block(index, None))]
    return [[block.index for block in group] for group in closed + groups.close()]


def test_a_group_ends_at_its_alignment_at_a_gap_and_with_the_stream():
    assert grouped([2, 3, 4, 5, 7, 8], 4, 4) == [[2, 3], [4, 5], [7], [8]]


def test_a_full_group_is_closed_at_once():
    groups = BlockGroups(4, 4)
    assert [groups.add(Block(index, None)) for index in (4, 5, 6)] == [[], [], []]
    assert len(groups.add(Block(7, None))) == 1
    assert groups.close() == []


def test_single_blocks_are_never_held():
    groups = BlockGroups(1, 1)
    assert groups.add(Block(5, b"x")) == [[Block(5, b"x")]]
    assert groups.close() == []


@given(st.lists(st.integers(0, 60), unique=True), st.integers(1, 8), st.integers(1, 8))
def test_every_block_is_in_one_group_of_one_aligned_run(
    indexes: list[int], put_blocks: int, most_blocks: int
):
    groups = grouped(sorted(indexes), put_blocks, most_blocks)
    assert [index for group in groups for index in group] == sorted(indexes)
    for group in groups:
        assert group == list(range(group[0], group[0] + len(group)))
        assert len(group) <= most_blocks
        assert group[0] // put_blocks == group[-1] // put_blocks
