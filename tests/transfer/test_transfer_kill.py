"""kill -9 at any point: the next process goes on, repeats at most a second, and is exact."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from killed_transfer import KINDS, run, the_disk

from imageport.errors import ResourceGone
from imageport.model import BLOCK_BYTES
from imageport.state.store import StateStore
from imageport.storage.local import LocalFolder
from imageport.storage.memory import MemoryFolder
from imageport.transfer.journal import Journal
from imageport.transfer.memory_target import MemoryTarget, Shelf
from imageport.transfer.pipeline import TransferRequest, transfer

SCRIPT = Path(__file__).with_name("killed_transfer.py")


def lines(log: Path) -> list[tuple[float, int]]:
    if not log.exists():
        return []
    whole = log.read_text().rsplit("\n", 1)[0]
    parts = [line.split() for line in whole.splitlines()]
    return [(float(when), int(index)) for when, index in parts]


def start_and_kill(folder: Path, kind: str, log: Path, puts: int) -> float:
    """Kill the process -9 soon after ``puts`` blocks; return when."""
    child = subprocess.Popen([sys.executable, str(SCRIPT), str(folder), kind, str(log)])
    before = len(lines(log))
    while child.poll() is None and len(lines(log)) < before + puts:
        time.sleep(0.003)
    child.send_signal(signal.SIGKILL)
    killed = time.time()
    child.wait()
    return killed


def check_exact(folder: Path, kind: str) -> None:
    target = KINDS[kind](LocalFolder(folder / "store"), "disk.part")
    disk = the_disk()
    with target.open_written() as copy:
        assert copy.size_bytes == disk.size_bytes
        step = 8 * BLOCK_BYTES
        for start in range(0, disk.size_bytes, step):
            count = min(step, disk.size_bytes - start)
            assert copy.read_at(start, count) == disk.content(start, count)


@pytest.mark.parametrize(
    "kind",
    [
        "vhdx",
        pytest.param("raw", marks=pytest.mark.slow),
        pytest.param("vhd", marks=pytest.mark.slow),
        pytest.param("vhd-fixed", marks=pytest.mark.slow),
        pytest.param("runs", marks=pytest.mark.slow),
    ],
)
def test_a_killed_transfer_goes_on_and_repeats_at_most_a_second(kind: str, tmp_path: Path):
    for name in ("state", "store"):
        (tmp_path / name).mkdir()
    log = tmp_path / "puts.log"
    killed = [
        # Before the first checkpoint, in the middle, and soon after a resume.
        start_and_kill(tmp_path, kind, log, puts + random.randint(1, 40))  # noqa: S311
        for puts in (0, 160, 20)
    ]
    result = run(tmp_path, kind, log)
    assert "(L3)" in result.verified
    check_exact(tmp_path, kind)
    last: dict[int, float] = {}
    for when, index in lines(log):
        if index in last:
            # Repeated only because it was put less than a second before some kill.
            assert any(0 <= kill - last[index] < 1.0 for kill in killed), index
        last[index] = when
    assert result.stats.bytes_resumed > 0
    assert max(Counter(index for _when, index in lines(log)).values()) <= 4


def test_a_transfer_killed_between_commit_and_record_finds_its_target(tmp_path: Path):
    for name in ("state", "store"):
        (tmp_path / name).mkdir()
    log = tmp_path / "puts.log"
    first = run(tmp_path, "vhdx", log)
    before = len(lines(log))
    second = run(tmp_path, "vhdx", log)
    assert second.reference == first.reference
    assert second.manifest == first.manifest
    assert len(lines(log)) == before


def test_a_source_that_changed_since_the_kill_starts_over_and_leaves_one_target():
    shelf, folder = Shelf(), MemoryFolder()

    def send(version: str) -> MemoryTarget:
        target = MemoryTarget(shelf)
        request = TransferRequest(Journal(folder, "one.journal"), "token", partitions=())
        transfer(the_disk(version), target, request)
        return target

    def crash(_index: int) -> None:
        if len(shelf.puts) > 100:
            raise KeyboardInterrupt

    shelf.faults.before_put = crash
    with pytest.raises(KeyboardInterrupt):
        send("1")
    shelf.faults.before_put = lambda _index: None
    target = send("2")
    assert [disk.state for disk in shelf.disks.values()] == ["deleted", "committed"]
    disk = the_disk("2")
    assert all(data == disk.block(index) for index, data in target.read_back(range(50)))


def test_a_target_that_was_swept_meanwhile_is_made_again():
    shelf, folder = Shelf(), MemoryFolder()

    def crash(_index: int) -> None:
        if len(shelf.puts) > 100:
            raise KeyboardInterrupt

    shelf.faults.before_put = crash
    request = TransferRequest(Journal(folder, "one.journal"), "token", partitions=())
    with pytest.raises(KeyboardInterrupt):
        transfer(the_disk(), MemoryTarget(shelf), request)
    shelf.faults.before_put = lambda _index: None
    for disk in shelf.disks.values():
        disk.state = "deleted"
    target = MemoryTarget(shelf)
    result = transfer(the_disk(), target, request)
    assert result.stats.bytes_resumed == 0
    assert sum(disk.state == "committed" for disk in shelf.disks.values()) == 1
    with pytest.raises(ResourceGone):
        MemoryTarget(shelf).resume(None, "memory-0000")  # type: ignore[arg-type]


def test_the_state_store_keeps_one_journal_for_one_key(tmp_path: Path):
    state = StateStore(LocalFolder(tmp_path))
    first = state.journals.open("image@target")
    assert first.location == state.journals.open("image@target").location
    assert first.location != state.journals.open("other@target").location
