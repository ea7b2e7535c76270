"""Reads a dynamic or differencing VHD as it arrives: block by block, without seeking."""

# References: [VHD 1.0] "Block Allocation Table and Data Blocks"; xen-api, vhd_format/f.ml: xapi
# sends the copy of the footer, the header, the table, blocks ascending with whole bitmaps, the
# footer; XenServer's own block map may lie between table and blocks.

from __future__ import annotations

from array import array
from collections.abc import Iterator

from imageport.errors import BadDisk, ExportInterrupted, UnsupportedDisk
from imageport.formats import _vhd_layout as layout
from imageport.formats._vhd_bitmap import bit_runs
from imageport.formats._vhd_structure import bad, checked_footer, checked_header, resolve_size
from imageport.formats._vhd_table import entry_count, unpack_entries
from imageport.formats.disk_stream import ByteStream, DiskStream
from imageport.formats.virtual_disk import PIECE_BYTES
from imageport.model import MIB

_MOST_GAP_BYTES = MIB
"""What may lie between the last block and the footer: padding to an alignment."""
_LAST_TABLE_OFFSET = 16 * MIB
"""A table further back is no stream's: header and parent paths precede it, a few KiB."""


class VhdStream(DiskStream):
    """A VHD out of an export, a pipe or a file.

    Footer copy, header and table are read when it is made. Of a differencing one `pieces` yields
    the sectors that it holds, zeros too; all others are the parent's. Does not close ``source``:
    that is whose connection it is.

    Raises:
        BadDisk: The first bytes are no sound VHD.
        UnsupportedDisk: A VHD whose blocks do not come in the disk's order.
        ExportInterrupted: It ends within header or table.
    """

    format_name = "vhd-stream"

    def __init__(self, source: ByteStream) -> None:
        self.location = source.location
        self._bytes = _Counted(source)
        self._footer = self._read_footer_copy()
        self._bytes.skip_to(self._footer.data_offset, "the dynamic header")
        packed = self._bytes.take(layout.HEADER_BYTES, "the dynamic header")
        self._header = checked_header(self.location, packed, self._footer)
        held = self._header.entry_count * self._header.block_bytes
        self._size_bytes, _ = resolve_size(self.location, self._footer, held)
        self._entries = self._read_table()
        self._check_order()
        self._blocks = 0
        self._complete = False

    @property
    def size_bytes(self) -> int:
        """Return the size the guest sees."""
        return self._size_bytes

    @property
    def is_differencing(self) -> bool:
        """Return whether what does not come is the parent's; else it reads as zeros."""
        return self._footer.disk_type == layout.DiskType.DIFFERENCING

    @property
    def parent_id(self) -> str:
        """Return the unique id of the disk that this one's differences are to, empty without."""
        return str(self._header.parent_id) if self.is_differencing else ""

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes), ascending, at most 1 MiB each: the sectors whose bit is set."""
        for block, entry in enumerate(self._entries):
            if entry != layout.UNUSED:
                self._bytes.skip_to(entry * layout.SECTOR_BYTES, f"block {block}")
                yield from self._block_pieces(block)
                self._blocks += 1
        self._read_footer()
        self._complete = True

    def finish(self) -> str:
        """Say what was compared; `BadDisk` when the end was not reached."""
        if not self._complete:
            raise BadDisk(
                f"Bad VHD '{self.location}': found {self._blocks} blocks and no end, needed the "
                "footer at the end.",
                object=self.location,
            )
        count = len(self._entries)
        return f"{self._blocks} of {count} blocks came, and the footer is the one that came first"

    def close(self) -> None:
        """Do nothing: the connection belongs to whoever opened it."""

    def _read_footer_copy(self) -> layout.Footer:
        packed = self._bytes.take(layout.FOOTER_BYTES, "the copy of the footer")
        if packed[:8] != layout.COOKIE:
            bad(self.location, "copy of the footer", 0, packed[:8], layout.COOKIE)
        footer = layout.Footer.unpack(packed)
        if footer is None:
            right = layout.checksum(packed[:64] + packed[68:])
            found = f"checksum 0x{packed[64:68].hex()}"
            bad(self.location, "copy of the footer", 64, found, f"checksum {right:#010x}")
        if footer.disk_type == layout.DiskType.FIXED:
            bad(self.location, "copy of the footer: disk type", 60, 2, "3 or 4")
        checked_footer(self.location, footer, 0)
        if footer.data_offset > _LAST_TABLE_OFFSET:
            needed = f"at most {_LAST_TABLE_OFFSET}"
            bad(self.location, "footer: data offset", 16, footer.data_offset, needed)
        return footer

    def _read_table(self) -> array[int]:
        at = self._header.table_offset
        if not self._bytes.position <= at <= _LAST_TABLE_OFFSET:
            field = self._footer.data_offset + 16
            needed = f"{self._bytes.position}..{_LAST_TABLE_OFFSET} in a stream"
            bad(self.location, "dynamic header: table offset", field, at, needed)
        self._bytes.skip_to(at, "the block table")
        count = entry_count(self.location, self._size_bytes, self._header.block_bytes)
        return unpack_entries(self._bytes.pieces(count * layout.ENTRY_BYTES, "the block table"))

    def _check_order(self) -> None:
        """Refuse blocks that overlap or do not ascend, before any of them came."""
        before = layout.bitmap_bytes(self._header.block_bytes)
        sectors = (before + self._header.block_bytes) // layout.SECTOR_BYTES
        previous = -1
        behind = -(-self._bytes.position // layout.SECTOR_BYTES)
        for block, entry in enumerate(self._entries):
            if entry == layout.UNUSED:
                continue
            at = self._header.table_offset + block * layout.ENTRY_BYTES
            if entry < behind and previous - sectors >= entry:
                raise UnsupportedDisk(
                    f"Cannot read '{self.location}' as a stream: its block {block} comes before "
                    f"one that precedes it on the disk (table entry at offset {at}).",
                    hint="Export the disk raw, or read the VHD as a file.",
                    object=self.location,
                )
            if entry < behind:
                bad(self.location, f"table entry {block}", at, entry, f"{behind} or more")
            previous, behind = entry, entry + sectors

    def _block_pieces(self, block: int) -> Iterator[tuple[int, bytes]]:
        sector = layout.SECTOR_BYTES
        origin = block * self._header.block_bytes
        bitmap = self._bytes.take(layout.bitmap_bytes(self._header.block_bytes), "a sector bitmap")
        length = min(self._header.block_bytes, self._size_bytes - origin)
        for start in range(0, length, PIECE_BYTES):
            count = min(PIECE_BYTES, length - start)
            data = self._bytes.take(count, f"block {block}")
            first = start // sector
            for run, run_end, is_here in bit_runs(bitmap, first, first + count // sector):
                if is_here:
                    at, end = run * sector - start, run_end * sector - start
                    yield origin + start + at, data[at:end]

    def _read_footer(self) -> None:
        """Read on to the footer: the rest of a block past the disk's end, padding, the footer."""
        sectors = -(-self._bytes.position // layout.SECTOR_BYTES)
        self._bytes.skip_to(sectors * layout.SECTOR_BYTES, "the footer")
        limit = self._bytes.position + self._header.block_bytes + _MOST_GAP_BYTES
        while self._bytes.position <= limit:
            packed = self._bytes.up_to(layout.FOOTER_BYTES)
            found = layout.Footer.unpack(packed)
            if found == self._footer:
                return
            if found is not None and packed[:8] == layout.COOKIE:
                at = self._bytes.position - len(packed)
                bad(self.location, "footer", at, "another one", "the one of the stream's start")
            if len(packed) < layout.FOOTER_BYTES:
                raise ExportInterrupted(
                    f"Cannot go on reading '{self.location}': it ended after "
                    f"{self._bytes.position} bytes, the footer is missing.",
                    object=self.location,
                )
        bad(self.location, "end of the blocks", limit, "no footer", "the footer")


class _Counted:
    """The bytes of a stream by position, never read past what is asked for."""

    def __init__(self, source: ByteStream) -> None:
        self._source = source
        self.position = 0

    def up_to(self, length: int) -> bytes:
        """Return the next bytes, fewer only at the end."""
        data = self._source.read(length)
        self.position += len(data)
        return data

    def take(self, length: int, what: str) -> bytes:
        """Return exactly the next bytes; `ExportInterrupted` when they end within them."""
        data = self.up_to(length)
        if len(data) < length:
            raise ExportInterrupted(
                f"Cannot go on reading '{self._source.location}': it ended after {self.position} "
                f"bytes, within {what}.",
                object=self._source.location,
            )
        return data

    def pieces(self, length: int, what: str) -> Iterator[bytes]:
        """Yield the next bytes in pieces."""
        for start in range(0, length, PIECE_BYTES):
            yield self.take(min(PIECE_BYTES, length - start), what)

    def skip_to(self, position: int, what: str) -> None:
        """Read on to a position that was not passed yet."""
        for _ in self.pieces(position - self.position, f"what precedes {what}"):
            pass
