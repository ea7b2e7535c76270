"""Sends or receives 256 GiB to nowhere, prints the peak memory: run by `test_transfer_memory`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from synthetic_disk import DATA, HOLE, ZERO, SyntheticDisk

from imageport.formats.disk_stream import DiskStream
from imageport.model import GIB, MIB, ZERO_BLOCK
from imageport.storage.local import LocalFolder
from imageport.transfer.block_target import BlockTarget, TargetTraits, TransferPlan
from imageport.transfer.journal import Journal
from imageport.transfer.pipeline import TransferRequest, TransferResult, VerifyLevel, transfer
from imageport.transfer.receiving import receive

GRAIN_BYTES = 64 * 1024


class Nowhere(BlockTarget):
    """Takes everything, keeps nothing; as many puts in flight as a cloud bears."""

    traits = TargetTraits("nowhere", unwritten_reads_zero=False, max_in_flight=64)

    def begin(self, plan: TransferPlan, token: str) -> str:
        del plan
        return token

    def resume(self, plan: TransferPlan, handle: str) -> None:
        del plan, handle

    def put(self, index: int, data: bytes | memoryview, digest: bytes) -> None:
        del index, data, digest

    def commit(self, digests: Mapping[int, bytes]) -> str:
        return f"nowhere-{len(digests)}"

    def abort(self) -> None:
        return

    def read_back(self, indexes: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        return ((index, ZERO_BLOCK) for index in indexes)

    def close(self) -> None:
        return


class NowhereInRuns(Nowhere):
    """Likewise for 4 MiB a put."""

    traits = TargetTraits("nowhere", unwritten_reads_zero=False, max_in_flight=32, put_blocks=8)

    def put_run(self, first_index: int, data: bytes | memoryview, digests: Sequence[bytes]) -> None:
        del first_index, data, digests
        # Long enough for as many to be in flight as are let in.
        time.sleep(0.01)


class QuickDisk(SyntheticDisk):
    """Data that costs nothing to make and is no zero."""

    def content(self, offset_bytes: int, length_bytes: int) -> bytes:
        return offset_bytes.to_bytes(8, "little") + b"x" * (length_bytes - 8)


def peak_mib() -> float:
    """The most memory this program held; ru_maxrss starts with what its parent had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


class QuickStream(DiskStream):
    """What of the disk is data, in pieces of 64 KiB, as grains of a VMDK come."""

    location = format_name = "quick"

    def __init__(self, disk: QuickDisk) -> None:
        self._disk = disk

    @property
    def size_bytes(self) -> int:
        return self._disk.size_bytes

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        for extent in self._disk.extents():
            if extent.state is DATA:
                for start in range(extent.offset_bytes, extent.end_bytes, GRAIN_BYTES):
                    yield start, self._disk.content(start, GRAIN_BYTES)

    def finish(self) -> str:
        return "nothing to compare with"

    def close(self) -> None:
        return


def main() -> None:
    layout = []
    for number in range(128):
        layout += [(40 * MIB, DATA, number + 1), (GIB - 40 * MIB, HOLE, 0), (GIB, ZERO, 0)]
    disk = QuickDisk(layout)
    folder = LocalFolder(Path(sys.argv[1]))
    kind = NowhereInRuns if sys.argv[2] == "runs" else Nowhere
    request = {"verify": VerifyLevel.AGGREGATE, "partitions": ()}

    def bring(disk: QuickDisk, number: str, **more: object) -> TransferResult:
        wanted = TransferRequest(Journal(folder, number), "t", **request, **more)
        if sys.argv[2] == "stream":
            return receive(QuickStream(disk), kind(), wanted, content_key=number)
        return transfer(disk, kind(), wanted)

    first = bring(disk, "1")
    layout[0] = (40 * MIB, ZERO, 0)
    second = bring(QuickDisk(layout), "2", parent=first.manifest)
    result = {
        "peak_mib": peak_mib(),
        "first": first.stats.as_dict(),
        "second": second.stats.as_dict(),
    }
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
