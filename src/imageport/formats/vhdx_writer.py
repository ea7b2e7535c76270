"""Writes dynamic VHDX files: any order, several threads, resumable after a crash."""

# References: [MS-VHDX] 2.1 layout, 2.2.2.1 updating headers, 2.5 BAT.

from __future__ import annotations

import sys
import uuid
from array import array
from dataclasses import replace
from typing import Self

from imageport.errors import BadDisk, InputError, UnsupportedDisk
from imageport.formats import _vhdx_layout as layout
from imageport.formats._vhdx_bat import check_entries, load_entries
from imageport.formats._vhdx_new import is_own_file, new_structure, write_structure
from imageport.formats._vhdx_structure import Structure, load, load_header
from imageport.formats.block_table_writer import BlockTableWriter
from imageport.model import MIB
from imageport.storage.byte_file import WritableFile

_BAT_PAGE_ENTRIES = 512
"""BAT entries are written in pages of 4 KiB, the unit that disks write atomically."""


class VhdxWriter(BlockTableWriter):
    """A dynamic VHDX in the making; blocks never written read as zeros.

    While it is unfinished, the file's signature is one that no reader accepts. `flush` makes data
    and table durable: what was written before it is there after a crash and `reopen`. `finish`
    turns the file into a VHDX; it may be called again. A write after `finish` takes the
    signature back first. All methods may be called from several threads. The caller owns
    ``file``, which must be empty, and closes it.

    Raises:
        InputError: The size is no multiple of the sector size, or the geometry is impossible.
        ShareFull: No room; what was flushed before stays valid.
    """

    def __init__(
        self,
        file: WritableFile,
        size_bytes: int,
        *,
        block_bytes: int = 32 * MIB,
        sector_bytes: int = 512,
        disk_id: uuid.UUID | None = None,
        data_write_guid: uuid.UUID | None = None,
    ) -> None:
        geometry = layout.Geometry(size_bytes, block_bytes, sector_bytes)
        _check_geometry(file, geometry)
        structure = new_structure(geometry, disk_id or uuid.uuid4())
        if data_write_guid is not None:
            header = replace(structure.header, data_write_guid=data_write_guid)
            structure = replace(structure, header=header)
        write_structure(file, structure)
        bat = array("Q", bytes(geometry.entry_count * layout.BAT_ENTRY_BYTES))
        self._take(file, structure, bat, finished=False)

    @classmethod
    def reopen(cls, file: WritableFile) -> Self:
        """Take up a file that this class wrote, finished or not.

        Blocks whose table entry was not durable are gone and read as zeros again.

        Raises:
            BadDisk: The file is not one of ours, or was killed before its structures were written.
            UnsupportedDisk: It was changed by another program since.
        """
        head = file.read_at(0, min(512, file.size_bytes))
        if not is_own_file(head):
            found = head[:8].hex(" ") or "nothing"
            raise BadDisk(
                f"Cannot go on writing '{file.location}': found {found} at its start, "
                f"needed a file that this program began.",
                object=file.location,
            )
        finished = head.startswith(layout.SIGNATURE)
        signature = layout.SIGNATURE if finished else layout.UNFINISHED_SIGNATURE
        header = load_header(file, signature=signature)
        structure = load(file, header)
        if header.log_guid != layout.NO_GUID or structure.parent is not None:
            raise UnsupportedDisk(
                f"Cannot go on writing '{file.location}': found a pending log or a parent, needed "
                f"a file that only this program wrote.",
                object=file.location,
            )
        bat = load_entries(file, structure)
        writer = cls.__new__(cls)
        writer._take(file, structure, bat, finished=finished)  # noqa: SLF001  (its own class)
        if writer._end_bytes > _largest_end(structure):  # noqa: SLF001  (its own class)
            raise BadDisk(
                f"Bad VHDX '{file.location}': its table names bytes up to "
                f"{writer._end_bytes}, needed at most {_largest_end(structure)}.",  # noqa: SLF001
                object=file.location,
            )
        # The end of the file follows the table: space that was given to a block whose entry was
        # lost may hold old bytes, so it is cut off and comes back as zeros.
        file.set_size(writer._end_bytes)  # noqa: SLF001  (its own class)
        check_entries(file, structure, bat)
        return writer

    def _take(
        self, file: WritableFile, structure: Structure, bat: array[int], *, finished: bool
    ) -> None:
        super().__init__(file, finished=finished)
        self._structure = structure
        self._bat = bat
        self._end_bytes = max(end for _, end in structure.reserved_ranges)
        for entry in bat:
            if entry & layout.BAT_STATE_MASK == layout.PayloadState.FULLY_PRESENT:
                end = (entry & layout.BAT_OFFSET_MASK) + structure.geometry.block_bytes
                self._end_bytes = max(self._end_bytes, end)

    @property
    def size_bytes(self) -> int:
        """Return the virtual disk size."""
        return self._structure.geometry.disk_bytes

    @property
    def block_bytes(self) -> int:
        """Return the payload block size."""
        return self._structure.geometry.block_bytes

    def is_allocated(self, offset_bytes: int) -> bool:
        """Return whether the block around this offset has a place in the file."""
        geometry = self._structure.geometry
        return self._bat[geometry.entry_index(offset_bytes // geometry.block_bytes)] != 0

    def finish(self) -> None:
        """Make the file a VHDX, durably: data and table, then headers, then the signature."""
        if self._finished:
            return
        self.flush()
        header = self._structure.header
        for slot in (0, 1):
            # One after the other ([MS-VHDX] 2.2.2.1): at any moment one header is valid.
            header = replace(header, sequence=header.sequence + 1, file_write_guid=uuid.uuid4())
            self._file.write_at(layout.HEADER_OFFSETS[slot], header.pack())
            self._file.flush()
        self._structure = replace(self._structure, header=header)
        self._file.write_at(0, layout.SIGNATURE)
        self._file.flush()
        self._finished = True

    def _unfinish(self) -> None:
        with self._flush_lock:
            if self._finished:
                self._file.write_at(0, layout.UNFINISHED_SIGNATURE)
                self._file.flush()
                self._finished = False

    def _place(self, block: int) -> int:
        """Return where in the file a payload block lies, giving it a place if it has none."""
        index = self._structure.geometry.entry_index(block)
        with self._lock:
            if not self._bat[index]:
                end = self._end_bytes + self._structure.geometry.block_bytes
                self._file.set_size(end)
                self._bat[index] = self._end_bytes | layout.PayloadState.FULLY_PRESENT
                self._end_bytes = end
                self._dirty_pages.add(index // _BAT_PAGE_ENTRIES)
            return self._bat[index] & layout.BAT_OFFSET_MASK

    def _page_offset(self, page: int) -> int:
        return self._structure.bat.offset + page * _BAT_PAGE_ENTRIES * layout.BAT_ENTRY_BYTES

    def _packed_page(self, page: int) -> bytes:
        entries = self._bat[page * _BAT_PAGE_ENTRIES : (page + 1) * _BAT_PAGE_ENTRIES]
        if sys.byteorder == "big":
            entries.byteswap()
        return entries.tobytes()


def _largest_end(structure: Structure) -> int:
    """Return the size of a file whose every block has its place, as this writer gives them."""
    geometry = structure.geometry
    start = max(end for _, end in structure.reserved_ranges)
    return start + geometry.block_count * geometry.block_bytes


def _check_geometry(file: WritableFile, geometry: layout.Geometry) -> None:
    problems = []
    sector, block, size = geometry.sector_bytes, geometry.block_bytes, geometry.disk_bytes
    if sector not in {512, 4096}:
        problems.append(f"sector size: found {sector}, needed 512 or 4096")
    elif not 0 < size <= layout.MAX_DISK_BYTES or size % sector:
        problems.append(f"size: found {size}, needed 1..64 TiB in sectors of {sector} bytes")
    if not layout.MIN_BLOCK_BYTES <= block <= layout.MAX_BLOCK_BYTES or block & (block - 1):
        problems.append(f"block size: found {block}, needed a power of two from 1 to 256 MiB")
    if file.size_bytes:
        problems.append(f"file: found {file.size_bytes} bytes, needed an empty one")
    if problems:
        raise InputError(
            f"Cannot create VHDX '{file.location}': {'; '.join(problems)}.", problems=problems
        )
