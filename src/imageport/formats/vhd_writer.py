"""Writes dynamic VHD files: any order, several threads, resumable after a crash."""

# References: [VHD 1.0] "Dynamic Hard Disk Image", "Block Allocation Table and Data Blocks".

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import NoReturn, Self

from imageport.errors import BadDisk
from imageport.formats import _vhd_layout as layout
from imageport.formats._vhd_new import (
    END_OF_PLACES_BYTES,
    block_stride,
    check_new,
    first_block,
    new_structure,
    own_footer,
    unfinished,
)
from imageport.formats._vhd_structure import Structure, load_dynamic
from imageport.formats._vhd_table import check_entries, load_entries, pack_entries
from imageport.formats.block_table_writer import BlockTableWriter
from imageport.model import MIB
from imageport.storage.byte_file import WritableFile

_PAGE_ENTRIES = layout.SECTOR_BYTES // layout.ENTRY_BYTES
"""Table entries are written a sector at once, the unit that disks write atomically."""
_MOST_LOST = 2
"""A resumed file may hold that many times its blocks: a crash loses places, never many."""


class VhdWriter(BlockTableWriter):
    """A dynamic VHD in the making; blocks never written read as zeros.

    While it is unfinished, neither its start nor its end is a footer. `flush` makes data and table
    durable: what was written before it is there after a crash and `reopen`. `finish` turns the
    file into a VHD; it may be called again. A write after `finish` takes the footer back first.
    All methods may be called from several threads. The caller owns ``file``, which must be empty,
    and closes it. The blocks' sector bitmaps are all ones: their other sectors are zeros.

    Raises:
        InputError: The size is no multiple of 512, above 2040 GiB, or the block size impossible.
        ShareFull: No room; what was flushed before stays valid.
    """

    def __init__(self, file: WritableFile, size_bytes: int, *, block_bytes: int = 2 * MIB) -> None:
        check_new(file, size_bytes, block_bytes)
        structure = new_structure(size_bytes, block_bytes)
        assert structure.header is not None  # noqa: S101 - of a dynamic disk
        header = structure.header
        # First of all the mark that tells our own unfinished file from anybody else's.
        file.write_at(0, unfinished(structure.footer))
        file.write_at(layout.FOOTER_BYTES, header.pack())
        table_bytes = layout.table_bytes(header.entry_count)
        for start in range(0, table_bytes, MIB):
            file.write_at(header.table_offset + start, b"\xff" * min(MIB, table_bytes - start))
        file.set_size(first_block(header))
        file.flush()
        entries = array("I", [layout.UNUSED]) * header.entry_count
        self._take(file, structure, entries, finished=False)

    @classmethod
    def reopen(cls, file: WritableFile) -> Self:
        """Take up a file that this class wrote, finished or not.

        Blocks whose table entry was not durable are gone and read as zeros again.

        Raises:
            BadDisk: The file is not one of ours, or was killed before its structures were written.
        """
        footer, finished = own_footer(file, 0)
        if footer.disk_type != layout.DiskType.DYNAMIC:
            raise BadDisk(
                f"Cannot go on writing '{file.location}': found a VHD of type "
                f"{footer.disk_type}, needed a dynamic one.",
                object=file.location,
            )
        structure = load_dynamic(file, footer, file.size_bytes)
        assert structure.header is not None  # noqa: S101 - of a dynamic disk
        writer = cls.__new__(cls)
        entries = load_entries(file, structure, structure.header)
        writer._take(file, structure, entries, finished=finished)  # noqa: SLF001  (its own class)
        writer._repair()  # noqa: SLF001  (its own class)
        return writer

    def _take(
        self, file: WritableFile, structure: Structure, entries: array[int], *, finished: bool
    ) -> None:
        assert structure.header is not None  # noqa: S101 - of a dynamic disk
        super().__init__(file, finished=finished)
        self._structure = structure
        self._header = structure.header
        self._entries = entries
        self._stride = block_stride(self._header)
        self._bitmap = b"\xff" * layout.bitmap_bytes(self._header.block_bytes)
        used = [entry for entry in entries if entry != layout.UNUSED]
        last = max(used, default=0) * layout.SECTOR_BYTES
        self._end_bytes = last + self._stride if used else first_block(self._header)

    @property
    def size_bytes(self) -> int:
        """Return the virtual disk size."""
        return self._structure.size_bytes

    @property
    def block_bytes(self) -> int:
        """Return the size of a block's data."""
        return self._header.block_bytes

    def is_allocated(self, offset_bytes: int) -> bool:
        """Return whether the block around this offset has a place in the file."""
        return self._entries[offset_bytes // self._header.block_bytes] != layout.UNUSED

    def finish(self) -> None:
        """Make the file a VHD, durably: data and table, the footer, last its copy at the start."""
        if self._finished:
            return
        self.flush()
        packed = self._structure.footer.pack()
        self._file.write_at(self._end_bytes, packed)
        self._file.flush()
        self._file.write_at(0, packed)
        self._file.flush()
        self._finished = True

    def _unfinish(self) -> None:
        with self._flush_lock:
            if self._finished:
                self._file.write_at(0, unfinished(self._structure.footer))
                self._file.flush()
                self._file.set_size(self._end_bytes)
                self._finished = False

    def _place(self, block: int) -> int:
        """Return where in the file a block's data lies, giving it a place if it has none."""
        with self._lock:
            is_new = self._entries[block] == layout.UNUSED
            if is_new:
                end = self._end_bytes + self._stride
                if end > END_OF_PLACES_BYTES:
                    self._no_places(end)
                self._file.set_size(end)
                self._entries[block] = self._end_bytes // layout.SECTOR_BYTES
                self._end_bytes = end
                self._dirty_pages.add(block // _PAGE_ENTRIES)
            place = self._entries[block] * layout.SECTOR_BYTES
        if is_new:
            self._file.write_at(place, self._bitmap)
        return place + len(self._bitmap)

    def _no_places(self, end: int) -> NoReturn:
        raise BadDisk(
            f"Cannot go on writing '{self._file.location}': its blocks would reach {end} bytes, "
            f"needed at most {END_OF_PLACES_BYTES}.",
            hint="Runs that were killed lost room in it: delete the file and begin anew.",
            object=self._file.location,
        )

    def _page_offset(self, page: int) -> int:
        return self._header.table_offset + page * layout.SECTOR_BYTES

    def _packed_page(self, page: int) -> bytes:
        packed = pack_entries(self._entries[page * _PAGE_ENTRIES : (page + 1) * _PAGE_ENTRIES])
        return packed.ljust(layout.SECTOR_BYTES, b"\xff")

    def _repair(self) -> None:
        """Make a file whole whose writer was killed: its end, and bitmaps that were not durable."""
        most = first_block(self._header) + _MOST_LOST * self._header.entry_count * self._stride
        most = min(most, END_OF_PLACES_BYTES)
        if self._end_bytes > most:
            raise BadDisk(
                f"Bad VHD '{self._file.location}': its table names bytes up to "
                f"{self._end_bytes}, needed at most {most}.",
                object=self._file.location,
            )
        # The end of the file follows the table: space that was given to a block whose entry was
        # lost may hold old bytes, so it is cut off and comes back as zeros.
        kept = self._end_bytes + (layout.FOOTER_BYTES if self._finished else 0)
        self._file.set_size(kept)
        structure = load_dynamic(self._file, self._structure.footer, kept)
        check_entries(self._file, structure, self._header, self._entries)
        for place, bitmap in self._read_bitmaps():
            if bitmap != self._bitmap:
                self._file.write_at(place, self._bitmap)

    def _read_bitmaps(self) -> Iterator[tuple[int, bytes]]:
        places = sorted(one * layout.SECTOR_BYTES for one in self._entries if one != layout.UNUSED)
        length = len(self._bitmap)  # at most 4 KiB: no file reads it in two pieces
        return self._file.read_many((place, length) for place in places)
