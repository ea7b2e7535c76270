"""Lays out new VHD files: what a fixed one ends with, what a dynamic one begins with."""

# References: [VHD 1.0] "Hard Disk Footer Format", "Dynamic Disk Header Format"; RFC 9562 5.8.

from __future__ import annotations

import time
import uuid

from imageport.errors import BadDisk, InputError
from imageport.formats import _vhd_layout as layout
from imageport.formats._vhd_structure import Structure, block_count, checked_footer
from imageport.storage.byte_file import WritableFile

MIN_NEW_BLOCK_BYTES = 512 * 1024
MAX_NEW_BLOCK_BYTES = 16 * 1024 * 1024
"""The block sizes that PVS is tested with lie from 512 KiB to 16 MiB."""
_ALIGNMENT_BYTES = 4096
"""Of a block's data in the file, as XenServer and newer Hyper-V do it: one that begins after a
bitmap of 512 bytes would make a disk of 4 KiB sectors read before every write."""
END_OF_PLACES_BYTES = layout.UNUSED * layout.SECTOR_BYTES
"""Where blocks must end: a table entry names a sector in 32 bits, of which one value is taken."""
_TABLE_OFFSET = layout.FOOTER_BYTES + layout.HEADER_BYTES
"""Where every program of Microsoft puts it."""
_OWN_ID = b"imgprt"
"""Start of the unique ids that we make, of version 8 (free for the maker): marks our own files
also when they are finished, without touching a field that somebody may interpret."""


def check_new(file: WritableFile, size_bytes: int, block_bytes: int | None = None) -> None:
    """Raise `InputError` for a disk that the format cannot hold, or a file that is not empty."""
    problems = []
    if not 0 < size_bytes <= layout.MAX_DISK_BYTES or size_bytes % layout.SECTOR_BYTES:
        needed = "1..2040 GiB in sectors of 512 bytes"
        problems.append(f"size: found {size_bytes}, needed {needed}")
    if block_bytes is not None and (
        not MIN_NEW_BLOCK_BYTES <= block_bytes <= MAX_NEW_BLOCK_BYTES
        or block_bytes & (block_bytes - 1)
    ):
        needed = "a power of two from 512 KiB to 16 MiB"
        problems.append(f"block size: found {block_bytes}, needed {needed}")
    if block_bytes is not None and not problems:
        header = layout.Header(_TABLE_OFFSET, block_count(size_bytes, block_bytes), block_bytes)
        most = first_block(header) + header.entry_count * block_stride(header)
        if most > END_OF_PLACES_BYTES:
            needed = f"larger ones: these may reach {most} bytes, of {END_OF_PLACES_BYTES}"
            problems.append(f"block size: found {block_bytes}, needed {needed}")
    if file.size_bytes:
        problems.append(f"file: found {file.size_bytes} bytes, needed an empty one")
    if problems:
        raise InputError(
            f"Cannot create VHD '{file.location}': {'; '.join(problems)}.", problems=problems
        )


def new_footer(size_bytes: int, disk_type: layout.DiskType) -> layout.Footer:
    """Return the footer of a new disk of exactly this size.

    Its creator is Hyper-V's: Windows takes the size from the current size in any case, and QEMU
    and libvhdi do so for this creator, where for an unknown one QEMU cuts the disk to its CHS.
    """
    fixed = disk_type == layout.DiskType.FIXED
    return layout.Footer(
        disk_type=disk_type,
        current_bytes=size_bytes,
        geometry=layout.chs_geometry(size_bytes),
        unique_id=_new_id(),
        data_offset=layout.NO_OFFSET if fixed else layout.FOOTER_BYTES,
        timestamp=max(0, int(time.time()) - layout.EPOCH_SECONDS),
    )


def new_structure(size_bytes: int, block_bytes: int) -> Structure:
    """Return the structures of a new, empty dynamic disk."""
    footer = new_footer(size_bytes, layout.DiskType.DYNAMIC)
    header = layout.Header(_TABLE_OFFSET, block_count(size_bytes, block_bytes), block_bytes)
    return Structure(footer, header, size_bytes, data_end=0)


def first_block(header: layout.Header) -> int:
    """Return where the first block's bitmap lies."""
    before = layout.bitmap_bytes(header.block_bytes)
    return _aligned(header.table_offset + layout.table_bytes(header.entry_count) + before) - before


def block_stride(header: layout.Header) -> int:
    """Return the distance from one block to the next."""
    return _aligned(layout.bitmap_bytes(header.block_bytes) + header.block_bytes)


def unfinished(footer: layout.Footer) -> bytes:
    """Return a footer that no reader takes for one."""
    return layout.UNFINISHED_COOKIE + footer.pack()[8:]


def own_footer(file: WritableFile, at: int) -> tuple[layout.Footer, bool]:
    """Return the footer at a place of a file that we began, and whether the file is finished.

    Raises:
        BadDisk: The file is not ours, or was killed before its structures were written.
    """
    packed = file.read_at(at, layout.FOOTER_BYTES) if 0 <= at <= file.size_bytes - 512 else b""
    if not is_own(packed):
        found = packed[:8].hex(" ") or "nothing"
        raise BadDisk(
            f"Cannot go on writing '{file.location}': found {found} at offset {at}, needed the "
            "footer of a file that this program began.",
            object=file.location,
        )
    footer = layout.Footer.unpack(layout.COOKIE + packed[8:])
    if footer is None:
        raise BadDisk(
            f"Cannot go on writing '{file.location}': found a footer at offset {at} whose "
            "checksum is wrong, needed a sound one.",
            object=file.location,
        )
    return checked_footer(file.location, footer, at), packed.startswith(layout.COOKIE)


def is_own(packed: bytes) -> bool:
    """Return whether a footer, finished or not, is of a file that we began."""
    marked = packed[:8] in {layout.COOKIE, layout.UNFINISHED_COOKIE}
    return marked and packed[68:].startswith(_OWN_ID)


def _new_id() -> uuid.UUID:
    drawn = bytearray(_OWN_ID + uuid.uuid4().bytes[: 16 - len(_OWN_ID)])
    drawn[6] = drawn[6] & 0x0F | 0x80
    drawn[8] = drawn[8] & 0x3F | 0x80
    return uuid.UUID(bytes=bytes(drawn))


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
