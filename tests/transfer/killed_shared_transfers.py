"""A process that sends one disk to three files at once and is killed: run by `test_shared_kill`.

Arguments: folder, name of a file for one line per read of the disk or stored block.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from killed_transfer import KINDS
from synthetic_disk import DATA, HOLE, ZERO, SyntheticDisk

from imageport.formats.file_target import FileTarget
from imageport.model import BLOCK_BYTES, MIB
from imageport.state.store import StateStore
from imageport.storage.local import LocalFolder
from imageport.transfer.pipeline import TransferRequest, TransferResult, VerifyLevel, transfer
from imageport.transfer.shared_reading import SharedReading, SharedView

B = BLOCK_BYTES
PLACES = ("vhdx", "raw", "runs")
DATA_BLOCKS = 200


class LoggedDisk(SyntheticDisk):
    """Writes a line for every read of data."""

    log: Callable[[str, int], None]

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        self.log("read", length_bytes)
        return super().read_at(offset_bytes, length_bytes)


def the_disk() -> LoggedDisk:
    layout = [(3 * B, ZERO, 0)]
    for number in range(1, DATA_BLOCKS // 8 + 1):
        layout += [(8 * B, DATA, number), (2 * B, HOLE, 0)]
    return LoggedDisk(layout)


def target_of(folder: Path, kind: str) -> FileTarget:
    store = folder / kind
    store.mkdir(exist_ok=True)
    return KINDS[kind](LocalFolder(store), "disk.part")


def run(folder: Path, log: Path, *, seconds_per_put: float) -> list[TransferResult]:
    lines = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    disk = the_disk()
    disk.log = lambda word, number: void(os.write(lines, f"{word} {number}\n".encode()))
    state = StateStore(LocalFolder(folder / "state"))

    def send(kind: str, view: SharedView) -> TransferResult:
        target = target_of(folder, kind)
        put = target.put

        def slow_put(index: int, data: bytes | memoryview, digest: bytes) -> None:
            time.sleep(seconds_per_put)
            put(index, data, digest)
            disk.log(kind, index)

        target.put = slow_put  # type: ignore[method-assign]
        request = TransferRequest(
            state.journals.open(kind), "token", verify=VerifyLevel.FULL, partitions=()
        )
        with view:
            try:
                return transfer(view, target, request)
            finally:
                target.close()

    with (
        SharedReading(disk, len(PLACES), window_bytes=16 * MIB) as reading,
        ThreadPoolExecutor(len(PLACES)) as pool,
    ):
        results = list(pool.map(send, PLACES, reading.views))
    os.close(lines)
    return results


def void(_count: int) -> None:
    return


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), seconds_per_put=0.15)
