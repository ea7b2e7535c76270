"""kill -9 of a process that sends to three targets: all go on, with one read of what is left."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from killed_shared_transfers import DATA_BLOCKS, PLACES, run, target_of, the_disk

from imageport.model import BLOCK_BYTES, MIB

SCRIPT = Path(__file__).with_name("killed_shared_transfers.py")


def told(log: Path) -> list[tuple[str, int]]:
    """What the log says: ``read`` with bytes, or a target with the block it stored."""
    if not log.exists():
        return []
    lines = log.read_text().rsplit("\n", 1)[0].splitlines()
    return [(word, int(number)) for word, number in (line.split() for line in lines)]


def stored(log: Path) -> Counter[str]:
    return Counter(word for word, _number in told(log))


def test_three_targets_go_on_after_a_kill_with_one_read_of_the_rest(tmp_path: Path) -> None:
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    child = subprocess.Popen([sys.executable, str(SCRIPT), str(tmp_path), str(first)])
    deadline = time.monotonic() + 60
    while child.poll() is None and min(stored(first)[kind] for kind in PLACES) < 120:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    before = stored(first)
    assert all(120 <= before[kind] < DATA_BLOCKS for kind in PLACES), before
    results = run(tmp_path, second, seconds_per_put=0.0)
    for kind, result in zip(PLACES, results, strict=True):
        assert result.stats.bytes_resumed >= 20 * BLOCK_BYTES
        assert stored(second)[kind] + before[kind] >= DATA_BLOCKS
    read = sum(number for word, number in told(second) if word == "read")
    needed = {number for word, number in told(second) if word != "read"}
    assert read == len(needed) * BLOCK_BYTES < DATA_BLOCKS * BLOCK_BYTES
    disk = the_disk()
    for kind in PLACES:
        with target_of(tmp_path, kind).open_written() as copy:
            for start in range(0, disk.size_bytes, MIB):
                length = min(MIB, disk.size_bytes - start)
                assert copy.read_at(start, length) == disk.content(start, length)
