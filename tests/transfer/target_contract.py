"""What every `BlockTarget` does, as tests.

An area with a target of its own subclasses `BlockTargetContract` and overrides the fixture
``make_target`` to return a factory; each call of the factory is a new client of the same service,
as a process that starts again after a crash is. Targets that start empty although they have a
parent override ``make_child`` too: a factory that takes the reference of a committed parent. Which
tests apply is told by the declared traits alone.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from imageport.errors import ImageportError, ResourceGone
from imageport.model import BLOCK_BYTES, ZERO_BLOCK, ZERO_DIGEST
from imageport.transfer.block_target import BlockTarget, TransferPlan

TargetFactory = Callable[[], BlockTarget]
ChildFactory = Callable[[str], BlockTarget]

BLOCKS = 2048
"""1 GiB: the smallest snapshot that AWS makes."""
PLAN = TransferPlan(BLOCKS * BLOCK_BYTES, (0, 3, 4, BLOCKS - 1), (1,), 4 * BLOCK_BYTES)


MOST_THREADS = 16
"""Of one target that is read back: verifying a large disk asks for thousands of batches."""


def block(seed: int) -> tuple[bytes, bytes]:
    data = random.Random(seed).randbytes(BLOCK_BYTES)  # noqa: S311 - repeatable, no secret
    return data, hashlib.sha256(data).digest()


def put_all(target: BlockTarget, seeds: dict[int, int]) -> dict[int, bytes]:
    digests = {}
    for index, seed in seeds.items():
        data, digest = block(seed)
        target.put(index, data, digest)
        digests[index] = digest
    return digests


def put_run(target: BlockTarget, first_index: int, seeds: list[int]) -> dict[int, bytes]:
    blocks = [block(seed) for seed in seeds]
    digests = [digest for _data, digest in blocks]
    target.put_run(first_index, b"".join(data for data, _digest in blocks), digests)
    return dict(enumerate(digests, start=first_index))


def needs_runs(target: BlockTarget) -> None:
    if target.traits.put_blocks == 1:
        target.close()
        pytest.skip("the target declares that it takes single blocks")


def needs_an_empty_start(target: BlockTarget) -> None:
    if target.traits.starts_from_parent:
        target.close()
        pytest.skip("the target declares that it starts from its parent")


class BlockTargetContract:
    @pytest.fixture
    def make_target(self) -> TargetFactory:
        raise NotImplementedError

    @pytest.fixture
    def make_child(self) -> ChildFactory:
        def no_child(_parent: str) -> BlockTarget:
            raise NotImplementedError

        return no_child

    def test_blocks_put_in_any_order_read_back_exactly(self, make_target: TargetFactory):
        target = make_target()
        target.begin(PLAN, "token-order")
        digests = put_all(target, {BLOCKS - 1: 4, 3: 2, 0: 1, 4: 3})
        target.commit(digests)
        read = dict(target.read_back([0, 3, 4, BLOCKS - 1]))
        assert {index: hashlib.sha256(data).digest() for index, data in read.items()} == digests
        target.close()

    def test_blocks_put_by_many_threads_read_back_exactly(self, make_target: TargetFactory):
        target = make_target()
        target.begin(PLAN, "token-threads")
        wanted = {index: block(index) for index in range(40, 72)}
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda index: target.put(index, *wanted[index]), wanted))
        target.commit({index: digest for index, (_data, digest) in wanted.items()})
        assert dict(target.read_back(sorted(wanted))) == {i: d for i, (d, _h) in wanted.items()}
        target.close()

    def test_reading_back_in_many_batches_takes_few_threads(self, make_target: TargetFactory):
        target = make_target()
        target.begin(PLAN, "token-batches")
        target.commit(put_all(target, {3: 2}))
        before = threading.active_count()
        for _batch in range(MOST_THREADS + 8):
            assert dict(target.read_back([3])) == {3: block(2)[0]}
        assert threading.active_count() - before <= MOST_THREADS
        target.close()

    def test_a_written_zero_block_reads_as_zeros(self, make_target: TargetFactory):
        target = make_target()
        target.begin(PLAN, "token-zero")
        digests = put_all(target, {0: 1})
        target.put(1, ZERO_BLOCK, ZERO_DIGEST)
        target.commit(digests | {1: ZERO_DIGEST})
        assert dict(target.read_back([1])) == {1: ZERO_BLOCK}
        target.close()

    def test_zeros_put_over_data_read_as_zeros(self, make_target: TargetFactory):
        target = make_target()
        target.begin(PLAN, "token-over")
        digests = put_all(target, {0: 1, 3: 2})
        target.put(3, ZERO_BLOCK, ZERO_DIGEST)
        target.commit(digests | {3: ZERO_DIGEST})
        assert dict(target.read_back([3])) == {3: ZERO_BLOCK}
        target.close()

    def test_an_unwritten_block_reads_as_the_traits_say(self, make_target: TargetFactory):
        target = make_target()
        target.begin(PLAN, "token-absent")
        digests = put_all(target, {0: 1})
        target.commit(digests)
        if target.traits.unwritten_reads_zero:
            assert dict(target.read_back([7])) == {7: ZERO_BLOCK}
        target.close()

    def test_putting_a_block_again_is_harmless(self, make_target: TargetFactory):
        target = make_target()
        target.begin(PLAN, "token-again")
        put_all(target, {3: 2})
        digests = put_all(target, {3: 2, 4: 3})
        target.commit(digests)
        assert dict(target.read_back([3])) == {3: block(2)[0]}
        target.close()

    def test_beginning_again_with_a_token_makes_no_second_target(self, make_target: TargetFactory):
        first = make_target()
        handle = first.begin(PLAN, "token-twice")
        first.close()
        second = make_target()
        assert second.begin(PLAN, "token-twice") == handle
        digests = put_all(second, {0: 1})
        second.commit(digests)
        second.close()

    def test_another_client_goes_on_from_the_handle(self, make_target: TargetFactory):
        first = make_target()
        handle = first.begin(PLAN, "token-resume")
        digests = put_all(first, {0: 1, 3: 2})
        first.flush()
        first.close()
        second = make_target()
        second.resume(PLAN, handle)
        digests |= put_all(second, {4: 3})
        second.commit(digests)
        assert dict(second.read_back([0, 4])) == {0: block(1)[0], 4: block(3)[0]}
        second.close()

    def test_committing_again_returns_the_same_reference(self, make_target: TargetFactory):
        first = make_target()
        handle = first.begin(PLAN, "token-commit")
        digests = put_all(first, {0: 1})
        reference = first.commit(digests)
        assert first.commit(digests) == reference
        first.close()
        second = make_target()
        second.resume(PLAN, handle)
        assert second.commit(digests) == reference
        assert dict(second.read_back([0])) == {0: block(1)[0]}
        second.close()

    def test_an_aborted_target_cannot_be_taken_up_again(self, make_target: TargetFactory):
        target = make_target()
        handle = target.begin(PLAN, "token-abort")
        put_all(target, {0: 1})
        target.abort()
        target.abort()
        target.close()
        with pytest.raises(ResourceGone):
            make_target().resume(PLAN, handle)

    def test_aborting_never_removes_a_committed_target(self, make_target: TargetFactory):
        target = make_target()
        handle = target.begin(PLAN, "token-keep")
        digests = put_all(target, {0: 1})
        reference = target.commit(digests)
        target.abort()
        target.close()
        again = make_target()
        again.resume(PLAN, handle)
        assert again.commit(digests) == reference
        assert dict(again.read_back([0])) == {0: block(1)[0]}
        again.close()

    def test_a_handle_that_never_was_is_gone(self, make_target: TargetFactory):
        with pytest.raises(ResourceGone):
            make_target().resume(PLAN, "snap-0123456789abcdef0")

    def test_closing_twice_is_harmless(self, make_target: TargetFactory):
        target = make_target()
        target.begin(PLAN, "token-close")
        target.close()
        target.close()

    def test_using_a_target_before_it_is_begun_is_one_of_our_errors(
        self, make_target: TargetFactory
    ):
        with pytest.raises(ImageportError):
            make_target().put(0, *block(1))

    # --- runs -----------------------------------------------------------------------------------

    def test_runs_and_single_blocks_read_back_exactly(self, make_target: TargetFactory):
        target = make_target()
        needs_runs(target)
        most = target.traits.put_blocks
        target.begin(PLAN, "token-runs")
        digests = put_run(target, 2 * most, list(range(1, most + 1)))
        digests |= put_run(target, most, [31, 32])
        digests |= put_all(target, {most + 3 if most > 3 else 0: 33})
        digests |= put_run(target, BLOCKS - 2, [34, 35])
        target.commit(digests)
        read = dict(target.read_back(sorted(digests)))
        assert {index: hashlib.sha256(data).digest() for index, data in read.items()} == digests
        target.close()

    def test_a_run_over_blocks_that_were_put_counts_once(self, make_target: TargetFactory):
        target = make_target()
        needs_runs(target)
        target.begin(PLAN, "token-run-again")
        put_all(target, {0: 9})
        put_run(target, 0, [1, 2])
        digests = put_run(target, 0, [1, 2])
        target.commit(digests)
        assert dict(target.read_back([0, 1])) == {0: block(1)[0], 1: block(2)[0]}
        target.close()

    def test_runs_put_by_many_threads_read_back_exactly(self, make_target: TargetFactory):
        target = make_target()
        needs_runs(target)
        most = target.traits.put_blocks
        target.begin(PLAN, "token-run-threads")
        firsts = range(8 * most, 16 * most, most)
        seeds = {first: list(range(first, first + most)) for first in firsts}
        with ThreadPoolExecutor(4) as pool:
            put = list(pool.map(lambda first: put_run(target, first, seeds[first]), firsts))
        digests = {index: digest for part in put for index, digest in part.items()}
        target.commit(digests)
        read = dict(target.read_back(sorted(digests)))
        assert {index: hashlib.sha256(data).digest() for index, data in read.items()} == digests
        target.close()

    # --- blocks of the parent -------------------------------------------------------------------

    def test_blocks_taken_from_the_parent_read_back_as_there(
        self, make_target: TargetFactory, make_child: ChildFactory
    ):
        parent = make_target()
        needs_an_empty_start(parent)
        parent.begin(PLAN, "token-parent")
        digests = put_all(parent, {0: 1, 8: 2, 9: 3, 30: 4})
        reference = parent.commit(digests)
        parent.close()
        child = make_child(reference)
        child.begin(PLAN, "token-child")
        new = put_all(child, {0: 11, 40: 12})
        child.take_from_parent(8, 2)
        child.take_from_parent(8, 2)
        child.commit(new | {8: digests[8], 9: digests[9]})
        assert dict(child.read_back([0, 8, 9, 40])) == {
            0: block(11)[0], 8: block(2)[0], 9: block(3)[0], 40: block(12)[0],
        }  # fmt: skip
        if child.traits.unwritten_reads_zero:
            assert dict(child.read_back([30])) == {30: ZERO_BLOCK}
        child.close()

    # --- after a crash --------------------------------------------------------------------------

    def test_a_block_that_was_put_is_never_called_lost(self, make_target: TargetFactory):
        first = make_target()
        handle = first.begin(PLAN, "token-lost")
        digests = put_all(first, {0: 1, 3: 2, BLOCKS - 1: 4})
        first.flush()
        first.close()
        second = make_target()
        second.resume(PLAN, handle)
        assert second.lost(digests) == set()
        assert second.lost([0, 3, 7]) <= {7}
        second.commit(digests)
        second.close()
        third = make_target()
        third.resume(PLAN, handle)
        assert third.lost(digests) == set()
        third.close()
