"""A disk composed twice is not the same to the last byte: what may differ is put again.

Recipe: 24 blocks. The first try dies after a number of puts; the second finds other content in
blocks 3 to 9, among it what the parent holds, zeros, and a hole that the first had written to.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest
from synthetic_disk import DATA, HOLE, ZERO, SyntheticDisk

from imageport.errors import CloudRefused
from imageport.model import BLOCK_BYTES
from imageport.storage.memory import MemoryFolder
from imageport.transfer.journal import Journal
from imageport.transfer.memory_target import Faults, MemoryTarget, Shelf
from imageport.transfer.pipeline import (
    NO_DOUBT,
    Doubt,
    TransferRequest,
    TransferResult,
    VerifyLevel,
    transfer,
)

B = BLOCK_BYTES
DOUBTED = frozenset(range(3, 10))
Layout = list[tuple[int, object, int]]


class DiedError(Exception):
    """The process of the first try."""


class ComposedDisk(SyntheticDisk):
    """Says that its content is the same each time, as an overlay does that was composed again."""

    def content_key(self) -> str:
        return "composed"


def disk(*middle: int) -> SyntheticDisk:
    """Blocks 0 to 2 and 12 to 23 are the same each time; 10 is a hole, 11 zeros."""
    blocks = [*range(101, 104), *middle]
    layout = [(B, DATA, number) for number in blocks]
    return ComposedDisk([*layout, (B, HOLE, 0), (B, ZERO, 0), (12 * B, DATA, 200)])


PARENT = disk(1, 2, 3, 4, 5, 6, 7)
FIRST = disk(1, 20, 30, 0, 50, 6, 70)
SECOND = disk(11, 2, 30, 4, 0, 60, 0)


def send(
    source: SyntheticDisk,
    target: MemoryTarget,
    journal: MemoryFolder,
    parent: TransferResult | None,
    doubt: Doubt = NO_DOUBT,
) -> TransferResult:
    request = TransferRequest(
        Journal(journal, "one.journal"), "token", parent=parent.manifest if parent else None,
        verify=VerifyLevel.FULL, doubt=doubt,
    )  # fmt: skip
    return transfer(source, target, request)


@pytest.mark.parametrize(
    ("with_parent", "lives"), [(False, 1), (False, 9), (False, 18), (True, 1), (True, 3)]
)
@pytest.mark.parametrize("starts_from_parent", [True, False])
@pytest.mark.parametrize("reads_zero", [True, False])
def test_a_resumed_transfer_is_exact_and_keeps_what_is_beyond_doubt(
    lives: int, starts_from_parent: bool, with_parent: bool, reads_zero: bool
) -> None:
    shelf, journal = Shelf(), MemoryFolder()
    parent = None

    def client() -> MemoryTarget:
        return MemoryTarget(
            shelf, parent=parent.reference if parent else "",
            starts_from_parent=starts_from_parent, unwritten_reads_zero=reads_zero,
        )  # fmt: skip

    if with_parent:
        parent = send(PARENT, client(), MemoryFolder(), None)
    shelf.puts.clear()

    def die(_index: int) -> None:
        if len(shelf.puts) >= lives:
            time.sleep(0.5)  # the journal is written several times a second
            raise DiedError

    shelf.faults = Faults(before_put=die)
    with pytest.raises(DiedError):
        send(FIRST, client(), journal, parent)
    before = Counter(shelf.puts)
    shelf.faults = Faults()
    target = client()
    result = send(SECOND, target, journal, parent, Doubt(DOUBTED))
    for index, data in target.read_back(range(24)):
        assert data == SECOND.block(index) or (index == 10 and not reads_zero), index
        digest = result.manifest.digest(index)
        assert digest is None or digest == hashlib.sha256(data).digest(), index
    again = Counter(shelf.puts) - before
    assert set(again) >= DOUBTED
    if lives == 18:
        assert result.stats.bytes_resumed
        assert not [index for index in again if index not in DOUBTED and before[index]]


@pytest.mark.parametrize("starts_from_parent", [True, False])
@pytest.mark.parametrize("with_parent", [True, False])
def test_a_target_that_was_whole_is_committed_as_it_was(
    starts_from_parent: bool, with_parent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, journal = Shelf(), MemoryFolder()
    parent = send(PARENT, MemoryTarget(shelf), MemoryFolder(), None) if with_parent else None
    reference = parent.reference if parent else ""
    sealed: list[tuple[str, int]] = []
    commit = MemoryTarget.commit

    def commit_and_die(self: MemoryTarget, digests: Mapping[int, bytes]) -> str:
        assert [puts for _, puts in sealed] == [len(shelf.puts)]
        commit(self, digests)
        raise DiedError

    def client() -> MemoryTarget:
        return MemoryTarget(shelf, parent=reference, starts_from_parent=starts_from_parent)

    monkeypatch.setattr(MemoryTarget, "commit", commit_and_die)
    doubt = Doubt(sealing=lambda seal: sealed.append((seal, len(shelf.puts))))
    with pytest.raises(DiedError):
        send(FIRST, client(), journal, parent, doubt)
    monkeypatch.setattr(MemoryTarget, "commit", commit)
    target = client()
    [(seal, puts)] = sealed
    result = send(SECOND, target, journal, parent, Doubt(DOUBTED, sealed=seal))
    assert len(shelf.puts) == puts
    for index, data in target.read_back(range(24)):
        assert data == FIRST.block(index), index
        assert result.manifest.digest(index) == hashlib.sha256(data).digest(), index


class Notes:
    """What the caller keeps over its deaths."""

    def __init__(self) -> None:
        self.seals = [""]

    def doubt(self) -> Doubt:
        return Doubt(DOUBTED, self.seals[-1], self.seals.append, lambda: self.seals.append(""))


@pytest.mark.parametrize("lives", [0, 1, 5])
@pytest.mark.parametrize("loss", ["target", "blocks"])
def test_what_was_whole_and_then_lost_is_not_taken_for_whole_again(
    loss: str, lives: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, journal, notes = Shelf(), MemoryFolder(), Notes()

    def die_at_commit(_self: MemoryTarget, _digests: Mapping[int, bytes]) -> str:
        raise DiedError

    with monkeypatch.context() as patch:
        patch.setattr(MemoryTarget, "commit", die_at_commit)
        with pytest.raises(DiedError):
            send(FIRST, MemoryTarget(shelf), journal, None, notes.doubt())
    assert notes.seals[-1]
    (lost,) = shelf.disks.values()
    if loss == "target":
        shelf.disks.clear()
    first_puts = len(shelf.puts)

    def die(_index: int) -> None:
        if len(shelf.puts) - first_puts >= lives:
            time.sleep(0.5)  # the journal is written several times a second
            raise DiedError

    shelf.faults = Faults(before_put=die)
    with monkeypatch.context() as patch:
        if loss == "blocks":
            lost.blocks.pop(20)
            patch.setattr(MemoryTarget, "lost", lambda *_: {20})
        with pytest.raises(DiedError):
            send(SECOND, MemoryTarget(shelf), journal, None, notes.doubt())
    shelf.faults = Faults()
    target = MemoryTarget(shelf)
    result = send(SECOND, target, journal, None, notes.doubt())
    for index, data in target.read_back(range(24)):
        assert data == SECOND.block(index), index
        assert result.manifest.digest(index) == hashlib.sha256(data).digest(), index


def test_a_transfer_that_ends_for_good_says_that_nothing_is_in_doubt_any_more() -> None:
    shelf, journal, notes = Shelf(), MemoryFolder(), Notes()

    def refuse(_index: int) -> None:
        raise CloudRefused("Cannot put: no.")

    shelf.faults = Faults(before_put=refuse)
    settled: list[list[str]] = []
    doubt = replace(
        notes.doubt(), settled=lambda: settled.append([entry.name for entry in journal.list()])
    )
    with pytest.raises(CloudRefused):
        send(FIRST, MemoryTarget(shelf), journal, None, doubt)
    assert settled == [[]]
