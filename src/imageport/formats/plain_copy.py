"""The plain way from a disk to a file: nothing hashed, nothing journaled, nothing read back.

For copies that something else checks, or that cost little to make again. What must be right goes
through `imageport.transfer.pipeline`.
"""

# References: copy_file_range(2).

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

from imageport.formats.file_target import FileTarget
from imageport.formats.mapped_disk import MappedDisk, Segment
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import MIB, ExtentState
from imageport.progress import EventSink, Stage
from imageport.storage.local_file import LocalFile, LocalWritableFile
from imageport.transfer.block_target import TransferPlan

_KERNEL_PIECE_BYTES = 32 * MIB
"""Between two events: a tenth of a second on a fast machine."""
_PIECES_AHEAD = 16
"""Read and not yet written: 16 MiB, so that a slow write does not stop the reads at once."""


def copy_plainly(disk: VirtualDisk, target: FileTarget, events: EventSink) -> int:
    """Write what ``disk`` holds into ``target``, commit it, and return how many bytes that were.

    Only DATA is written, all else stays unwritten. Where both sides are files of this machine and
    the bytes lie in them as they are, the kernel copies them; otherwise one thread reads ahead of
    one that writes. Durable when it returns. After an error nothing is left at the target.

    Raises:
        SourceChanged: The disk was written meanwhile.
    """
    ranges = [
        (extent.offset_bytes, extent.length_bytes)
        for extent in disk.extents()
        if extent.state is ExtentState.DATA
    ]
    total = sum(length for _, length in ranges)
    stage = Stage("convert", events, total=total)
    try:
        target.begin(TransferPlan(disk.size_bytes, (), (), total), "")
        if not _copied_by_kernel(disk, ranges, target, stage):
            _write_all(disk.read_many(ranges), target, stage)
        disk.check_unchanged()
        target.commit({})
    except BaseException:
        target.abort()
        raise
    stage.finish()
    return total


def _copied_by_kernel(
    disk: VirtualDisk, ranges: list[tuple[int, int]], target: FileTarget, stage: Stage
) -> bool:
    """Copy everything in the kernel; false, with nothing told to ``stage``, where it cannot."""
    file = target.flat_file
    if not isinstance(file, LocalWritableFile) or not isinstance(disk, MappedDisk):
        return False
    if not all(isinstance(stored.file, LocalFile) for stored in disk.stored_files()):
        return False
    for part in _parts(disk, ranges):
        source = part.stored.file if part.stored is not None else None
        if not isinstance(source, LocalFile):
            continue  # zeros between: unwritten, as all that is no DATA
        if not file.copy_from(source, part.place, part.offset, part.length):
            stage.rewind(stage.done)
            return False
        stage.advance(part.length)
    return True


def _parts(disk: MappedDisk, ranges: list[tuple[int, int]]) -> Iterator[Segment]:
    """Yield the segments of ranges, neighbours in one file joined, cut to a piece."""
    pending: Segment | None = None
    for offset, length in ranges:
        for segment in disk.segments(offset, length):
            if pending is not None and _continues(pending, segment):
                pending = pending._replace(length=pending.length + segment.length)
            else:
                if pending is not None and pending.length:
                    yield pending
                pending = segment
            while pending.length >= _KERNEL_PIECE_BYTES:
                yield pending._replace(length=_KERNEL_PIECE_BYTES)
                pending = pending.behind(_KERNEL_PIECE_BYTES)
    if pending is not None and pending.length:
        yield pending


def _continues(first: Segment, second: Segment) -> bool:
    return (
        first.stored is second.stored
        and first.end == second.offset
        and first.place + first.length == second.place
    )


def _write_all(pieces: Iterator[tuple[int, bytes]], target: FileTarget, stage: Stage) -> None:
    """Write pieces in a thread of its own, while this one reads the next."""
    waiting: queue.Queue[tuple[int, bytes] | None] = queue.Queue(_PIECES_AHEAD)
    failed: list[BaseException] = []

    def write() -> None:
        while (piece := waiting.get()) is not None:
            if failed:
                continue  # emptied, so that the reader is not left waiting
            try:
                target.write_at(*piece)
            except BaseException as error:  # raised again by the thread that reads
                failed.append(error)

    writer = threading.Thread(target=write, name="plain-copy", daemon=True)
    writer.start()
    try:
        for offset, data in pieces:
            if failed:
                break
            waiting.put((offset, data))
            stage.advance(len(data))
    finally:
        waiting.put(None)
        writer.join()
    if failed:
        raise failed[0]
