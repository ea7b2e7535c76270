"""The plain way from a disk to a file: nothing hashed, nothing journaled, nothing read back.

For copies that something else checks, or that cost little to make again. What must be right goes
through `imageport.transfer.pipeline`.
"""

# References: copy_file_range(2).

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator

from imageport.errors import ImageportError
from imageport.formats.disk_file import DiskFile
from imageport.formats.file_target import FileTarget
from imageport.formats.mapped_disk import MappedDisk, Segment
from imageport.formats.packed_disk import PackedDisk
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import MIB, ExtentState
from imageport.progress import EventSink, Stage
from imageport.storage.local_file import LocalFile, LocalWritableFile
from imageport.transfer.block_target import TransferPlan

Range = tuple[int, int]
"""(offset, length) of the disk, in bytes."""

_KERNEL_PIECE_BYTES = 32 * MIB
"""Between two events: a tenth of a second on a fast machine."""
_PIECES_AHEAD = 16
"""Read and not yet written: 16 MiB, so that a slow write does not stop the reads at once."""


def copy_plainly(disk: VirtualDisk, target: FileTarget, events: EventSink) -> int:
    """Write what ``disk`` holds into ``target``, commit it, and return how many bytes that were.

    Only DATA is written, all else stays unwritten. Where both sides are files of this machine and
    bytes lie in them as they are, the kernel copies them; for all else one thread reads ahead of
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
        left = _copy_by_kernel(disk, ranges, target, stage)
        if left:
            _write_all(disk.read_many(left), target, stage)
        disk.check_unchanged()
        target.commit({})
    except BaseException:
        with contextlib.suppress(ImageportError):  # the first error is the one to report
            target.abort()
        raise
    stage.finish()
    return total


def _copy_by_kernel(
    disk: VirtualDisk, ranges: list[Range], target: FileTarget, stage: Stage
) -> list[Range]:
    """Copy in the kernel what lies in files of this machine as it is; return what is left."""
    file = target.flat_file
    if not isinstance(file, LocalWritableFile) or not isinstance(disk, DiskFile):
        return ranges
    if not all(isinstance(stored.file, LocalFile) for stored in disk.stored_files()):
        return ranges
    left: list[Range] = []
    for part in _parts(disk, ranges):
        source = part.stored.file if part.stored is not None else None
        if not isinstance(source, LocalFile):
            _add(left, part.offset, part.length)
        elif file.copy_from(source, part.place, part.offset, part.length):
            stage.advance(part.length)
        else:
            stage.rewind(stage.done)
            return ranges
    return left


def _parts(disk: DiskFile, ranges: list[Range]) -> Iterator[Segment]:
    """Yield the segments of ranges, neighbours in one file joined, cut to a piece."""
    pending: Segment | None = None
    for offset, length in ranges:
        for segment in _segments(disk, offset, length):
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


def _segments(disk: DiskFile, offset: int, length: int) -> Iterator[Segment]:
    """Yield where a range lies; what has no place as it is (compressed, say) has no file."""
    if isinstance(disk, MappedDisk):
        yield from disk.segments(offset, length)
    elif isinstance(disk, PackedDisk):
        (stored,) = disk.stored_files()
        for part in disk.parts(offset, length):
            start, stop = max(part.offset, offset), min(part.end, offset + length)
            as_it_is = part.state is ExtentState.DATA and not part.stored_bytes
            place = part.place if as_it_is else 0
            file = stored if as_it_is else None
            yield Segment(start, stop - start, part.state, file, place)
    else:
        yield Segment(offset, length, ExtentState.DATA)


def _add(ranges: list[Range], offset: int, length: int) -> None:
    """Append a range, joined with the last one where it continues it."""
    if ranges and sum(ranges[-1]) == offset:
        ranges[-1] = ranges[-1][0], ranges[-1][1] + length
    else:
        ranges.append((offset, length))


def _continues(first: Segment, second: Segment) -> bool:
    if first.stored is not second.stored or first.end != second.offset:
        return False
    return first.stored is None or first.place + first.length == second.place


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
        if isinstance(pieces, Generator):  # else its threads live as long as the error's frames
            pieces.close()
    if failed:
        raise failed[0]
