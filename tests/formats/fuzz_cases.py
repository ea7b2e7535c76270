"""Runs damaged disks through their readers, in a process whose memory is bounded.

``python -m tests.formats.fuzz_cases FIRST LAST [KIND ...]`` runs cases FIRST to LAST - 1 of each
kind and prints one JSON object; with one case and one kind it is how a failure is played again.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

from imageport.errors import ImageportError
from imageport.formats.disk_stream import ByteStream, DiskStream
from imageport.formats.linked_disk import LinkedDisk
from imageport.formats.opening import open_disk
from imageport.formats.vhd_stream import VhdStream
from imageport.formats.virtual_disk import PIECE_BYTES, VirtualDisk
from imageport.formats.vmdk_stream import VmdkStream
from imageport.model import ExtentState
from imageport.storage.byte_file import ByteFile
from imageport.storage.memory import MemoryFile, MemoryFolder
from tests.formats.fuzz_mutations import MOST_PLACES, Mutation, Places
from tests.formats.fuzz_seeds import KIB, SEEDS, Seed, build_seed

MEMORY_BYTES = 512 * 1024 * KIB
SECONDS = 10
MOST_FAILURES = 5
STREAMS: dict[str, Callable[[ByteStream], DiskStream]] = {
    "vmdk-arriving": VmdkStream,
    "vmdk-vsphere-arriving": VmdkStream,
    "vhd-arriving": VhdStream,
}
"""By kind of seed: what reads its first file as it arrives."""

Read = tuple[str, int, int]


class TooSlowError(BaseException):
    """No reader may catch it: the case took more than `SECONDS`."""


class Watched(MemoryFile):
    """A file that notes what is read of it."""

    noted: tuple[str, list[Read]]

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        name, reads = self.noted
        reads.append((name, offset_bytes, length_bytes))
        return super().read_at(offset_bytes, length_bytes)


class WatchedFolder(MemoryFolder):
    """A folder whose files note what is read of them."""

    def __init__(self, files: dict[str, bytes] | dict[str, bytearray]) -> None:
        super().__init__()
        self.reads: list[Read] = []
        for name, content in files.items():
            with self.create(name) as file:
                file.set_sparse()
                file.write_at(0, bytes(content))

    def open_read(self, name: str, *, deny_write: bool = False) -> ByteFile:
        content = self._content("open", name)
        file = Watched(self, content, f"{self.location}/{name}", deny_write=deny_write)
        shown = (entry.name for entry in self.list() if entry.name.lower() == name.lower())
        file.noted = (next(shown, name), self.reads)
        return file


class Arriving:
    """Bytes of a file as they come over a wire; see `ByteStream`."""

    def __init__(self, name: str, content: bytes | bytearray, reads: list[Read]) -> None:
        self.location = f"stream of {name}"
        self._name = name
        self._content = memoryview(content)
        self._at = 0
        self._reads = reads

    def read(self, length_bytes: int) -> bytes:
        self._reads.append((self._name, self._at, length_bytes))
        found = bytes(self._content[self._at : self._at + length_bytes])
        self._at += len(found)
        return found


def places_of(seed: Seed) -> Places:
    """Return where the reader looks while it opens the sound disk and tells its extents."""
    folder = WatchedFolder(seed.files)
    if seed.kind in STREAMS:
        # It is read a MiB at a time; what matters starts on a sector.
        content = seed.files[seed.main]
        folder.reads += [(seed.main, at, 20) for at in range(0, len(content), 512)]
        with _stream(seed.kind, seed.files, folder.reads) as stream:
            for _ in stream.pieces():
                pass
    else:
        with open_disk(folder.open_read(seed.main), folder) as disk:
            list(disk.extents())
            disk.content_key()
    return {name: _places(content, name, folder.reads) for name, content in seed.files.items()}


def _places(content: bytes, name: str, reads: list[Read]) -> list[int]:
    found: set[int] = set()
    for read, offset, length in reads:
        if read != name:
            continue
        piece = content[offset : offset + length]
        found.update(range(offset, offset + min(len(piece), 256)))
        # What is not zero in a table is what counts; of data read whole the start will do.
        if len(piece) > 64 * KIB:
            piece = piece[: 4 * KIB]
        found.update(offset + at for at in range(0, len(piece), 4) if any(piece[at : at + 4]))
    chosen = sorted(found)
    step = -(-len(chosen) // MOST_PLACES) if chosen else 1
    return chosen if step == 1 else sorted({*chosen[:1024], *chosen[::step], *chosen[-512:]})


def _stream(kind: str, files: Any, reads: list[Read]) -> DiskStream:
    name, content = next(iter(files.items()))
    return STREAMS[kind](Arriving(name, content, reads))


def survive(kind: str, files: dict[str, bytearray]) -> bool:
    """Do everything that a reader does; return whether the disk was accepted."""
    try:
        if kind in STREAMS:
            with _stream(kind, files, []) as stream:
                look_at_stream(stream)
        else:
            folder = WatchedFolder(files)
            with open_disk(folder.open_read(next(iter(files))), folder) as disk:
                look_at(disk)
    except ImageportError as error:
        refused = error.message
    else:
        return True
    assert refused.endswith("."), refused
    return False


def look_at(disk: VirtualDisk) -> None:
    """Ask a disk for all that it tells, and for samples of its content, in both ways."""
    extents = list(disk.extents())
    assert extents[0].offset_bytes == 0
    assert all(one.end_bytes == other.offset_bytes for one, other in pairwise(extents))
    assert extents[-1].end_bytes == disk.size_bytes
    data = [one.offset_bytes for one in extents if one.state is ExtentState.DATA]
    starts = {0, disk.size_bytes // 2, max(0, disk.size_bytes - 4096), *data[:4], *data[-2:]}
    ranges: list[tuple[int, int]] = []
    for start in sorted(starts):
        begin = max(start, sum(ranges[-1]) if ranges else 0)
        length = min(100 * KIB, disk.size_bytes - begin)
        if length > 0:
            ranges.append((begin, length))
    together = b"".join(piece for _, piece in disk.read_many(ranges))
    assert together == b"".join(disk.read_at(*one) for one in ranges)
    assert disk.content_key()
    disk.check_unchanged()
    if isinstance(disk, LinkedDisk):
        assert disk.link_id
        disk.details()
        for parent in disk.chain()[1:]:
            changed = disk.changes_since(parent.content_key())
            assert changed is not None
            assert sum(length for _, length in changed) <= disk.size_bytes


def look_at_stream(stream: DiskStream) -> None:
    """Take a disk to its end; see `DiskStream.pieces`."""
    behind = 0
    for offset, piece in stream.pieces():
        assert offset >= behind
        assert 0 < len(piece) <= PIECE_BYTES
        behind = offset + len(piece)
        assert behind <= stream.size_bytes
    stream.finish()


def run_kind(kind: str, numbers: range, folder: Path) -> dict[str, Any]:
    """Run the cases of one kind; return how many were accepted, and what failed."""
    seed = build_seed(kind, folder)
    places = places_of(seed)
    accepted, slowest, failures = 0, 0.0, []
    assert survive(kind, {name: bytearray(data) for name, data in seed.files.items()}), kind
    for number in numbers:
        case = Mutation(seed, places, number)
        started = time.monotonic()
        try:
            with _alarm():
                accepted += survive(kind, case.files)
        except (Exception, TooSlowError) as error:  # all that is no error of ours is a finding
            words = "".join(traceback.format_exception(error)[-12:])
            failures.append(f"case {kind} {number}: {'; '.join(case.said)}\n{words}")
        slowest = max(slowest, time.monotonic() - started)
        if len(failures) >= MOST_FAILURES:
            break
    return {"accepted": accepted, "slowest": round(slowest, 3), "failures": failures}


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def ring(_number: int, _frame: FrameType | None) -> None:
        raise TooSlowError(f"more than {SECONDS} s")

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    # A single call that never comes back hears no alarm.
    faulthandler.dump_traceback_later(3 * SECONDS, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(0)


def main() -> None:
    first, last, *kinds = sys.argv[1:]
    # Of what a process can write to, not of its address space: threads reserve far more than
    # they use.
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    with tempfile.TemporaryDirectory() as folder:
        found = {
            kind: run_kind(kind, range(int(first), int(last)), Path(folder))
            for kind in kinds or SEEDS
        }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
