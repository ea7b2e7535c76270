"""Reads a stream-optimized VMDK as a file: any grain at any time, by its tables."""

# References: VMware Virtual Disk Format 5.0: stream-optimized compressed sparse extents, footer.

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from imageport.errors import BadDisk
from imageport.formats import _vmdk_layout as layout
from imageport.formats._vmdk_header import (
    bad,
    check_header,
    inflate,
    most_stored_bytes,
    unsupported,
)
from imageport.formats._vmdk_tables import HOLE, GrainRun, GrainTables, from_either
from imageport.formats.packed_disk import PackedDisk, PackedPart
from imageport.model import MIB, ExtentState
from imageport.storage.byte_file import ByteFile

if TYPE_CHECKING:
    from imageport.formats._vmdk_descriptor import Descriptor

_TAIL_BYTES = MIB
"""How far from the file's end a footer is looked for: some transports pad with zeros."""


class StreamOptimizedVmdk(PackedDisk):
    """A stream-optimized VMDK in a file that can be read anywhere.

    ``size_bytes`` is the disk's own, a little less than the header's capacity in VirtualBox's.
    Each grain's marker is compared with the entry that led to it, and its checksum verified.

    Raises:
        BadDisk: No footer where the header promises one, or tables outside the file.
    """

    format_name = "vmdk"
    sector_bytes = layout.SECTOR_BYTES

    def __init__(
        self,
        file: ByteFile,
        header: layout.SparseHeader,
        descriptor: Descriptor,
        size_bytes: int,
    ) -> None:
        super().__init__(file)
        if not header.has_markers:
            unsupported(
                file.location,
                "its compressed grains have no markers, so nothing says how long they are",
                "Convert the disk with a VMware tool first.",
            )
        if header.directory == layout.DIRECTORY_AT_END:
            header = self._with_footer(header)
        self._header = header
        self._descriptor = descriptor
        self._size_bytes = size_bytes
        self._tables = from_either(header, partial(GrainTables, file, header))
        self._most_stored = most_stored_bytes(header.grain_bytes)

    @property
    def size_bytes(self) -> int:
        """Return the disk's size."""
        return self._size_bytes

    def details(self) -> dict[str, int | str]:
        """Return the file's sizes, the kind, the grain size and the content id."""
        return super().details() | {
            "subformat": "streamOptimized",
            "grain_bytes": self._header.grain_bytes,
            "content_id": self._descriptor.content_id,
        }

    def content_key(self) -> str:
        """Return the content id and the identity of the file."""
        return f"vmdk:{self._descriptor.content_id}:{self._stored.opened.key()}"

    def parts(self, offset_bytes: int, length_bytes: int) -> Iterator[PackedPart]:
        """Yield grains, and what lies between them."""
        grain_bytes, end = self._header.grain_bytes, offset_bytes + length_bytes
        first, behind = offset_bytes // grain_bytes, -(-end // grain_bytes)
        waiting: GrainRun | None = None
        for run in self._tables.runs(first, behind):
            if waiting is not None:
                yield self._unit(waiting, run.place)
            waiting = None
            if run.place != HOLE and not self._is_zeroed(run.place):
                waiting = run
                continue
            start = max(offset_bytes, run.grain * grain_bytes)
            stop = min(end, (run.grain + run.grains) * grain_bytes)
            state = ExtentState.HOLE if run.place == HOLE else ExtentState.ZERO
            yield PackedPart(start, stop - start, state)
        if waiting is not None:
            yield self._unit(waiting, HOLE)

    def unpack(self, unit: PackedPart, stored: memoryview) -> bytes:
        """Inflate a grain, once its marker proves to be that of this grain."""
        location, at = self.location, unit.place
        if len(stored) <= layout.MARKER_BYTES:
            bad(location, "grain", at, f"{len(stored)} bytes", "a marker and data")
        sector, data_bytes, _ = layout.unpack_marker(bytes(stored[:16]).ljust(16, b"\0"))
        if sector * layout.SECTOR_BYTES != unit.offset:
            bad(location, "grain's sector", at, sector, unit.offset // layout.SECTOR_BYTES)
        if not 0 < data_bytes <= len(stored) - layout.MARKER_BYTES:
            needed = f"1 to {len(stored) - layout.MARKER_BYTES}"
            bad(location, "grain's length", at + 8, data_bytes, needed)
        data = stored[layout.MARKER_BYTES : layout.MARKER_BYTES + data_bytes]
        content = inflate(location, data, at, self._header.grain_bytes)
        if len(content) < unit.length:
            found = f"{len(content)} bytes"
            bad(location, "inflated grain", at, found, f"{unit.length} bytes")
        return content[: unit.length]

    def _is_zeroed(self, place: int) -> bool:
        return place == layout.ZEROED_GRAIN and bool(self._header.flags & layout.FLAG_ZEROED_GRAINS)

    def _unit(self, run: GrainRun, next_place: int) -> PackedPart:
        """Return a grain; nothing says how long it is, but where the next one starts helps."""
        place = run.place * layout.SECTOR_BYTES
        stored = min(self._most_stored, self._file.size_bytes - place)
        if next_place > run.place:
            stored = min(stored, (next_place - run.place) * layout.SECTOR_BYTES)
        if stored <= 0:
            needed = f"inside {self._file.size_bytes} bytes"
            bad(self.location, f"grain {run.grain}", place, "the file's end", needed)
        offset = run.grain * self._header.grain_bytes
        length = min(self._header.grain_bytes, self._size_bytes - offset)
        return PackedPart(offset, length, ExtentState.DATA, place, stored)

    def _with_footer(self, header: layout.SparseHeader) -> layout.SparseHeader:
        """Return the header with what the footer knows better: where the directory lies."""
        file = self._file
        tail_bytes = min(_TAIL_BYTES, file.size_bytes // layout.SECTOR_BYTES * layout.SECTOR_BYTES)
        start = file.size_bytes - file.size_bytes % layout.SECTOR_BYTES - tail_bytes
        tail = file.read_at(start, tail_bytes).rstrip(b"\0")
        at = layout.sectors(len(tail)) * layout.SECTOR_BYTES - layout.SECTOR_BYTES
        if at < layout.SECTOR_BYTES or not tail[at:].startswith(layout.SPARSE_MAGIC):
            raise BadDisk(
                f"Bad VMDK '{file.location}': cut short: found no footer at the end of "
                f"{file.size_bytes} bytes, needed one, as the header says.",
                object=file.location,
                offset_bytes=file.size_bytes,
            )
        footer = layout.SparseHeader.unpack(tail[at:].ljust(layout.SECTOR_BYTES, b"\0"))
        check_header(file.location, footer, start + at)
        if (footer.capacity, footer.grain_size) != (header.capacity, header.grain_size):
            found = f"{footer.capacity} sectors in grains of {footer.grain_size}"
            needed = f"{header.capacity} in grains of {header.grain_size} as in the header"
            bad(file.location, "footer", start + at, found, needed)
        return replace(header, directory=footer.directory)
