"""Reads a stream-optimized VMDK as it arrives: grain by grain, without seeking."""

# References: VMware Virtual Disk Format 5.0: stream-optimized compressed sparse extents.

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from imageport.errors import BadDisk, ExportInterrupted
from imageport.formats import _vmdk_layout as layout
from imageport.formats._unpack_ahead import in_order, joined
from imageport.formats._vmdk_descriptor import nominal_size, parse, refuse_delta
from imageport.formats._vmdk_header import (
    bad,
    check_header,
    inflate,
    most_stored_bytes,
    unsupported,
)
from imageport.formats._vmdk_stream_tables import StreamTables
from imageport.formats.disk_stream import ByteStream, DiskStream
from imageport.formats.virtual_disk import PIECE_BYTES
from imageport.model import MIB

_READ_BYTES = MIB
_MOST_PADDING_BYTES = 16 * MIB
"""Zeros behind the end, as transports that send whole blocks add them; more is no padding."""


class VmdkStream(DiskStream):
    """A stream-optimized VMDK out of an export lease, a pipe or a file.

    Header and descriptor are read when it is made. Tables that a writer put in front of the grains
    (qemu-img) are taken as well as those behind them (vSphere, VirtualBox): either way each grain
    that came is compared with them. Does not close ``source``: that is whose connection it is.

    Raises:
        BadDisk: The first bytes are no sound VMDK.
        UnsupportedDisk: A VMDK, but none that can be read as a stream, or a snapshot's delta.
        ExportInterrupted: It ends within the header.
    """

    format_name = "vmdk-stream"

    def __init__(self, source: ByteStream) -> None:
        self.location = source.location
        self._bytes = _Sectors(source)
        first = self._bytes.take(layout.SECTOR_BYTES, "the header")
        self._header = layout.SparseHeader.unpack(first)
        check_header(self.location, self._header)
        if not (self._header.is_compressed and self._header.has_markers):
            unsupported(
                self.location,
                "it is a sparse VMDK whose grains are not compressed: no stream",
                "Read it as a file.",
            )
        self._tables = StreamTables(self.location, self._header)
        self._size_bytes = self._header.size_bytes
        self._skip_overhead()
        self._grains = 0
        self._complete = False

    @property
    def size_bytes(self) -> int:
        """Return the disk's size."""
        return self._size_bytes

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes), ascending, at most 1 MiB each; grains of zeros are left out."""
        yield from in_order(self._jobs())
        self._complete = True

    def finish(self) -> str:
        """Say what was compared; `BadDisk` when the end was not reached."""
        if not self._complete:
            raise BadDisk(
                f"Bad VMDK '{self.location}': found {self._grains} grains and no end, needed the "
                f"end of the stream.",
                object=self.location,
            )
        return f"{self._grains} grains are where the grain tables say, each with its checksum"

    def close(self) -> None:
        """Do nothing: the connection belongs to whoever opened it."""

    def _skip_overhead(self) -> None:
        """Read what precedes the grains: descriptor, perhaps tables."""
        header = self._header
        first = header.descriptor_offset
        if first and header.descriptor_size:
            self._bytes.skip_to(first, "the descriptor")
            data = self._bytes.take(header.descriptor_size * layout.SECTOR_BYTES, "the descriptor")
            self._judge(bytes(data), first * layout.SECTOR_BYTES)
        if header.directory != layout.DIRECTORY_AT_END:
            self._tables.read_front(self._bytes)
        self._bytes.skip_to(header.overhead, "the first grain")

    def _judge(self, descriptor: bytes, offset: int) -> None:
        if not descriptor.strip(b"\0"):
            return
        found = parse(self.location, descriptor, offset)
        refuse_delta(self.location, found)
        size = nominal_size(self.location, found, self._header)
        self._size_bytes = size * layout.SECTOR_BYTES

    def _jobs(self) -> Iterator[Callable[[], list[tuple[int, bytes]]]]:
        batch: list[_Grain] = []
        most = PIECE_BYTES // self._header.grain_bytes
        for grain in self._read_grains():
            # What lies between grains counts too: a grain keeps the megabyte it came in.
            if batch and (len(batch) == most or grain.at - batch[0].at > PIECE_BYTES):
                yield partial(self._unpack, batch)
                batch = []
            batch.append(grain)
        if batch:
            yield partial(self._unpack, batch)

    def _read_grains(self) -> Iterator[_Grain]:
        """Yield grains as they come, until the end; checks markers and tables between them."""
        source, tables = self._bytes, self._tables
        most = most_stored_bytes(self._header.grain_bytes)
        last, marked = -1, False
        while (sector := source.peek()) is not None:
            at, place = source.position, source.position // layout.SECTOR_BYTES
            value, data_bytes, kind = layout.unpack_marker(sector)
            if not data_bytes:
                source.take(layout.SECTOR_BYTES, "a marker")
                marked = (value, kind) == (0, layout.MarkerKind.END_OF_STREAM)
                if marked:
                    break
                tables.read(source, value, kind)
                continue
            total = layout.sectors(layout.MARKER_BYTES + data_bytes) * layout.SECTOR_BYTES
            if total > most:
                bad(self.location, "grain's length", at, data_bytes, f"at most {most} bytes stored")
            last = self._next_grain(value, last, at)
            tables.grain_came(last, place)
            stored = source.take(total, f"the grain of sector {value}")
            data = stored[layout.MARKER_BYTES : layout.MARKER_BYTES + data_bytes]
            yield _Grain(value * layout.SECTOR_BYTES, data, at)
            self._grains += 1
        tables.check_end(source, marked=marked)
        source.drain(_MOST_PADDING_BYTES)

    def _next_grain(self, lba: int, last: int, at: int) -> int:
        """Return a grain's number, once it is sure that it follows the last one."""
        number, inside = divmod(lba, self._header.grain_size)
        if inside or lba >= self._header.capacity:
            needed = f"a multiple of {self._header.grain_size} below {self._header.capacity}"
            bad(self.location, "sector of a grain", at, lba, needed)
        if number <= last:
            needed = f"more than {last * self._header.grain_size}, the sector of the last grain"
            bad(self.location, "sector of a grain", at, lba, needed)
        return number

    def _unpack(self, grains: list[_Grain]) -> list[tuple[int, bytes]]:
        return joined(self._inflated(grains))

    def _inflated(self, grains: list[_Grain]) -> Iterator[tuple[int, bytes]]:
        """Yield what grains hold, unless it is zeros."""
        zeros = bytes(self._header.grain_bytes)
        for offset, data, at in grains:
            content = inflate(self.location, data, at, len(zeros))
            needed = min(len(zeros), self.size_bytes - offset)
            if len(content) < needed:
                found = f"{len(content)} bytes"
                bad(self.location, "inflated grain", at, found, f"{needed} bytes")
            content = content[:needed]
            if content != zeros[:needed]:
                yield offset, content


class _Grain(NamedTuple):
    """One compressed grain: where it belongs, its bytes, and where its marker lay."""

    offset: int
    data: memoryview
    at: int


class _Sectors:
    """A stream as sectors: reads 1 MiB at a time and copies only what crosses two reads."""

    def __init__(self, source: ByteStream) -> None:
        self._source = source
        self._chunk = memoryview(b"")
        self._at = 0
        self.position = 0
        """Bytes taken so far."""

    def peek(self) -> memoryview | None:
        """Return the next sector without taking it; None at the end of the stream."""
        if self._at == len(self._chunk):
            self._chunk, self._at = memoryview(self._source.read(_READ_BYTES)), 0
        sector = self._chunk[self._at : self._at + layout.SECTOR_BYTES]
        if 0 < len(sector) < layout.SECTOR_BYTES:
            self._interrupted("a whole sector")
        return sector or None

    def take(self, length: int, what: str) -> memoryview:
        """Return the next bytes; fewer of them is `ExportInterrupted`."""
        if self._at == len(self._chunk):
            self._chunk, self._at = memoryview(self._source.read(_READ_BYTES)), 0
        taken = self._chunk[self._at : self._at + length]
        self._at += len(taken)
        if len(taken) < length:
            rest = self._source.read(length - len(taken))
            taken = memoryview(bytes(taken) + rest)
        if len(taken) < length:
            self._interrupted(what)
        self.position += length
        return taken

    def skip_to(self, sector: int, what: str) -> None:
        """Drop what precedes a sector; one that was passed already stays passed."""
        while (left := sector * layout.SECTOR_BYTES - self.position) > 0:
            self.take(min(left, _READ_BYTES), what)

    def drain(self, most_bytes: int) -> None:
        """Read to the end, which only zeros may precede."""
        start = self.position
        while self._at < len(self._chunk) or self._chunk:
            rest = self._chunk[self._at :]
            if bytes(rest).strip(b"\0") or self.position + len(rest) - start > most_bytes:
                found = "more bytes"
                bad(self._source.location, "end of the stream", start, found, "nothing behind it")
            self.position += len(rest)
            self._chunk, self._at = memoryview(self._source.read(_READ_BYTES)), 0

    def _interrupted(self, what: str) -> None:
        raise ExportInterrupted(
            f"Cannot read '{self._source.location}': the stream ended after about "
            f"{self.position} bytes, within {what}.",
            object=self._source.location,
        )
