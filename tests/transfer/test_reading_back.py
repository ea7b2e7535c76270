"""Reading back large disks: in few goes, in little memory, and no block is left out."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator
from unittest import mock

import pytest

from imageport.errors import VerificationFailed
from imageport.model import BLOCK_BYTES, ZERO_BLOCK, ZERO_DIGEST
from imageport.transfer.block_target import BlockTarget, TargetTraits
from imageport.transfer.manifest import Manifest
from imageport.transfer.verify import VerifyLevel, verify

COUNT = 200_000


class ReadBack:
    """A target of zeros that counts how often it is opened; one block may be wrong."""

    def __init__(self, wrong: int = -1) -> None:
        self.opened: list[int] = []
        self.wrong = wrong

    def read(self, indexes: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        wanted = list(indexes)
        self.opened.append(len(wanted))
        for index in wanted:
            yield index, b"x" * BLOCK_BYTES if index == self.wrong else ZERO_BLOCK

    def target(self) -> BlockTarget:
        found = mock.create_autospec(BlockTarget, instance=True)
        found.traits = TargetTraits("zeros", unwritten_reads_zero=True)
        found.read_back = self.read
        assert isinstance(found, BlockTarget)
        return found


def hardly_written() -> Manifest:
    manifest = Manifest(COUNT * BLOCK_BYTES - 512, absent_reads_zero=True)
    manifest.set(7, ZERO_DIGEST)
    return manifest


def test_a_large_disk_is_read_back_whole_in_few_goes_and_little_memory() -> None:
    zeros, polls = ReadBack(), []
    tracemalloc.start()
    words = verify(zeros.target(), hardly_written(), VerifyLevel.FULL, poll=lambda: polls.append(1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert words == "read back in full: 200,000 blocks compared (L3)"
    assert sum(zeros.opened) == COUNT
    assert len(polls) == len(zeros.opened) < 60  # 782 goes of 256 blocks
    assert peak < 4_000_000


@pytest.mark.parametrize("wrong", [0, 100_000, COUNT - 1])
def test_one_wrong_block_of_a_large_disk_is_named(wrong: int) -> None:
    with pytest.raises(VerificationFailed, match=f"{wrong}\\)"):
        verify(ReadBack(wrong).target(), hardly_written(), VerifyLevel.FULL)


def test_a_sample_of_a_disk_smaller_than_its_edges_reads_only_what_is_there() -> None:
    zeros = ReadBack()
    manifest = Manifest(512, absent_reads_zero=True)
    verify(zeros.target(), manifest, VerifyLevel.SAMPLE)
    assert zeros.opened == [1]
