"""Reads VHDX disks, dynamic and fixed, and validates all that it relies on."""

# References: [MS-VHDX] 2.5.1.1 (payload block states).

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from imageport.formats import _vhdx_layout as layout
from imageport.formats._extent_merge import allocated_extents, merged
from imageport.formats._vhdx_bat import check_entries, load_entries
from imageport.formats._vhdx_structure import load
from imageport.formats.disk_file import DiskFile
from imageport.formats.virtual_disk import PIECE_BYTES, zero_pieces
from imageport.model import Extent, ExtentState
from imageport.storage.byte_file import ByteFile
from imageport.storage.folder import Folder


class _Segment(NamedTuple):
    """A range of the disk: at ``place`` in the file, or zeros when that is -1."""

    offset: int
    length: int
    place: int

    def behind(self, count: int) -> _Segment:
        """Return what is left after the first ``count`` bytes."""
        return _Segment(self.offset + count, self.length - count, self.place + count)


class VhdxDisk(DiskFile):
    """A VHDX without parent and without a pending log.

    Takes over ``file`` and closes it, unless the constructor raises. ``resolver`` is the folder
    that parents will be looked for in once chains are read; today a parent is refused.

    Raises:
        BadDisk: The file contradicts the specification or is cut short.
        UnsupportedDisk: Sound, but it has a pending log, a parent or an unknown required part.
    """

    format_name = "vhdx"

    def __init__(self, file: ByteFile, resolver: Folder | None = None) -> None:
        super().__init__(file)
        self._resolver = resolver
        self._structure = load(file)
        self._geometry = self._structure.geometry
        self._bat = load_entries(file, self._structure)
        check_entries(file, self._structure, self._bat)
        self.sector_bytes = self._geometry.sector_bytes

    @property
    def size_bytes(self) -> int:
        """Return the virtual disk size."""
        return self._geometry.disk_bytes

    @property
    def block_bytes(self) -> int:
        """Return the payload block size."""
        return self._geometry.block_bytes

    @property
    def data_write_guid(self) -> str:
        """Return the GUID that changes whenever the guest's content was written."""
        return str(self._structure.header.data_write_guid)

    @property
    def disk_id(self) -> str:
        """Return the virtual disk's id (SCSI page 83)."""
        return str(self._structure.disk_id)

    def details(self) -> dict[str, int | str]:
        """Return the file's sizes, the block size and the ids."""
        present = sum(
            entry & layout.BAT_STATE_MASK == layout.PayloadState.FULLY_PRESENT
            for entry in self._bat
        )
        return super().details() | {
            "block_bytes": self.block_bytes,
            "allocated_blocks": present,
            "disk_id": self.disk_id,
            "data_write_guid": self.data_write_guid,
        }

    def content_key(self) -> str:
        """Return the DataWriteGuid and the identity of the file."""
        return f"vhdx:{self.data_write_guid}:{self._opened.key()}"

    def extents(self) -> Iterator[Extent]:
        """Yield the disk's extents.

        A block marked ZERO is ZERO; what an allocated block spans but the file system has not
        stored is ZERO too: allocated for the guest, zeros on disk, nothing to read. UNMAPPED
        (trimmed) and UNDEFINED blocks are HOLE: the guest has said that it does not rely on them.
        """
        return merged(self._block_extents())

    def _block_extents(self) -> Iterator[Extent]:
        geometry = self._geometry
        stored = self._allocated()
        for block, count, entry in self._block_runs():
            start = block * geometry.block_bytes
            length = min(count * geometry.block_bytes, geometry.disk_bytes - start)
            state = entry & layout.BAT_STATE_MASK
            if state == layout.PayloadState.FULLY_PRESENT:
                place = entry & layout.BAT_OFFSET_MASK
                for part in allocated_extents(stored, place, length, ExtentState.ZERO):
                    offset = part.offset_bytes - place + start
                    yield Extent(offset, part.length_bytes, part.state)
            elif state == layout.PayloadState.ZERO:
                yield Extent(start, length, ExtentState.ZERO)
            else:
                yield Extent(start, length, ExtentState.HOLE)

    def _block_runs(self) -> Iterator[tuple[int, int, int]]:
        """Yield (first block, blocks, BAT entry): a whole chunk at once where nothing is in it."""
        geometry = self._geometry
        for first in range(0, geometry.block_count, geometry.chunk_ratio):
            count = min(geometry.chunk_ratio, geometry.block_count - first)
            index = geometry.entry_index(first)
            entries = self._bat[index : index + count]
            present = entries[0] & layout.BAT_STATE_MASK == layout.PayloadState.FULLY_PRESENT
            if not present and entries.count(entries[0]) == count:
                yield first, count, entries[0]
                continue
            for inside, entry in enumerate(entries):
                yield first + inside, 1, entry

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return the bytes; holes read as zeros."""
        self._check_range(offset_bytes, length_bytes)
        parts = [
            bytes(part.length) if part.place < 0 else self._file.read_at(part.place, part.length)
            for part in self._segments(offset_bytes, length_bytes)
        ]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_many(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes) ascending; the file reads ahead across blocks and ranges."""
        waiting: deque[_Segment] = deque()
        for _, data in self._file.read_many(self._file_ranges(ranges, waiting)):
            while waiting[0].place < 0:
                hole = waiting.popleft()
                yield from zero_pieces(hole.offset, hole.length)
            segment = waiting.popleft()
            yield segment.offset, data
            if len(data) < segment.length:  # a server may answer in smaller pieces
                waiting.appendleft(segment.behind(len(data)))
        while waiting:
            hole = waiting.popleft()
            yield from zero_pieces(hole.offset, hole.length)

    def _file_ranges(
        self, ranges: Iterable[tuple[int, int]], waiting: deque[_Segment]
    ) -> Iterator[tuple[int, int]]:
        """Yield the file ranges to read; ``waiting`` gets every segment in the disk's order."""
        for offset, length in self._checked(ranges):
            for segment in self._segments(offset, length):
                if segment.place < 0:
                    waiting.append(segment)
                    continue
                for start in range(0, segment.length, PIECE_BYTES):
                    count = min(PIECE_BYTES, segment.length - start)
                    piece = _Segment(segment.offset + start, count, segment.place + start)
                    waiting.append(piece)
                    yield piece.place, piece.length

    def _segments(self, offset: int, length: int) -> Iterator[_Segment]:
        """Cut a range at block borders; neighbouring zero blocks stay one segment."""
        geometry = self._geometry
        end = offset + length
        zeros_from = offset
        while offset < end:
            block, inside = divmod(offset, geometry.block_bytes)
            count = min(geometry.block_bytes - inside, end - offset)
            entry = self._bat[geometry.entry_index(block)]
            if entry & layout.BAT_STATE_MASK == layout.PayloadState.FULLY_PRESENT:
                if zeros_from < offset:
                    yield _Segment(zeros_from, offset - zeros_from, -1)
                yield _Segment(offset, count, (entry & layout.BAT_OFFSET_MASK) + inside)
                zeros_from = offset + count
            offset += count
        if zeros_from < end:
            yield _Segment(zeros_from, end - zeros_from, -1)
