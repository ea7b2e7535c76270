"""One vDisk to several targets at once: read once, and each target for itself."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from imageport.cloud import Cancelled
from imageport.clouds.memory import MemoryBehaviour, MemoryCloud
from imageport.clouds.memory_blocks import MemoryAccount
from imageport.clouds.memory_target import MemorySnapshotTarget
from imageport.errors import (
    CloudRefused,
    CloudUnavailable,
    LeaseHeld,
    ShareUnreachable,
    SourceChanged,
    TransferCancelled,
)
from imageport.formats.opening import open_disk
from imageport.model import BLOCK_BYTES, MIB
from imageport.progress import Event, EventKind
from imageport.storage.memory import MemoryFile
from imageport.workflow.facts import source_facts
from imageport.workflow.fan_out import Outcome, side_by_side
from imageport.workflow.place import Workplace
from imageport.workflow.shared_source import SharedSource
from imageport.workflow.upload import upload, upload_opened
from tests.workflow.many_uploads import FanOut, Uploaded, upload_to_many
from tests.workflow.small_site import SmallSite

NAMES = ("aws", "azure", "gcp")
BLOCKS = tuple(range(1, 61))
SIZE_BYTES = 32 * MIB
Put = Callable[[MemorySnapshotTarget, int], None]


class Fleet:
    """Three clouds for one source; the second takes runs and starts empty."""

    def __init__(self) -> None:
        self.site = SmallSite()
        self.site.write_vdisk(*BLOCKS, size_bytes=SIZE_BYTES)
        self.accounts = {name: MemoryAccount() for name in NAMES}

    def place(self, name: str, run: str = "run-1") -> Workplace:
        cloud = MemoryCloud(
            self.site.state.ledger,
            f"{run}-{name}",
            site="site-b",
            account=self.accounts[name],
            behaviour=MemoryBehaviour(starts_from_parent=name != "azure"),
        )
        return Workplace("site-b", f"{name}/here/site-b", run, self.site.state, cloud)

    def places(self, run: str = "run-1") -> list[Workplace]:
        return [self.place(name, run) for name in NAMES]

    def key(self) -> str:
        return source_facts(self.site.source, "gold").source_key

    def brought(self, *places: Workplace) -> FanOut:
        chosen = places or self.places()
        return upload_to_many(chosen, self.site.source, "gold", source_key=self.key())

    def check(self, name: str, uploaded: Uploaded) -> None:
        """Compare the whole snapshot with the vDisk."""
        cloud = self.place(name).cloud
        folder = self.site.source.folder
        with (
            cloud.open_snapshot(uploaded.generation.handle["snapshot_id"]) as copy,
            open_disk(folder.open_read("gold.vhdx"), folder) as disk,
        ):
            for start in range(0, disk.size_bytes, MIB):
                assert copy.read_at(start, MIB) == disk.read_at(start, MIB), start


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def read_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What is read of the vDisk's file, by whomever."""
    counted: list[int] = []
    read_at = MemoryFile.read_at

    def counting(self: MemoryFile, offset_bytes: int, length_bytes: int) -> bytes:
        if self.location.endswith("gold.vhdx"):
            counted.append(length_bytes)
        return read_at(self, offset_bytes, length_bytes)

    monkeypatch.setattr(MemoryFile, "read_at", counting)
    return counted


def on_put(monkeypatch: pytest.MonkeyPatch, account: MemoryAccount, act: Put) -> None:
    """Call ``act`` before what is put into one account."""
    put, put_run = MemorySnapshotTarget.put, MemorySnapshotTarget.put_run

    def before_put(self: MemorySnapshotTarget, index: int, *rest: object) -> None:
        if self._account is account:
            act(self, index)
        put(self, index, *rest)  # type: ignore[arg-type]

    def before_run(self: MemorySnapshotTarget, index: int, *rest: object) -> None:
        if self._account is account:
            act(self, index)
        put_run(self, index, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(MemorySnapshotTarget, "put", before_put)
    monkeypatch.setattr(MemorySnapshotTarget, "put_run", before_run)


def made(outcome: Outcome[Uploaded]) -> Uploaded:
    assert outcome.error is None, outcome.words
    assert outcome.made is not None
    return outcome.made


def test_three_targets_cost_one_read(fleet: Fleet, read_bytes: list[int]) -> None:
    upload(fleet.place("aws", "alone"), fleet.site.source, "gold", source_key=fleet.key())
    one = sum(read_bytes)
    fleet = Fleet()
    read_bytes.clear()
    done = fleet.brought()
    assert len(BLOCKS) * BLOCK_BYTES <= sum(read_bytes) <= 1.05 * one
    assert done.bytes_read <= 1.05 * len(BLOCKS) * BLOCK_BYTES
    assert [outcome.target for outcome in done.outcomes] == [p.target for p in fleet.places()]
    for name, outcome in zip(NAMES, done.outcomes, strict=True):
        uploaded = made(outcome)
        fleet.check(name, uploaded)
        assert uploaded.stats.bytes_sent >= len(BLOCKS) * BLOCK_BYTES
        assert uploaded.stats.bytes_read == len(BLOCKS) * BLOCK_BYTES
        assert outcome.seconds >= uploaded.stats.seconds > 0
    assert fleet.site.state.journals.keys() == []
    assert fleet.site.state.leases.holders() == {}


def test_one_that_fails_stops_no_other_and_says_what_to_do(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_target: MemorySnapshotTarget, index: int) -> None:
        if index > 20:
            raise CloudRefused("Cannot put: the quota is used up.", hint="Ask for more.")

    on_put(monkeypatch, fleet.accounts["azure"], refuse)
    aws, azure, gcp = fleet.brought().outcomes
    assert azure.made is None
    assert azure.words == "Cannot put: the quota is used up. [cloud-refused] Ask for more."
    fleet.check("aws", made(aws))
    fleet.check("gcp", made(gcp))
    assert fleet.accounts["azure"].snapshots == {}  # nothing half-made is left


def test_a_fault_of_this_program_is_the_outcome_of_one_target(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_target: MemorySnapshotTarget, _index: int) -> None:
        raise KeyError("x")

    on_put(monkeypatch, fleet.accounts["gcp"], fail)
    aws, azure, gcp = fleet.brought().outcomes
    assert (gcp.made, gcp.words) == (None, "KeyError: 'x'")
    assert (aws.words, azure.words) == ("", "")


def test_the_word_of_another_program_is_told_without_what_gives_access() -> None:
    said = "Max retries exceeded with url: /disk?sv=2018&sig=SECRET%3D (Caused by 'a?b=SECRET')"
    outcome: Outcome[Uploaded] = Outcome("azure", None, OSError(said), 1.0)
    assert outcome.words == "OSError: Max retries exceeded with url: /disk?… (Caused by 'a?…')"


def test_one_that_has_it_reads_and_sends_nothing(fleet: Fleet, read_bytes: list[int]) -> None:
    first = made(fleet.brought(fleet.place("aws")).outcomes[0])
    again = fleet.brought(*fleet.places("run-2"))
    aws, azure, gcp = (made(outcome) for outcome in again.outcomes)
    assert aws.generation.id == first.generation.id
    assert (aws.stats.bytes_sent, aws.stats.bytes_read) == (0, 0)
    assert azure.stats.bytes_sent == len(BLOCKS) * BLOCK_BYTES
    fleet.check("gcp", gcp)
    read_bytes.clear()
    assert [made(o).stats.bytes_sent for o in fleet.brought().outcomes] == [0, 0, 0]
    assert sum(read_bytes) < MIB


def test_deltas_to_different_parents_read_what_any_of_them_needs_once(fleet: Fleet) -> None:
    fleet.brought(fleet.place("aws"), fleet.place("azure"))
    changed = [*BLOCKS]
    changed[10], changed[40] = 200, 201
    fleet.site.write_vdisk(*changed, size_bytes=SIZE_BYTES)
    done = fleet.brought(*fleet.places("run-2"))
    aws, azure, gcp = (made(outcome) for outcome in done.outcomes)
    assert (aws.stats.bytes_sent, azure.stats.bytes_sent) == (2 * BLOCK_BYTES, 2 * BLOCK_BYTES)
    assert gcp.stats.bytes_sent >= len(BLOCKS) * BLOCK_BYTES
    assert done.bytes_read <= 1.05 * len(BLOCKS) * BLOCK_BYTES
    for name, uploaded in zip(NAMES, (aws, azure, gcp), strict=True):
        fleet.check(name, uploaded)


def test_one_far_behind_is_let_go_and_arrives_all_the_same(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imageport.workflow.shared_source.WINDOW_BYTES", 2 * MIB)
    monkeypatch.setattr("imageport.workflow.shared_source.HOLD_SECONDS", 0.3)
    monkeypatch.setattr("imageport.transfer.running.MEMORY_BYTES", MIB)
    others = threading.Event()

    def crawl(_target: MemorySnapshotTarget, _index: int) -> None:
        assert others.wait(20.0)

    on_put(monkeypatch, fleet.accounts["gcp"], crawl)
    places = fleet.places()
    ended: list[str] = []

    def count_ended(event: Event) -> None:
        if event.stage == "upload" and event.kind is EventKind.FINISHED:
            ended.append(event.note)
            if len(ended) == 2:
                others.set()

    watched = [replace(place, events=count_ended) for place in places[:2]]
    notes: list[str] = []
    slow = replace(places[2], events=lambda event: notes.append(event.note))
    done = fleet.brought(*watched, slow)
    for name, outcome in zip(NAMES, done.outcomes, strict=True):
        fleet.check(name, made(outcome))
    assert len(ended) == 2
    assert any("reads by itself" in note for note in notes)
    assert made(done.outcomes[2]).bytes_read_alone > 0


def test_a_lease_held_elsewhere_keeps_one_target_out(fleet: Fleet) -> None:
    with fleet.place("azure", "another").holding("gold"):
        aws, azure, gcp = fleet.brought().outcomes
    assert isinstance(azure.error, LeaseHeld)
    fleet.check("aws", made(aws))
    fleet.check("gcp", made(gcp))


def test_a_cancelled_run_leaves_nothing_anywhere(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imageport.transfer.running.POLL_SECONDS", 0.0)
    cancel = threading.Event()
    on_put(monkeypatch, fleet.accounts["gcp"], lambda *_: cancel.set())
    on_put(monkeypatch, fleet.accounts["aws"], lambda *_: stopping(cancel))
    places = [replace(place, cancelled=cancel.is_set) for place in fleet.places()]
    done = fleet.brought(*places)
    assert all(isinstance(o.error, TransferCancelled) for o in done.outcomes), done.outcomes
    assert [account.snapshots for account in fleet.accounts.values()] == [{}, {}, {}]
    assert fleet.site.state.journals.keys() == []


def stopping(cancel: threading.Event) -> None:
    assert cancel.wait(20.0)


class ToldToEndError(BaseException):
    """What a signal handler raises in the main thread."""


def test_a_signal_ends_all_before_it_goes_on(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imageport.transfer.running.POLL_SECONDS", 0.0)
    sent, told = threading.Event(), threading.Event()

    def end(_signal: int, _frame: object) -> None:
        told.set()
        raise ToldToEndError

    def send(_target: MemorySnapshotTarget, _index: int) -> None:
        if not sent.is_set():
            sent.set()
            os.kill(os.getpid(), signal.SIGUSR1)
        assert told.wait(20.0)
        time.sleep(0.1)  # the others end meanwhile

    on_put(monkeypatch, fleet.accounts["aws"], send)
    before = signal.signal(signal.SIGUSR1, end)
    try:
        with pytest.raises(ToldToEndError):
            fleet.brought()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert [one for one in threading.enumerate() if one.name.startswith(("target", "put"))] == []
    assert fleet.accounts["aws"].snapshots == {}
    assert fleet.site.state.leases.holders() == {}
    done = fleet.brought()  # what was finished stays, what was not is made anew
    for name, outcome in zip(NAMES, done.outcomes, strict=True):
        fleet.check(name, made(outcome))


def test_what_lost_the_cloud_goes_on_where_it_was_with_one_read(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imageport.transfer.sending.retried", lambda call, _stop, **_more: call())
    with monkeypatch.context() as broken:
        for account in (fleet.accounts["aws"], fleet.accounts["gcp"]):
            on_put(broken, account, lambda _target, index: unreachable_from(40, index))
        first = fleet.brought()
    assert [type(o.error) for o in first.outcomes] == [
        CloudUnavailable, type(None), CloudUnavailable,
    ]  # fmt: skip
    assert len(fleet.site.state.journals.keys()) == 2
    second = fleet.brought()
    aws, azure, gcp = (made(outcome) for outcome in second.outcomes)
    assert min(aws.stats.bytes_resumed, gcp.stats.bytes_resumed) >= 15 * BLOCK_BYTES
    assert azure.stats.bytes_sent == 0
    assert second.bytes_read <= 45 * BLOCK_BYTES * 1.05
    for name, uploaded in zip(NAMES, (aws, azure, gcp), strict=True):
        fleet.check(name, uploaded)


def test_a_share_that_was_lost_is_read_once_by_those_that_try_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imageport.workflow.shared_source.WINDOW_BYTES", 4 * MIB)
    places, key, tries = fleet.places(), fleet.key(), [0, 0, 0]
    read_at, lost = MemoryFile.read_at, threading.Event()

    def losing(self: MemoryFile, offset_bytes: int, length_bytes: int) -> bytes:
        shared = threading.current_thread().name == "read-shared"
        if shared and offset_bytes > 16 * MIB and not lost.is_set():
            lost.set()
            raise ShareUnreachable("Cannot read 'gold.vhdx': the server is gone.")
        return read_at(self, offset_bytes, length_bytes)

    store = contextlib.nullcontext(fleet.site.source)
    with SharedSource(lambda: store, "gold", 3) as source:

        def work(number: int, _ending: Cancelled) -> int:
            reader = source.readers[number]
            while True:  # as a task does
                tries[number] += 1
                with contextlib.suppress(ShareUnreachable), reader.opened() as (facts, view):
                    upload_opened(places[number], facts, view, source_key=key)
                    return view.bytes_read_alone

        monkeypatch.setattr(MemoryFile, "read_at", losing)
        outcomes = side_by_side(NAMES, work)
    assert lost.is_set()
    assert tries == [2, 2, 2]
    assert max(outcome.made or 0 for outcome in outcomes) < MIB, outcomes
    assert source.bytes_read <= 1.2 * len(BLOCKS) * BLOCK_BYTES


def unreachable_from(first: int, index: int) -> None:
    if index >= first:
        raise CloudUnavailable("Cannot reach the cloud.")


def test_a_vdisk_that_preflight_did_not_see_goes_nowhere(fleet: Fleet) -> None:
    done = upload_to_many(fleet.places(), fleet.site.source, "gold", source_key="another")
    assert [type(outcome.error) for outcome in done.outcomes] == [SourceChanged] * 3
    assert all("gold" in outcome.words for outcome in done.outcomes)
    assert [account.snapshots for account in fleet.accounts.values()] == [{}, {}, {}]
