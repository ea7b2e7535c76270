"""Reads VHDX disks, dynamic, fixed and differencing, and validates all that it relies on."""

# References: [MS-VHDX] 2.3.3 log replay, 2.5.1.1 payload block states, 2.6.2.6 parent locator.

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from imageport.formats import _vhdx_layout as layout
from imageport.formats._vhdx_bat import check_entries, load_entries
from imageport.formats._vhdx_bitmaps import MOST_KEPT_BYTES, SectorBitmaps
from imageport.formats._vhdx_log import replayed
from imageport.formats._vhdx_structure import load, load_header
from imageport.formats.linked_disk import Elsewhere, LinkedDisk, OwnSegment, ParentLink
from imageport.formats.parents import windows_base_name
from imageport.model import ExtentState
from imageport.storage.byte_file import ByteFile


class VhdxDisk(LinkedDisk):
    """One VHDX; a pending log is replayed in memory, a differencing file needs its parent.

    Takes over ``file`` and closes it, unless the constructor raises. `open_disk` opens the parents
    as well.

    Raises:
        BadDisk: The file contradicts the specification or is cut short.
        UnsupportedDisk: Sound, but it has an unknown required part or log.
    """

    format_name = "vhdx"

    def __init__(self, file: ByteFile) -> None:
        opened = file.identity()  # before the headers are read: they say which content it has
        header = load_header(file)
        view = replayed(file, header)
        super().__init__(view, opened)
        self._log_was_pending = view is not file
        self._structure = load(view, header)
        self._geometry = self._structure.geometry
        self._bat = load_entries(view, self._structure)
        check_entries(view, self._structure, self._bat)
        self._bitmaps = SectorBitmaps(view, self._geometry, self._bat)
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

    @property
    def link_id(self) -> str:
        """Return the DataWriteGuid: children name their parent by it."""
        return self.data_write_guid

    @property
    def parent_link(self) -> ParentLink | None:
        """Return the parent's DataWriteGuids and the last parts of its paths."""
        parent = self._structure.parent
        if parent is None:
            return None
        names = tuple(dict.fromkeys(windows_base_name(path) for path in parent.paths))
        return ParentLink(self.location, self.format_name, parent.linkages, names)

    @property
    def held_bytes(self) -> int:
        """Return the memory of the BAT and of the bitmaps that are kept."""
        kept = MOST_KEPT_BYTES if self._geometry.has_parent else 0
        return len(self._bat) * self._bat.itemsize + kept

    def details(self) -> dict[str, int | str]:
        """Return the file's sizes, the block size and the ids."""
        states = [entry & layout.BAT_STATE_MASK for entry in self._bat]
        ratio = self._geometry.chunk_ratio
        del states[ratio :: ratio + 1]  # those of sector bitmaps
        present = (layout.PayloadState.FULLY_PRESENT, layout.PayloadState.PARTIALLY_PRESENT)
        facts: dict[str, int | str] = {
            "block_bytes": self.block_bytes,
            "allocated_blocks": sum(states.count(state) for state in present),
            "disk_id": self.disk_id,
            "data_write_guid": self.data_write_guid,
        }
        if self._log_was_pending:
            facts["log"] = f"{self._structure.header.log_guid}, replayed in memory"
        return super().details() | facts

    def own_content_key(self) -> str:
        """Return the DataWriteGuid and the identity of the file."""
        return f"vhdx:{self.data_write_guid}:{self._stored.opened.key()}"

    def own_segments(self, offset_bytes: int, length_bytes: int) -> Iterator[OwnSegment]:
        """Yield what the block table and the sector bitmaps say.

        A block marked ZERO is ZERO. UNMAPPED (trimmed) and UNDEFINED blocks are HOLE, also over a
        parent that has data: the guest has said that it does not rely on them.
        """
        end = offset_bytes + length_bytes
        for block, count, entry in self._block_runs(offset_bytes, end):
            start = max(offset_bytes, block * self.block_bytes)
            stop = min(end, (block + count) * self.block_bytes)
            state = entry & layout.BAT_STATE_MASK
            if state == layout.PayloadState.FULLY_PRESENT:
                place = (entry & layout.BAT_OFFSET_MASK) + start - block * self.block_bytes
                yield OwnSegment(start, stop - start, ExtentState.DATA, place)
            elif state == layout.PayloadState.PARTIALLY_PRESENT:
                yield from self._partial(block, entry & layout.BAT_OFFSET_MASK, start, stop)
            elif state == layout.PayloadState.ZERO:
                yield OwnSegment(start, stop - start, ExtentState.ZERO)
            elif state == layout.PayloadState.NOT_PRESENT and self._geometry.has_parent:
                yield OwnSegment(start, stop - start, Elsewhere.BELOW)
            else:
                yield OwnSegment(start, stop - start, ExtentState.HOLE)

    def _partial(self, block: int, place: int, start: int, stop: int) -> Iterator[OwnSegment]:
        """Yield the part ``start``..``stop`` of a block by its sector bitmap."""
        sector = self.sector_bytes
        origin = block * self.block_bytes
        first, end = (start - origin) // sector, -(-(stop - origin) // sector)
        for run_first, run_end, present in self._bitmaps.runs(block, first, end):
            run_start = max(start, origin + run_first * sector)
            length = min(stop, origin + run_end * sector) - run_start
            if present:
                yield OwnSegment(run_start, length, ExtentState.DATA, place + run_start - origin)
            else:
                yield OwnSegment(run_start, length, Elsewhere.BELOW)

    def _block_runs(self, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield (first block, blocks, BAT entry); equal entries, which hold nothing, in one."""
        geometry = self._geometry
        block, behind = offset // self.block_bytes, -(-end // self.block_bytes)
        while block < behind:
            chunk_end = (block // geometry.chunk_ratio + 1) * geometry.chunk_ratio
            count = min(chunk_end, behind) - block
            index = geometry.entry_index(block)
            entries = self._bat[index : index + count]
            if entries.count(entries[0]) == count:
                yield block, count, entries[0]
                block += count
                continue
            for entry, alike in groupby(entries):
                alike_count = sum(1 for _ in alike)
                yield block, alike_count, entry
                block += alike_count


def read_link_id(file: ByteFile) -> str:
    """Return the `VhdxDisk.link_id` of a file from its headers alone.

    Raises:
        BadDisk: It is no VHDX, or its headers are damaged.
    """
    return str(load_header(file).data_write_guid)
