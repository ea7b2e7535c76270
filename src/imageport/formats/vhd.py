"""Reads VHD disks, fixed, dynamic and differencing, and validates all that it relies on."""

# References: [VHD 1.0] "Hard Disk Footer Format", "Block Allocation Table and Data Blocks",
# "Implementing a Differencing Hard Disk".

from __future__ import annotations

from collections.abc import Iterator

from imageport.errors import BadDisk
from imageport.formats import _vhd_layout as layout
from imageport.formats._vhd_bitmap import SectorBitmaps
from imageport.formats._vhd_structure import Structure, creator_text, load
from imageport.formats._vhd_table import allocated_runs, check_entries, load_entries
from imageport.formats.disk_format import DiskFormat
from imageport.formats.linked_disk import Elsewhere, LinkedDisk, OwnSegment, ParentLink
from imageport.model import ExtentState
from imageport.storage.byte_file import ByteFile
from imageport.storage.folder import Folder

_AHEAD = 32
"""Blocks whose bitmaps are fetched together when a disk is read in order: 32 round trips of a
share become one, and what one read fetches in vain stays small."""
_CLOCK_SECONDS = 2
"""Times of files are this exact on every file system and share."""


class VhdDisk(LinkedDisk):
    """A VHD in one file; a differencing one reads through the parent that it adopts.

    Takes over ``file`` and closes it, unless the constructor raises. A sector of an allocated
    block whose bit is 0 was never written, so it reads as zeros: so the specification, XenServer
    and VirtualBox. (QEMU ignores the bitmap of a dynamic disk and relies on zeros in the file.)

    Raises:
        BadDisk: The file contradicts the specification or is cut short.
        UnsupportedDisk: Sound, but of an unknown type or version.
    """

    format_name = "vhd"
    sector_bytes = layout.SECTOR_BYTES

    def __init__(self, file: ByteFile) -> None:
        super().__init__(file)
        self._structure = load(file)
        self._notes = list(self._structure.notes)
        self._dynamic: _Blocks | None = None
        if self._structure.header is not None:
            self._dynamic = _Blocks(file, self._structure, self._structure.header)

    @property
    def size_bytes(self) -> int:
        """Return the size the guest sees."""
        return self._structure.size_bytes

    @property
    def block_bytes(self) -> int:
        """Return the block size, 0 for a fixed disk."""
        return self._dynamic.block_bytes if self._dynamic is not None else 0

    @property
    def link_id(self) -> str:
        """Return the unique id. It stays when the disk is written; a file's time tells then."""
        return str(self._structure.footer.unique_id)

    @property
    def held_bytes(self) -> int:
        """Return the memory of the table and of the bitmaps that are kept."""
        return self._dynamic.held_bytes if self._dynamic is not None else 0

    @property
    def parent_link(self) -> ParentLink | None:
        """Return what a differencing disk says of its parent."""
        header = self._structure.header
        if header is None or not self._structure.is_differencing:
            return None
        ids, names = (str(header.parent_id),), self._structure.parent_names
        return ParentLink(self.location, self.format_name, ids, names)

    def adopt(self, parent: LinkedDisk) -> None:
        """Take the parent. A write time other than the one noted by the child is told, not refused.

        The unique id decides: copies of a store often lose the times. PVS itself refuses such a
        chain (0xE0060021), so `details` says it.
        """
        super().adopt(parent)
        header = self._structure.header
        if header is None or not header.parent_timestamp:
            return
        noted = header.parent_timestamp + layout.EPOCH_SECONDS
        found = next(parent.stored_files()).opened.last_write_ns // 10**9
        if abs(noted - found) > _CLOCK_SECONDS:
            self._notes.append(
                f"the parent '{parent.location}' was last written {found - noted} s after the time "
                "that this file notes for it; PVS wants them equal"
            )

    def own_content_key(self) -> str:
        """Return the unique id and the identity of the file."""
        return f"vhd:{self.link_id}:{self._stored.opened.key()}"

    def details(self) -> dict[str, int | str]:
        """Return sizes, type, creator and ids, and in ``notes`` what was got around."""
        structure = self._structure
        found = super().details() | {
            "disk_type": layout.DiskType(structure.footer.disk_type).name.lower(),
            "creator": creator_text(structure.footer),
            "unique_id": self.link_id,
        }
        if self._dynamic is not None:
            found["block_bytes"] = self._dynamic.block_bytes
            found["allocated_blocks"] = self._dynamic.allocated_blocks
        if structure.is_differencing and structure.header is not None:
            found["parent_id"] = str(structure.header.parent_id)
        if self._notes:
            found["notes"] = "; ".join(self._notes)
        return found

    def own_segments(self, offset_bytes: int, length_bytes: int) -> Iterator[OwnSegment]:
        """Yield segments by table and bitmaps; all of a fixed disk is DATA."""
        if self._dynamic is not None:
            yield from self._dynamic.segments(offset_bytes, offset_bytes + length_bytes)
        else:
            yield OwnSegment(offset_bytes, length_bytes, ExtentState.DATA, offset_bytes)


class _Blocks:
    """The blocks of a dynamic or differencing file."""

    def __init__(self, file: ByteFile, structure: Structure, header: layout.Header) -> None:
        self.block_bytes = header.block_bytes
        self._entries = load_entries(file, structure, header)
        check_entries(file, structure, header, self._entries)
        self.allocated_blocks = len(self._entries) - self._entries.count(layout.UNUSED)
        self._bitmap_bytes = layout.bitmap_bytes(header.block_bytes)
        self._bitmaps = SectorBitmaps(file, header.block_bytes)
        self._absent: ExtentState | Elsewhere = (
            Elsewhere.BELOW if structure.is_differencing else ExtentState.HOLE
        )
        self._fetched_until = 0

    @property
    def held_bytes(self) -> int:
        """Return the memory that a file's blocks take, at most."""
        table_bytes = len(self._entries) * self._entries.itemsize
        return table_bytes + self._bitmaps.most_bytes(self.allocated_blocks)

    def segments(self, offset: int, end: int) -> Iterator[OwnSegment]:
        """Yield what the file says of a range."""
        first, behind = offset // self.block_bytes, -(-end // self.block_bytes)
        for block, count, entry in allocated_runs(self._entries, first, behind):
            start = max(offset, block * self.block_bytes)
            stop = min(end, (block + count) * self.block_bytes)
            if entry == layout.UNUSED:
                yield OwnSegment(start, stop - start, self._absent)
                continue
            if not self._bitmaps.knows(entry):
                self._fetch_bitmaps(block, behind)
            yield from self._sectors(block, entry, start, stop)

    def _sectors(self, block: int, entry: int, start: int, stop: int) -> Iterator[OwnSegment]:
        origin = block * self.block_bytes
        place = entry * layout.SECTOR_BYTES + self._bitmap_bytes - origin
        sector = layout.SECTOR_BYTES
        first, behind = (start - origin) // sector, -(-(stop - origin) // sector)
        for run, run_end, is_here in self._bitmaps.runs(entry, first, behind):
            at = max(start, origin + run * sector)
            count = min(stop, origin + run_end * sector) - at
            if is_here:
                yield OwnSegment(at, count, ExtentState.DATA, place + at)
            else:
                yield OwnSegment(at, count, self._absent)

    def _fetch_bitmaps(self, block: int, behind: int) -> None:
        """Fetch a block's bitmap, and those after it that this read or the next ones need."""
        until = block + _AHEAD
        if not 0 <= block - self._fetched_until <= _AHEAD:  # not in order: no reason to guess
            until = min(until, behind)
        self._fetched_until = until
        window = self._entries[block:until]
        self._bitmaps.fetch([entry for entry in window if entry != layout.UNUSED])


def is_vhd(head: bytes, tail: bytes) -> bool:
    """Return whether a file with these first and last bytes is a VHD, sound or not."""
    return head.startswith(layout.COOKIE) or tail[:8] == layout.COOKIE or tail[1:9] == layout.COOKIE


def is_unfinished_vhd(head: bytes, tail: bytes) -> bool:
    """Return whether this program began to write a VHD and did not finish it."""
    marks = (head[:8], tail[:8])
    return layout.UNFINISHED_COOKIE in marks


def open_vhd(file: ByteFile, folder: Folder | None = None) -> VhdDisk:
    """Open one file, never its parent."""
    del folder  # a VHD is one file
    return VhdDisk(file)


def _link_id(file: ByteFile) -> str:
    return str(load(file).footer.unique_id)


def _refuse_unfinished(file: ByteFile, folder: Folder | None) -> VhdDisk:
    del folder
    raise BadDisk(
        f"Bad disk '{file.location}': found a VHD whose writing was never finished, needed a "
        "finished one.",
        hint="It is left over from a run that stopped: let that run resume, or delete it.",
        object=file.location,
    )


VHD = DiskFormat("vhd", is_vhd, open_vhd, (".vhd", ".avhd"), _link_id)
UNFINISHED_VHD = DiskFormat("unfinished-vhd", is_unfinished_vhd, _refuse_unfinished)
"""Asked before every other format: its content may look like a raw disk or a finished one."""
