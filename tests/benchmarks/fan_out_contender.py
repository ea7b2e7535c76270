"""One vDisk from a share to three targets, at once or one after another, in a process of its own so
that its memory and CPU can be told: run by `test_fan_out`.

Arguments: ``fan-out``, ``sequence`` or the number of one target; MiB/s of the targets, with commas;
location of the share's folder, file name. User and password come from the environment. Prints one
JSON object.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from imageport.formats.opening import open_disk
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import BLOCK_BYTES, MIB
from imageport.state.store import StateStore
from imageport.storage.locate import credentials_from_environment, open_folder
from imageport.storage.memory import MemoryFolder
from imageport.transfer.block_target import BlockTarget, TargetTraits, TransferPlan
from imageport.transfer.pipeline import TransferRequest, TransferResult, VerifyLevel, transfer
from imageport.transfer.shared_reading import SharedReading
from imageport.workflow.fan_out import side_by_side

MANNERS = (
    TargetTraits("as-ebs", unwritten_reads_zero=True, initial_in_flight=16, max_in_flight=64),
    TargetTraits(
        "as-managed-disk",
        unwritten_reads_zero=True,
        starts_from_parent=False,
        put_blocks=8,
        initial_in_flight=8,
        max_in_flight=32,
    ),
    TargetTraits(
        "as-segments",
        unwritten_reads_zero=True,
        starts_from_parent=False,
        initial_in_flight=16,
        max_in_flight=64,
    ),
)
"""What the targets of the three clouds declare."""


class Paced(BlockTarget):
    """Keeps nothing; all puts share a link of so many bytes a second."""

    def __init__(self, traits: TargetTraits, bytes_per_second: float) -> None:
        self.traits = traits
        self._bytes_per_second = bytes_per_second
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def begin(self, plan: TransferPlan, token: str) -> str:
        del plan
        return token

    def resume(self, plan: TransferPlan, handle: str) -> None:
        del plan, handle

    def put(self, index: int, data: bytes | memoryview, digest: bytes) -> None:
        del index, digest
        self._cross(len(data))

    def put_run(self, first_index: int, data: bytes | memoryview, digests: Sequence[bytes]) -> None:
        del first_index, digests
        self._cross(len(data))

    def commit(self, digests: Mapping[int, bytes]) -> str:
        return f"{self.traits.name}-{len(digests)}"

    def abort(self) -> None:
        return

    def read_back(self, indexes: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        raise NotImplementedError(f"nothing is kept of {indexes}")

    def close(self) -> None:
        return

    def _cross(self, size_bytes: int) -> None:
        with self._lock:
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + size_bytes / self._bytes_per_second
            wait = self._free_at - now
        time.sleep(wait)


def send(disk: VirtualDisk, number: int, speeds: Sequence[float]) -> TransferResult:
    state = StateStore(MemoryFolder())
    target = Paced(MANNERS[number], speeds[number] * MIB)
    request = TransferRequest(state.journals.open("bench"), "bench", verify=VerifyLevel.AGGREGATE)
    return transfer(disk, target, request)


def fan_out(disk: VirtualDisk, speeds: Sequence[float]) -> tuple[int, list[TransferResult]]:
    """Return the bytes read, and what each target got."""
    with SharedReading(disk, len(MANNERS)) as reading:
        outcomes = side_by_side(
            [traits.name for traits in MANNERS],
            lambda number, _ending: send(reading.views[number], number, speeds),
        )
        results = [outcome.made for outcome in outcomes if outcome.made is not None]
        return reading.bytes_read, results


def sequence(
    disk: VirtualDisk, speeds: Sequence[float], numbers: Sequence[int]
) -> tuple[int, list[TransferResult]]:
    results = [send(disk, number, speeds) for number in numbers]
    return sum(result.stats.bytes_read for result in results), results


def peak_mib() -> float:
    """The most memory this program held; ru_maxrss starts with what its parent had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def main() -> None:
    way, told_speeds, location, file_name = sys.argv[1:]
    speeds = [float(speed) for speed in told_speeds.split(",")]
    found: dict[str, Any] = {}
    with open_folder(location, credentials_from_environment()) as folder:
        started, cpu = time.monotonic(), time.process_time()
        with open_disk(folder.open_read(file_name, deny_write=True)) as disk:
            if way == "fan-out":
                found["read_bytes"], results = fan_out(disk, speeds)
            else:
                numbers = range(len(MANNERS)) if way == "sequence" else [int(way)]
                found["read_bytes"], results = sequence(disk, speeds, numbers)
    found["seconds"] = round(time.monotonic() - started, 1)
    found["cpu_seconds"] = round(time.process_time() - cpu, 1)
    found["sent_bytes"] = sum(result.stats.bytes_sent for result in results)
    found["digests"] = sorted({result.manifest.image_digest() for result in results})
    found["targets"] = len(results)
    found["blocks"] = found["sent_bytes"] // BLOCK_BYTES
    found["peak_mib"] = round(peak_mib())
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
