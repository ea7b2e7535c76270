"""Reads VHDX disks, dynamic and fixed, and validates all that it relies on."""

# References: [MS-VHDX] 2.5.1.1 (payload block states).

from __future__ import annotations

from collections.abc import Iterator

from imageport.formats import _vhdx_layout as layout
from imageport.formats._vhdx_bat import check_entries, load_entries
from imageport.formats._vhdx_structure import load, load_header
from imageport.formats.linked_disk import LinkedDisk, OwnSegment
from imageport.model import ExtentState
from imageport.storage.byte_file import ByteFile


class VhdxDisk(LinkedDisk):
    """A VHDX without parent and without a pending log.

    Takes over ``file`` and closes it, unless the constructor raises.

    Raises:
        BadDisk: The file contradicts the specification or is cut short.
        UnsupportedDisk: Sound, but it has a pending log, a parent or an unknown required part.
    """

    format_name = "vhdx"

    def __init__(self, file: ByteFile) -> None:
        super().__init__(file)
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

    @property
    def link_id(self) -> str:
        """Return the DataWriteGuid: children name their parent by it."""
        return self.data_write_guid

    def own_content_key(self) -> str:
        """Return the DataWriteGuid and the identity of the file."""
        return f"vhdx:{self.data_write_guid}:{self._stored.opened.key()}"

    def own_segments(self, offset_bytes: int, length_bytes: int) -> Iterator[OwnSegment]:
        """Yield what the block table says.

        A block marked ZERO is ZERO. UNMAPPED (trimmed) and UNDEFINED blocks are HOLE: the guest
        has said that it does not rely on them.
        """
        end = offset_bytes + length_bytes
        for block, count, entry in self._block_runs(offset_bytes, end):
            start = max(offset_bytes, block * self.block_bytes)
            stop = min(end, (block + count) * self.block_bytes)
            state = entry & layout.BAT_STATE_MASK
            if state == layout.PayloadState.FULLY_PRESENT:
                place = (entry & layout.BAT_OFFSET_MASK) + start - block * self.block_bytes
                yield OwnSegment(start, stop - start, ExtentState.DATA, place)
            elif state == layout.PayloadState.ZERO:
                yield OwnSegment(start, stop - start, ExtentState.ZERO)
            else:
                yield OwnSegment(start, stop - start, ExtentState.HOLE)

    def _block_runs(self, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield (first block, blocks, BAT entry): a whole chunk at once where nothing is in it."""
        geometry = self._geometry
        block, behind = offset // self.block_bytes, -(-end // self.block_bytes)
        while block < behind:
            chunk_end = (block // geometry.chunk_ratio + 1) * geometry.chunk_ratio
            count = min(chunk_end, behind) - block
            index = geometry.entry_index(block)
            entries = self._bat[index : index + count]
            present = entries[0] & layout.BAT_STATE_MASK == layout.PayloadState.FULLY_PRESENT
            if not present and entries.count(entries[0]) == count:
                yield block, count, entries[0]
            else:
                for inside, entry in enumerate(entries):
                    yield block + inside, 1, entry
            block += count


def read_link_id(file: ByteFile) -> str:
    """Return the `VhdxDisk.link_id` of a file from its headers alone.

    Raises:
        BadDisk: It is no VHDX, or its headers are damaged.
    """
    return str(load_header(file).data_write_guid)
