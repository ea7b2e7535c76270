"""The contract over every target that needs no cloud."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from target_contract import (
    BLOCKS,
    PLAN,
    BlockTargetContract,
    ChildFactory,
    TargetFactory,
    block,
    put_all,
    put_run,
)

from imageport.errors import CloudRefused, ResourceGone
from imageport.formats.raw_target import RawFileTarget
from imageport.formats.vhd_target import FixedVhdFileTarget, VhdFileTarget
from imageport.formats.vhdx_target import VhdxFileTarget
from imageport.model import BLOCK_BYTES
from imageport.storage.local import LocalFolder
from imageport.storage.memory import MemoryFolder
from imageport.transfer.memory_target import MemoryTarget, Shelf


class TestMemoryTarget(BlockTargetContract):
    @pytest.fixture
    def make_target(self) -> TargetFactory:
        shelf = Shelf()
        return lambda: MemoryTarget(shelf)

    @pytest.mark.parametrize("size", [0, 511, BLOCK_BYTES - 1, BLOCK_BYTES + 1])
    def test_a_block_of_another_size_is_refused(self, make_target: TargetFactory, size: int):
        target = make_target()
        target.begin(PLAN, "t")
        data = b"x" * size
        with pytest.raises(CloudRefused):
            target.put(0, data, hashlib.sha256(data).digest())

    def test_a_wrong_checksum_is_refused(self, make_target: TargetFactory):
        target = make_target()
        target.begin(PLAN, "t")
        with pytest.raises(CloudRefused):
            target.put(0, block(1)[0], block(2)[1])

    def test_a_commit_that_forgets_a_block_is_refused(self, make_target: TargetFactory):
        target = make_target()
        target.begin(PLAN, "t")
        digests = put_all(target, {0: 1, 3: 2})
        del digests[3]
        with pytest.raises(CloudRefused):
            target.commit(digests)

    def test_nothing_can_be_put_after_the_commit(self, make_target: TargetFactory):
        target = make_target()
        target.begin(PLAN, "t")
        target.commit(put_all(target, {0: 1}))
        with pytest.raises(ResourceGone):
            target.put(0, *block(1))


class TestMemoryTargetThatStartsEmptyAndTakesRuns(BlockTargetContract):
    @pytest.fixture
    def shelf(self) -> Shelf:
        return Shelf()

    @pytest.fixture
    def make_target(self, shelf: Shelf) -> TargetFactory:
        return lambda: MemoryTarget(shelf, put_blocks=8, starts_from_parent=False)

    @pytest.fixture
    def make_child(self, shelf: Shelf) -> ChildFactory:
        return lambda parent: MemoryTarget(
            shelf, parent=parent, put_blocks=8, starts_from_parent=False
        )

    def test_a_run_that_is_too_long_or_crosses_its_alignment_is_refused(
        self, make_target: TargetFactory
    ):
        target = make_target()
        target.begin(PLAN, "t")
        for first, count in ((0, 9), (7, 2), (BLOCKS - 1, 2)):
            with pytest.raises(CloudRefused):
                put_run(target, first, list(range(1, count + 1)))

    def test_what_the_parent_does_not_hold_cannot_be_taken(
        self, make_target: TargetFactory, make_child: ChildFactory
    ):
        parent = make_target()
        parent.begin(PLAN, "t")
        child = make_child(parent.commit(put_all(parent, {0: 1})))
        child.begin(PLAN, "t2")
        with pytest.raises(CloudRefused):
            child.take_from_parent(0, 2)

    def test_a_parent_that_is_gone_is_gone(
        self, shelf: Shelf, make_target: TargetFactory, make_child: ChildFactory
    ):
        parent = make_target()
        parent.begin(PLAN, "t")
        reference = parent.commit(put_all(parent, {0: 1}))
        child = make_child(reference)
        child.begin(PLAN, "t2")
        shelf.disks[reference].state = "deleted"
        with pytest.raises(ResourceGone):
            child.take_from_parent(0, 1)


class TestMemoryTargetOfAnEncryptedVolume(BlockTargetContract):
    @pytest.fixture
    def make_target(self) -> TargetFactory:
        shelf = Shelf()
        return lambda: MemoryTarget(shelf, unwritten_reads_zero=False)

    def test_an_unwritten_block_reads_as_garbage(self, make_target: TargetFactory):
        target = make_target()
        target.begin(PLAN, "t")
        target.commit(put_all(target, {0: 1}))
        [(_index, data)] = target.read_back([9])
        assert len(data) == BLOCK_BYTES
        assert any(data)


class TestVhdxFileOnALocalFolder(BlockTargetContract):
    @pytest.fixture
    def make_target(self, tmp_path: Path) -> TargetFactory:
        return lambda: VhdxFileTarget(LocalFolder(tmp_path), "disk.vhdx.part")


class TestVhdxFileInMemory(BlockTargetContract):
    @pytest.fixture
    def make_target(self) -> TargetFactory:
        folder = MemoryFolder()
        return lambda: VhdxFileTarget(folder, "disk.vhdx.part")


class TestVhdFileOnALocalFolder(BlockTargetContract):
    @pytest.fixture
    def make_target(self, tmp_path: Path) -> TargetFactory:
        return lambda: VhdFileTarget(LocalFolder(tmp_path), "disk.vhd.part")


class TestFixedVhdFileOnALocalFolder(BlockTargetContract):
    @pytest.fixture
    def make_target(self, tmp_path: Path) -> TargetFactory:
        return lambda: FixedVhdFileTarget(LocalFolder(tmp_path), "disk.vhd.part")


class TestRawFileOnALocalFolder(BlockTargetContract):
    @pytest.fixture
    def make_target(self, tmp_path: Path) -> TargetFactory:
        return lambda: RawFileTarget(LocalFolder(tmp_path), "disk.raw.part")
