"""Finds in a VHDX log what was written there and not yet to its place, and replays it in memory.

A disk that was not detached cleanly has a pending log; without it, the file's own structures may
be half written. The source is never touched: what the log says lies over the file in memory.
"""

# References: [MS-VHDX] 2.3.2 log sequence, 2.3.3 log replay.

from __future__ import annotations

from dataclasses import dataclass

from imageport.errors import UnsupportedDisk
from imageport.formats import _vhdx_layout as layout
from imageport.formats import _vhdx_log_layout as log_layout
from imageport.formats._patched_file import PatchedFile, Patches
from imageport.formats._vhdx_faults import bad, cut_short, read
from imageport.formats._vhdx_log_layout import SECTOR_BYTES, EntryHeader, Write, unpack_writes
from imageport.model import MIB
from imageport.storage.byte_file import ByteFile

MAX_LOG_BYTES = 32 * MIB
"""Windows and qemu make logs of 1 MiB. The log is held in memory, and its checksums run at about
10 MiB/s."""
MAX_DESCRIPTORS = 64 * 1024
"""Twice as many as fit into 1 MiB, all of them zero descriptors."""
MAX_GROWTH_BYTES = 1024 * 1024 * MIB
"""How far behind its end a log may place what was written; the table of taken places grows with
it."""
_OVERWRITTEN_TIMES = 3
MAX_OVERWRITTEN_BYTES = 16 * MIB
"""Sound entries never overlap: each byte of a log is in the checksum of one entry, and of a few
that were overwritten in part. Bounds the time that a made-up log takes, with the log's own bytes to
about 5 s."""
_HEADERS_END = layout.REGION_TABLE_OFFSETS[0]


def replayed(file: ByteFile, header: layout.Header) -> ByteFile:
    """Return the file as it is once its log is applied; the file itself if no log is pending.

    The returned file closes ``file``.

    Raises:
        BadDisk: The log holds no complete sequence, or the file was cut since it was written.
        UnsupportedDisk: A log of another version, or larger than any that is made.
    """
    if header.log_guid == layout.NO_GUID:
        return file
    _check_log(file, header)
    content = read(file, "log", header.log_offset, header.log_bytes)
    entries = _Log(file, header, content).active()
    head = entries[-1].header
    if head.flushed_file_bytes > file.size_bytes:
        cut_short(file, "the log", head.flushed_file_bytes)
    if sum(entry.header.descriptor_count for entry in entries) > MAX_DESCRIPTORS:
        found = f"more than {MAX_DESCRIPTORS} descriptors"
        raise _unsupported(file, header, f"it has {found}")
    patches = Patches()
    for entry in entries:
        for write in entry.writes:
            _check_write(file, header, write)
            patches.put(write.offset, write.length, write.data)
    size_bytes = max(file.size_bytes, head.last_file_bytes, patches.end_bytes)
    _check_growth(file, header, size_bytes)
    return PatchedFile(file, patches, size_bytes)


def _check_log(file: ByteFile, header: layout.Header) -> None:
    if header.log_version:
        raise _unsupported(file, header, f"it has version {header.log_version}, 0 is known")
    if not header.log_bytes:
        place = layout.HEADER_OFFSETS[0]
        bad(file, "log length", place, "0 bytes with entries pending", "at least 1 MiB")
    if header.log_bytes > MAX_LOG_BYTES:
        raise _unsupported(
            file, header, f"it has {header.log_bytes} bytes, at most {MAX_LOG_BYTES} are replayed"
        )


def _unsupported(file: ByteFile, header: layout.Header, cause: str) -> UnsupportedDisk:
    return UnsupportedDisk(
        f"Cannot read '{file.location}': its log {header.log_guid} was not applied and cannot be "
        f"replayed here: {cause}.",
        hint="Mount the disk once read/write on Windows, or start and shut down its machine, so "
        "that the log is applied; then start again.",
        object=file.location,
    )


def _check_write(file: ByteFile, header: layout.Header, write: Write) -> None:
    log_end = header.log_offset + header.log_bytes
    end = write.offset + write.length
    if write.offset < _HEADERS_END or (header.log_offset < end and write.offset < log_end):
        needed = f"a place behind {_HEADERS_END} and outside the log"
        bad(file, "log descriptor", header.log_offset, f"bytes {write.offset}..{end}", needed)


def _check_growth(file: ByteFile, header: layout.Header, size_bytes: int) -> None:
    limit = file.size_bytes + MAX_GROWTH_BYTES
    if size_bytes > limit:
        needed = f"at most {limit} bytes"
        bad(file, "file size by the log", header.log_offset, f"{size_bytes} bytes", needed)


@dataclass(frozen=True, slots=True)
class _Entry:
    at: int
    header: EntryHeader
    writes: tuple[Write, ...]


class _Log:
    """A log's content, and which entries in it are sound."""

    def __init__(self, file: ByteFile, header: layout.Header, content: bytes) -> None:
        self._file = file
        self._log_guid = header.log_guid
        self._offset = header.log_offset
        self._content = content
        # An entry that goes around the end is a slice here: claims of length copy nothing.
        self._around = memoryview(content + content)
        self._judged: dict[int, _Entry | None] = {}
        size = len(content)
        self._checksum_bytes = size + min(_OVERWRITTEN_TIMES * size, MAX_OVERWRITTEN_BYTES)
        """Left to be checked."""

    def active(self) -> list[_Entry]:
        """Return the entries to replay, oldest first: the newest complete sequence.

        Raises:
            BadDisk: There is none.
        """
        best: list[_Entry] = []
        useless: set[int] = set()
        tail = old_tail = 0
        while True:
            sequence = [] if tail in useless else self._sequence(tail)
            first = self._first(sequence)
            if first is None:
                # What starts later in this sequence ends like it, and has no more entries.
                useless.update(entry.at for entry in sequence)
                tail += SECTOR_BYTES
            else:
                if not best or sequence[-1].header.sequence > best[-1].header.sequence:
                    best = sequence[first:]
                tail = sequence[-1].at + sequence[-1].header.length
            tail %= len(self._content)
            if tail <= old_tail:
                break
            old_tail = tail
        if not best:
            found = f"log {self._log_guid} without one"
            bad(self._file, "pending log", self._offset, found, "a complete sequence of entries")
        return best

    def _sequence(self, tail: int) -> list[_Entry]:
        """Return the sound entries that follow each other from ``tail`` on, around the end."""
        found: list[_Entry] = []
        at, covered = tail, 0
        while (entry := self._entry(at)) is not None:
            if found and entry.header.sequence != found[-1].header.sequence + 1:
                break
            covered += entry.header.length
            if covered > len(self._content):
                break
            found.append(entry)
            at = (at + entry.header.length) % len(self._content)
        return found

    @staticmethod
    def _first(sequence: list[_Entry]) -> int | None:
        """Return which entry the newest one names as the oldest to replay; None if it is gone."""
        if not sequence:
            return None
        tail = sequence[-1].header.tail
        return next((i for i, entry in enumerate(sequence) if entry.at == tail), None)

    def _entry(self, at: int) -> _Entry | None:
        if at not in self._judged:
            self._judged[at] = self._read_entry(at)
        return self._judged[at]

    def _read_entry(self, at: int) -> _Entry | None:
        """Return the entry at a place of the log; None when any field or the checksum is wrong."""
        header = EntryHeader.unpack(self._content[at : at + log_layout.HEADER_BYTES])
        if header is None or not self._plausible(header):
            return None
        data = self._around[at : at + header.length]
        writes = []
        for write in unpack_writes(data, header):
            if write is None or write.offset % SECTOR_BYTES or write.length % SECTOR_BYTES:
                return None
            writes.append(write)
        self._checksum_bytes -= header.length
        if self._checksum_bytes < 0:
            found = "entries over each other"
            bad(self._file, "pending log", self._offset, found, "entries behind each other")
        return _Entry(at, header, tuple(writes)) if layout.checksum_fits(bytes(data)) else None

    def _plausible(self, header: EntryHeader) -> bool:
        size = len(self._content)
        return (
            header.log_guid == self._log_guid
            and header.sequence > 0
            and not header.length % SECTOR_BYTES
            and not header.tail % SECTOR_BYTES
            and header.tail < size
            and header.descriptor_sectors * SECTOR_BYTES <= header.length <= size
        )
