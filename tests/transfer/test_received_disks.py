"""A disk that arrives once: exact whatever the pieces, resumed by digest, sealed if sound."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from typing import Any

import pytest
from arriving_disk import ArrivingDisk, Pieces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic_disk import DATA, HOLE, ZERO, SyntheticDisk
from test_transfer_exactness import LAYOUTS, Layout

from imageport.errors import (
    BadDisk,
    ExportInterrupted,
    InputError,
    SourceChanged,
    TransferCancelled,
    VerificationFailed,
)
from imageport.formats.vhdx_target import VhdxFileTarget
from imageport.model import BLOCK_BYTES, MIB, ZERO_BLOCK
from imageport.progress import Event
from imageport.storage.memory import MemoryFolder
from imageport.transfer.journal import Journal
from imageport.transfer.manifest import Manifest
from imageport.transfer.memory_target import MemoryTarget, Shelf
from imageport.transfer.receiving import receive
from imageport.transfer.request import TransferRequest, TransferResult, VerifyLevel

B = BLOCK_BYTES


def take_in(
    stream: ArrivingDisk,
    target: Any,
    folder: MemoryFolder | None = None,
    *,
    base: SyntheticDisk | None = None,
    key: str = "frozen",
    **request: Any,
) -> TransferResult:
    journal = Journal(folder or MemoryFolder(), "one.journal")
    request.setdefault("verify", VerifyLevel.FULL)
    wanted = TransferRequest(journal, "token", stage="export", **request)
    return receive(stream, target, wanted, content_key=key, base=base)


def check_exact(target: MemoryTarget, content: bytes, manifest: Manifest) -> None:
    for index, data in target.read_back(range(manifest.block_count)):
        assert data == content[index * B : (index + 1) * B].ljust(B, b"\0"), index
        assert manifest.digest(index) == hashlib.sha256(data).digest(), index


def digests_of(disk: SyntheticDisk) -> Manifest:
    manifest = Manifest(disk.size_bytes, absent_reads_zero=False)
    for index in range(manifest.block_count):
        manifest.set(index, hashlib.sha256(disk.block(index)).digest())
    return manifest


# --- whole disks --------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(LAYOUTS, st.sampled_from([512, 4096, 65536, B - 512, MIB]), st.booleans())
def test_whatever_the_pieces_what_does_not_come_reads_as_zeros(
    layout: Layout, piece_bytes: int, unwritten_reads_zero: bool
) -> None:
    disk = SyntheticDisk(layout)
    target = MemoryTarget(unwritten_reads_zero=unwritten_reads_zero)
    result = take_in(ArrivingDisk.of(disk, piece_bytes=piece_bytes), target)
    check_exact(target, disk.content(0, disk.size_bytes), result.manifest)
    arrived = sum(length for length, state, _seed in layout if state is DATA)
    assert result.stats.bytes_read == arrived


def test_what_does_not_come_takes_no_room_in_a_file() -> None:
    disk = SyntheticDisk([(B, DATA, 1), (40 * MIB, HOLE, 0), (B, DATA, 2), (B - 512, DATA, 3)])
    folder = MemoryFolder()
    target = VhdxFileTarget(folder, "gold.part", block_bytes=MIB)
    stream = ArrivingDisk.of(disk)
    result = take_in(stream, target)
    assert (result.reference, stream.finished) == ("gold.part", 1)
    assert result.stats.bytes_sent == 3 * B
    stat = folder.stat("gold.part")
    assert stat is not None
    assert stat.size_bytes < 8 * MIB
    with target.open_written() as written:
        assert written.read_at(0, disk.size_bytes) == disk.content(0, disk.size_bytes)


def test_progress_reaches_the_size_of_the_disk_and_tells_what_was_compared() -> None:
    events: list[Event] = []
    disk = SyntheticDisk([(3 * B, DATA, 1), (5 * B, HOLE, 0), (2 * B, DATA, 2)])
    result = take_in(ArrivingDisk.of(disk), MemoryTarget(), events=events.append)
    told = [event for event in events if event.stage == "export"]
    assert told[0].total == 10 * B
    assert max(event.done for event in told) == told[-1].done == 10 * B
    assert result.received == "the checksum of what was sent was compared"
    assert result.received in [event.note for event in told]


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([(0, b"x" * 1024), (512, b"y" * 512)], "found bytes 512..1024"),
        ([(B, b"x" * 512), (0, b"y" * 512)], f"found bytes 0..512, needed some between {B + 512}"),
        ([(2 * B - 512, b"x" * 1024)], f"and {2 * B}"),
    ],
    ids=["overlap", "back", "outside"],
)
def test_pieces_that_contradict_each_other_are_refused(pieces: Pieces, words: str) -> None:
    shelf, folder = Shelf(), MemoryFolder()
    with pytest.raises(BadDisk, match=words):
        take_in(ArrivingDisk(2 * B, pieces), MemoryTarget(shelf), folder)
    assert [disk.state for disk in shelf.disks.values()] == ["deleted"]
    assert folder.list() == []


# --- ends before the end ------------------------------------------------------------------------

LONG = SyntheticDisk([(40 * B, DATA, 7), (B, ZERO, 0), (B, DATA, 9)])


@pytest.mark.parametrize("cuts", [(1,), (8, 18), (20, 3, 12)])
def test_after_a_cut_what_the_target_holds_is_received_again_and_not_put(
    cuts: tuple[int, ...],
) -> None:
    shelf, folder = Shelf(), MemoryFolder()
    for cut in cuts:

        def fail(number: int, at: int = cut) -> None:
            if number == at:
                raise ExportInterrupted("Cannot go on: the connection was cut.")

        stream = ArrivingDisk.of(LONG, before=fail)
        with pytest.raises(ExportInterrupted):
            take_in(stream, MemoryTarget(shelf), folder)
        assert stream.finished == 0
        assert [disk.state for disk in shelf.disks.values()] == ["pending"]
    before = set(shelf.puts)
    target = MemoryTarget(shelf)
    result = take_in(ArrivingDisk.of(LONG), target, folder)
    check_exact(target, LONG.content(0, LONG.size_bytes), result.manifest)
    again = [index for index, count in Counter(shelf.puts).items() if count > 1]
    # Records that no checkpoint wrote are lost with the process; a raised error loses none.
    assert again == []
    assert result.stats.bytes_resumed == len(before) * B
    assert result.stats.bytes_resumed + result.stats.bytes_sent == 41 * B


def test_blocks_that_come_otherwise_the_second_time_are_put_again() -> None:
    shelf, folder = Shelf(), MemoryFolder()
    numbers = list(range(1, 21))
    first = SyntheticDisk([(B, DATA, number) for number in numbers])

    def fail(number: int) -> None:
        if number == 9:
            while not {2, 4} <= set(shelf.puts):
                time.sleep(0.01)
            raise ExportInterrupted("Cannot go on: the connection was cut.")

    with pytest.raises(ExportInterrupted):
        take_in(ArrivingDisk.of(first, before=fail), MemoryTarget(shelf), folder)
    put = len(shelf.puts)
    numbers[2], numbers[4] = 99, 0
    layout = [(B, DATA if number else HOLE, number) for number in numbers]
    second = SyntheticDisk(layout)
    target = MemoryTarget(shelf)
    result = take_in(ArrivingDisk.of(second), target, folder)
    check_exact(target, second.content(0, second.size_bytes), result.manifest)
    assert {2, 4} <= set(shelf.puts[put:])
    assert dict(target.read_back([4]))[4] == ZERO_BLOCK


def test_another_content_starts_over() -> None:
    shelf, folder = Shelf(), MemoryFolder()

    def fail(number: int) -> None:
        if number == 10:
            raise ExportInterrupted("Cannot go on: the connection was cut.")

    with pytest.raises(ExportInterrupted):
        take_in(ArrivingDisk.of(LONG, before=fail), MemoryTarget(shelf), folder)
    result = take_in(ArrivingDisk.of(LONG), MemoryTarget(shelf), folder, key="another snapshot")
    assert result.stats.bytes_resumed == 0
    assert [disk.state for disk in shelf.disks.values()] == ["deleted", "committed"]


@pytest.mark.parametrize("stays", [True, False])
def test_what_was_not_sent_so_is_never_committed(stays: bool) -> None:
    shelf, folder = Shelf(), MemoryFolder()
    stream = ArrivingDisk.of(LONG, is_sound=False)
    with pytest.raises(VerificationFailed):
        take_in(stream, MemoryTarget(shelf), folder, may_go_on=lambda _error: stays)
    assert stream.finished == 1
    states = [disk.state for disk in shelf.disks.values()]
    assert (states, len(folder.list())) == ((["pending"], 1) if stays else (["deleted"], 0))
    if stays:
        target = MemoryTarget(shelf)
        result = take_in(ArrivingDisk.of(LONG), target, folder)
        check_exact(target, LONG.content(0, LONG.size_bytes), result.manifest)
        assert result.stats.bytes_sent == 0


def test_a_cancel_ends_a_stream_between_two_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imageport.transfer.running.POLL_SECONDS", 0.0)
    reached: list[int] = []
    stream = ArrivingDisk.of(LONG, before=reached.append)
    with pytest.raises(TransferCancelled, match="export of 'arriving'"):
        take_in(stream, MemoryTarget(), cancelled=lambda: len(reached) > 10)
    assert len(reached) < 15
    assert stream.finished == 0


def test_a_call_killed_between_commit_and_record_finds_its_target(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shelf, folder = Shelf(), MemoryFolder()
    with monkeypatch.context() as patch:

        def kill(*_: object, **__: object) -> str:
            raise KeyboardInterrupt

        patch.setattr("imageport.transfer.running.verify", kill)
        with pytest.raises(KeyboardInterrupt):
            take_in(ArrivingDisk.of(LONG), MemoryTarget(shelf), folder)
    puts = len(shelf.puts)
    target = MemoryTarget(shelf)
    result = take_in(ArrivingDisk.of(LONG), target, folder)
    check_exact(target, LONG.content(0, LONG.size_bytes), result.manifest)
    assert (len(shelf.puts), len(shelf.disks)) == (puts, 1)


# --- changes to a base --------------------------------------------------------------------------

SECTORS = st.integers(0, 4 * B // 512)
CHANGES = st.lists(
    st.tuples(SECTORS, st.integers(1, 2 * B // 512), st.integers(0, 255)), max_size=6
)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(LAYOUTS, CHANGES, st.integers(0, B // 512), st.booleans(), st.booleans(), st.integers(1, 3))
def test_what_does_not_come_is_as_in_the_base(
    layout: Layout,
    changes: list[tuple[int, int, int]],
    grown_sectors: int,
    is_known: bool,
    unwritten_reads_zero: bool,
    put_blocks: int,
) -> None:
    base = SyntheticDisk(layout)
    model = bytearray(base.content(0, base.size_bytes) + bytes(grown_sectors * 512))
    pieces: list[tuple[int, bytes]] = []
    at = 0
    for skip, count, byte in changes:
        start = at + skip * 512
        at = min(len(model), start + count * 512)
        if start >= at:
            break
        pieces.append((start, bytes([byte]) * (at - start)))
        model[start:at] = pieces[-1][1]
    target = MemoryTarget(unwritten_reads_zero=unwritten_reads_zero, put_blocks=put_blocks)
    result = take_in(
        ArrivingDisk(len(model), pieces),
        target,
        base=base,
        known=digests_of(base) if is_known else None,
    )
    check_exact(target, bytes(model), result.manifest)


def test_a_base_whose_digests_are_known_is_not_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    base = SyntheticDisk([(10 * B, DATA, 3), (B, DATA, 0), (10 * B, DATA, 5)])
    pieces = [(7 * B + 512, b"new" * 512), (15 * B, b"n" * B)]
    content = bytearray(base.content(0, base.size_bytes))
    for offset, data in pieces:
        content[offset : offset + len(data)] = data
    known = digests_of(base)
    hashed: list[int] = []

    class Sha256:
        @staticmethod
        def sha256(data: bytes) -> Any:
            hashed.append(len(data))
            return hashlib.sha256(data)

    monkeypatch.setattr("imageport.transfer.sending.hashlib", Sha256)
    target = MemoryTarget()
    result = take_in(ArrivingDisk(base.size_bytes, pieces), target, base=base, known=known)
    assert hashed == [B, B]
    check_exact(target, bytes(content), result.manifest)
    assert base.bytes_read == 20 * B  # zeros that are known are not read


def test_a_base_that_is_known_and_shown_by_the_target_is_not_read() -> None:
    base = SyntheticDisk([(20 * B, DATA, 3)])
    shelf = Shelf()
    first = take_in(ArrivingDisk.of(base), MemoryTarget(shelf))
    pieces = [(7 * B + 512, b"new" * 512), (20 * B, b"n" * 512)]
    content = bytearray(base.content(0, base.size_bytes) + bytes(B))
    for offset, data in pieces:
        content[offset : offset + len(data)] = data
    child = MemoryTarget(shelf, parent=first.reference)
    result = take_in(
        ArrivingDisk(21 * B, pieces),
        child,
        base=base,
        known=first.manifest,
        parent=first.manifest,
    )
    check_exact(child, bytes(content), result.manifest)
    assert result.stats.bytes_sent == 2 * B
    assert base.bytes_read == B - 1536  # the rest of the block that changed in part


def test_a_base_that_changes_meanwhile_is_not_committed() -> None:
    base = SyntheticDisk([(20 * B, DATA, 1)])
    shelf = Shelf()

    def change(index: int) -> None:
        base.changed = base.changed or index == 10

    shelf.faults.before_put = change
    stream = ArrivingDisk(base.size_bytes, [(0, b"n" * 512)])
    with pytest.raises(SourceChanged):
        take_in(stream, MemoryTarget(shelf), base=base)
    assert [disk.state for disk in shelf.disks.values()] == ["deleted"]


def test_a_base_larger_than_the_disk_and_digests_without_a_base_are_refused() -> None:
    base = SyntheticDisk([(3 * B, DATA, 1)])
    with pytest.raises(InputError, match="found a base of"):
        take_in(ArrivingDisk(2 * B, []), MemoryTarget(), base=base)
    with pytest.raises(InputError, match="without the base"):
        take_in(ArrivingDisk(3 * B, []), MemoryTarget(), known=digests_of(base))
    known = Manifest(2 * B, absent_reads_zero=False)
    with pytest.raises(InputError, match=f"needed {3 * B}"):
        take_in(ArrivingDisk(3 * B, []), MemoryTarget(), base=base, known=known)
