"""A process that sends a disk to a file and is killed: run by `test_transfer_kill`.

Arguments: folder, kind of target, name of a file for one line per stored block.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from synthetic_disk import DATA, HOLE, ZERO, SyntheticDisk

from imageport.formats.file_target import FileTarget
from imageport.formats.raw_target import RawFileTarget
from imageport.formats.vhd_target import FixedVhdFileTarget, VhdFileTarget
from imageport.formats.vhdx_target import VhdxFileTarget
from imageport.model import BLOCK_BYTES
from imageport.state.store import StateStore
from imageport.storage.folder import Folder
from imageport.storage.local import LocalFolder
from imageport.transfer.pipeline import TransferRequest, TransferResult, VerifyLevel, transfer

B = BLOCK_BYTES


class RunTarget(RawFileTarget):
    """A raw file that is given several blocks at once, as a cloud disk is."""

    def __init__(self, folder: Folder, part_name: str) -> None:
        super().__init__(folder, part_name)
        self.traits = replace(self.traits, put_blocks=8)


KINDS: dict[str, type[FileTarget]] = {
    "vhdx": VhdxFileTarget,
    "raw": RawFileTarget,
    "vhd": VhdFileTarget,
    "vhd-fixed": FixedVhdFileTarget,
    "runs": RunTarget,
}


def the_disk(version: str = "1") -> SyntheticDisk:
    layout = [(3 * B, ZERO, 0)]
    for number in range(1, 60):
        layout += [(8 * B, DATA, number), (2 * B + 512, HOLE, 0), (B - 512, DATA, 0)]
    return SyntheticDisk(layout, version=version)


def run(folder: Path, kind: str, log: Path, version: str = "1") -> TransferResult:
    state = StateStore(LocalFolder(folder / "state"))
    target = KINDS[kind](LocalFolder(folder / "store"), "disk.part")
    lines = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    put = target.put

    def logged_put(index: int, data: bytes | memoryview, digest: bytes) -> None:
        time.sleep(0.04)
        put(index, data, digest)
        os.write(lines, f"{time.time()} {index}\n".encode())

    target.put = logged_put  # type: ignore[method-assign]
    request = TransferRequest(
        state.journals.open("one"), "token", verify=VerifyLevel.FULL, partitions=()
    )
    try:
        return transfer(the_disk(version), target, request)
    finally:
        target.close()
        os.close(lines)


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
