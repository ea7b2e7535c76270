"""Judges the header of a VMDK sparse extent, and grains as they are inflated."""

# References: VMware Virtual Disk Format 5.0: hosted sparse extent header, stream-optimized extents.

from __future__ import annotations

import zlib
from typing import NoReturn

from imageport.errors import BadDisk, UnsupportedDisk
from imageport.formats import _vmdk_layout as layout
from imageport.model import MIB

MAX_SECTORS = 64 * 1024 * 1024 * MIB // layout.SECTOR_BYTES
"""64 TiB; vSphere stops at 62 TiB. Bounds the grain directory: 8 MiB in grains of 64 KiB."""
MIN_GRAIN_SECTORS = 8
MAX_GRAIN_SECTORS = MIB // layout.SECTOR_BYTES
"""All writers we know use 128 (64 KiB); the format asks for a power of two above 8. A MiB is the
largest piece that a disk yields."""
MAX_DIRECTORY_BYTES = 8 * MIB
MAX_DESCRIPTOR_SECTORS = 2 * MIB // layout.SECTOR_BYTES
"""The largest sound one has an extent of 2 GiB per line: 62 TiB in 64 bytes a line."""


def bad(location: str, what: str, offset: int, found: object, needed: object) -> NoReturn:
    """Raise `BadDisk` in the grammar of this project; offsets are bytes."""
    raise BadDisk(
        f"Bad VMDK '{location}': {what} at offset {offset}: found {found}, needed {needed}.",
        object=location,
        offset_bytes=offset,
    )


def unsupported(location: str, reason: str, hint: str) -> NoReturn:
    """Raise `UnsupportedDisk` with what can be done instead."""
    raise UnsupportedDisk(f"Cannot read '{location}': {reason}.", hint=hint, object=location)


def check_header(location: str, header: layout.SparseHeader, offset: int = 0) -> None:
    """Judge what a header says by itself; ``offset`` is where it lies (a footer's is not 0).

    Raises:
        BadDisk: It contradicts the format.
        UnsupportedDisk: Sound, but of a kind that no hypervisor writes today.
    """
    if header.magic != layout.SPARSE_MAGIC:
        bad(location, "magic", offset, header.magic, layout.SPARSE_MAGIC)
    if header.version not in {1, 2, 3}:
        unsupported(
            location,
            f"its sparse header has version {header.version}, known are 1 to 3",
            "Convert the disk with a VMware tool first.",
        )
    if header.flags & layout.FLAG_NEWLINE_TEST and header.newlines != layout.NEWLINES:
        bad(location, "line ends (a transfer in text mode changes them)", offset + 73,
            header.newlines, layout.NEWLINES)  # fmt: skip
    _check_sizes(location, header, offset)
    known = (header.is_compressed, header.compression) in {(False, 0), (True, layout.DEFLATE)}
    if not known:
        found = f"algorithm {header.compression} with flags {header.flags:#x}"
        bad(location, "compression", offset + 77, found, "none, or deflate with its flag")


def _check_sizes(location: str, header: layout.SparseHeader, offset: int) -> None:
    if not 0 < header.capacity <= MAX_SECTORS:
        needed = f"1 to {MAX_SECTORS} sectors"
        bad(location, "capacity", offset + 12, header.capacity, needed)
    grain = header.grain_size
    if grain & (grain - 1) or not MIN_GRAIN_SECTORS <= grain <= MAX_GRAIN_SECTORS:
        needed = f"a power of two from {MIN_GRAIN_SECTORS} to {MAX_GRAIN_SECTORS} sectors"
        bad(location, "grain size", offset + 20, grain, needed)
    if header.entries_per_table != layout.ENTRIES_PER_TABLE:
        found = header.entries_per_table
        bad(location, "entries per grain table", offset + 44, found, layout.ENTRIES_PER_TABLE)
    if header.table_count * layout.ENTRY_BYTES > MAX_DIRECTORY_BYTES:
        unsupported(
            location,
            f"its grain directory has {header.table_count} entries, this release reads at most "
            f"{MAX_DIRECTORY_BYTES // layout.ENTRY_BYTES}",
            "Convert the disk to one with larger grains (64 KiB).",
        )
    if header.descriptor_size > MAX_DESCRIPTOR_SECTORS:
        needed = f"at most {MAX_DESCRIPTOR_SECTORS} sectors"
        bad(location, "descriptor size", offset + 36, header.descriptor_size, needed)


def most_stored_bytes(grain_bytes: int) -> int:
    """Return the most that one compressed grain may take, its marker included.

    Deflate adds at most an eighth to bytes that it cannot compress; twice is what qemu allows.
    """
    return layout.sectors(layout.MARKER_BYTES + 2 * grain_bytes) * layout.SECTOR_BYTES


def inflate(location: str, data: memoryview, offset: int, grain_bytes: int) -> bytes:
    """Return one grain's bytes; never takes more memory than the grain has.

    ``offset`` is where the compressed bytes lie, for messages.
    """
    inflater = zlib.decompressobj()
    try:
        # One more than fits: only then does zlib go on to the checksum behind a whole grain.
        content = inflater.decompress(data, grain_bytes + 1)
    except zlib.error as error:
        bad(location, "compressed grain", offset, f"bytes that do not inflate ({error})",
            "a zlib stream")  # fmt: skip
    if len(content) > grain_bytes:
        found = "more bytes than a grain has"
        bad(location, "compressed grain", offset, found, f"{grain_bytes} bytes")
    if not inflater.eof:
        found = f"{len(content)} bytes without an end"
        bad(location, "compressed grain", offset, found, "a whole zlib stream")
    return content
