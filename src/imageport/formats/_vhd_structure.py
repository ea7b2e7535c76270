"""Reads and judges the structures of a VHD: footers, dynamic header, parent. All distrusted."""

# References: [VHD 1.0] "Hard Disk Footer Format", "Dynamic Disk Header Format", "Implementing a
# Differencing Hard Disk"; which creators mean which size: QEMU, block/vpc.c.

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from imageport.errors import BadDisk, UnsupportedDisk
from imageport.formats import _vhd_layout as layout
from imageport.formats.parents import windows_base_name
from imageport.storage.byte_file import ByteFile

_EXACT_CREATORS = frozenset(
    {layout.HYPER_V, b"qem2", b"d2v ", b"tap\0", b"CTXS", b"wa\0\0", b"caml", b"xo  "}
)
"""Programs known to write the guest's size as the current size, whatever CHS rounds to: Hyper-V,
QEMU, disk2vhd, XenServer, XenConvert, Azure, xapi, Xen Orchestra."""
_MOST_LOCATOR_BYTES = 64 * 1024
"""A Windows path has at most 32 767 characters of two bytes."""


@dataclass(frozen=True, slots=True)
class Structure:
    """What the structures of a valid VHD say."""

    footer: layout.Footer
    header: layout.Header | None
    """None for a fixed disk."""
    size_bytes: int
    data_end: int
    """Where the blocks end: at the footer, or at the end of a file that has lost it."""
    parent_names: tuple[str, ...] = ()
    reserved: tuple[tuple[int, int, str], ...] = ()
    """(start, end, what) of everything that no block may touch."""
    notes: tuple[str, ...] = ()
    """What a person should know: damage that was got around, sizes that differ."""

    @property
    def is_differencing(self) -> bool:
        """Return whether the file holds only differences to a parent."""
        return self.footer.disk_type == layout.DiskType.DIFFERENCING


def bad(location: str, what: str, offset: int, found: object, needed: object) -> NoReturn:
    """Raise `BadDisk` in the grammar of this project."""
    raise BadDisk(
        f"Bad VHD '{location}': {what} at offset {offset}: found {found}, needed {needed}.",
        object=location,
        offset_bytes=offset,
    )


def cut_short(file: ByteFile, what: str, needed_bytes: int) -> NoReturn:
    """Raise `BadDisk` for a file that ends before something that its structures name."""
    raise BadDisk(
        f"Bad VHD '{file.location}': cut short: {what} needs {needed_bytes} bytes, "
        f"found a file of {file.size_bytes} bytes.",
        object=file.location,
        offset_bytes=file.size_bytes,
    )


def load(file: ByteFile) -> Structure:
    """Read and validate all structures but the table's entries.

    Raises:
        BadDisk: The bytes contradict the specification, or the file is cut short.
        UnsupportedDisk: Sound, but of a type, version or block size that is not known.
    """
    footer, data_end, notes = _footer(file)
    if footer.disk_type == layout.DiskType.FIXED:
        size, said = resolve_size(file.location, footer, data_end)
        return Structure(footer, None, size, data_end, notes=notes + said)
    return load_dynamic(file, footer, data_end, notes)


def load_dynamic(
    file: ByteFile, footer: layout.Footer, data_end: int, notes: tuple[str, ...] = ()
) -> Structure:
    """Read and validate what follows the footer of a disk that has a table."""
    at = footer.data_offset
    if at + layout.HEADER_BYTES > file.size_bytes:
        cut_short(file, "the dynamic header", at + layout.HEADER_BYTES)
    header = checked_header(file.location, file.read_at(at, layout.HEADER_BYTES), footer)
    size, said = resolve_size(file.location, footer, header.entry_count * header.block_bytes)
    entries = block_count(size, header.block_bytes)
    table_end = header.table_offset + layout.table_bytes(entries)
    if header.table_offset + entries * layout.ENTRY_BYTES > file.size_bytes:
        cut_short(file, "the block table", header.table_offset + entries * layout.ENTRY_BYTES)
    reserved = [
        (0, layout.FOOTER_BYTES, "the copy of the footer"),
        (at, at + layout.HEADER_BYTES, "the dynamic header"),
        (header.table_offset, table_end, "the block table"),
    ]
    names: tuple[str, ...] = ()
    if footer.disk_type == layout.DiskType.DIFFERENCING:
        names, places = _parent_names(file, header)
        reserved += places
    if data_end < file.size_bytes:
        reserved.append((data_end, file.size_bytes, "the footer"))
    return Structure(footer, header, size, data_end, names, tuple(reserved), notes + said)


def block_count(size_bytes: int, block_bytes: int) -> int:
    """Return how many blocks a disk has; the last may reach past its end."""
    return -(-size_bytes // block_bytes)


def checked_footer(location: str, footer: layout.Footer, at: int) -> layout.Footer:
    """Return a footer whose checksum is right after judging what it says."""
    major = footer.version >> 16
    if major != layout.FORMAT_MAJOR:
        bad(location, "footer: format version", at + 12, hex(footer.version), "1.x")
    if footer.disk_type in {5, 6}:
        raise UnsupportedDisk(
            f"Cannot read '{location}': its VHD type is {footer.disk_type}, a reserved one.",
            hint="Convert the disk with the program that made it.",
            object=location,
        )
    if footer.disk_type not in set(layout.DiskType):
        bad(location, "footer: disk type", at + 60, footer.disk_type, "2, 3 or 4")
    size = footer.current_bytes
    if not size or size % layout.SECTOR_BYTES:
        bad(location, "footer: current size", at + 48, size, "a multiple of 512, not 0")
    dynamic = footer.disk_type != layout.DiskType.FIXED
    if dynamic and footer.data_offset < layout.FOOTER_BYTES:
        bad(location, "footer: data offset", at + 16, footer.data_offset, "512 or more")
    return footer


def checked_header(location: str, data: bytes, footer: layout.Footer) -> layout.Header:
    """Return the dynamic header after judging it; ``data`` lies at the footer's data offset."""
    at = footer.data_offset
    if data[:8] != layout.HEADER_COOKIE:
        bad(location, "dynamic header: cookie", at, data[:8], layout.HEADER_COOKIE)
    header = layout.Header.unpack(data)
    if header is None:
        found = f"checksum 0x{data[36:40].hex()}"
        right = layout.checksum(data[:36] + data[40:])
        bad(location, "dynamic header", at + 36, found, f"checksum {right:#010x}")
    if header.version >> 16 != layout.HEADER_MAJOR:
        bad(location, "dynamic header: version", at + 24, hex(header.version), "1.x")
    block = header.block_bytes
    if not layout.MIN_BLOCK_BYTES <= block <= layout.MAX_BLOCK_BYTES or block & (block - 1):
        needed = "a power of two from 512 bytes to 256 MiB"
        bad(location, "dynamic header: block size", at + 32, block, needed)
    table, header_end = header.table_offset, at + layout.HEADER_BYTES
    table_end = table + header.entry_count * layout.ENTRY_BYTES
    if table < layout.FOOTER_BYTES or (table < header_end and at < table_end):
        needed = f"a place outside 0..512 and {at}..{header_end}"
        bad(location, "dynamic header: table offset", at + 16, table, needed)
    return header


def resolve_size(
    location: str, footer: layout.Footer, held_bytes: int
) -> tuple[int, tuple[str, ...]]:
    """Return the size that the guest sees, and what to say of it.

    The current size is the size: what CHS cannot express is the disk's end all the same. Virtual
    PC and early QEMU showed the guest only what CHS expresses; a larger disk loses nothing of it.
    Only where the file does not even hold the current size, and its creator is not known to write
    it exactly, does the geometry decide.
    """
    current, by_chs = footer.current_bytes, footer.geometry.size_bytes
    exact = footer.creator in _EXACT_CREATORS
    shown = f"creator '{creator_text(footer)}'"
    if current <= held_bytes:
        if exact or by_chs == current:
            return current, ()
        said = f"{shown}: the geometry says {by_chs} bytes, the current size {current} was taken"
        return current, (said,)
    if not exact and 0 < by_chs <= held_bytes:
        said = f"{shown}: the file holds no {current} bytes, the geometry's {by_chs} were taken"
        return by_chs, (said,)
    raise BadDisk(
        f"Bad VHD '{location}': cut short: found {held_bytes} bytes of disk, needed {current} by "
        "its footer.",
        object=location,
        offset_bytes=held_bytes,
    )


def creator_text(footer: layout.Footer) -> str:
    """Return the creator in print; it is four bytes of anything."""
    text = footer.creator.decode("ascii", "backslashreplace").rstrip("\0 ")
    return text.encode("unicode_escape").decode()


def _footer(file: ByteFile) -> tuple[layout.Footer, int, tuple[str, ...]]:
    """Return the footer, where the blocks or the data end, and what to say of it."""
    found = _end_footer(file)
    head = file.read_at(0, min(layout.FOOTER_BYTES, file.size_bytes))
    copy = layout.Footer.unpack(head) if len(head) == layout.FOOTER_BYTES else None
    if copy is not None and copy.disk_type == layout.DiskType.FIXED and file.size_bytes > 512:
        copy = None  # the first sector of a fixed disk is the guest's
    if found is None:
        if copy is None:
            _no_footer(file, head)
        said = "the footer is damaged or missing: its copy at the start was used"
        return checked_footer(file.location, copy, 0), file.size_bytes, (said,)
    footer, at = found
    checked_footer(file.location, footer, at)
    if footer.disk_type == layout.DiskType.FIXED:
        return footer, at, ()
    if copy is None:
        return footer, at, ("the copy of the footer at the start is damaged",)
    _check_alike(file, footer, at, copy)
    return footer, at, ()


def _end_footer(file: ByteFile) -> tuple[layout.Footer, int] | None:
    for length in (layout.FOOTER_BYTES, layout.OLD_FOOTER_BYTES):
        at = file.size_bytes - length
        if at >= 0 and (footer := layout.Footer.unpack(file.read_at(at, length))):
            return footer, at
    return None


def _no_footer(file: ByteFile, head: bytes) -> NoReturn:
    at = max(0, file.size_bytes - layout.FOOTER_BYTES)
    tail = file.read_at(at, file.size_bytes - at)
    at += 1 if tail[1:9] == layout.COOKIE else 0
    if tail[:8] == layout.COOKIE or tail[1:9] == layout.COOKIE:
        padded = tail[tail.find(layout.COOKIE) :].ljust(layout.FOOTER_BYTES, b"\0")
        right = layout.checksum(padded[:64] + padded[68:])
        found = f"checksum 0x{padded[64:68].hex()}"
        bad(file.location, "footer", at + 64, found, f"checksum {right:#010x}, or a sound copy")
    what = "footer, and no copy at the start" if head[:8] != layout.COOKIE else "footer or copy"
    bad(file.location, what, at, tail[:8] or "nothing", layout.COOKIE)


def _check_alike(file: ByteFile, footer: layout.Footer, at: int, copy: layout.Footer) -> None:
    """Refuse a file whose two footers, both sound, describe different disks."""
    for what, inside, mine, other in (
        ("disk type", 60, footer.disk_type, copy.disk_type),
        ("current size", 48, footer.current_bytes, copy.current_bytes),
        ("data offset", 16, footer.data_offset, copy.data_offset),
        ("unique id", 68, footer.unique_id, copy.unique_id),
    ):
        if mine != other:
            needed = f"{other} as in its copy at offset {inside}"
            bad(file.location, f"footer: {what}", at + inside, mine, needed)


def _parent_names(
    file: ByteFile, header: layout.Header
) -> tuple[tuple[str, ...], list[tuple[int, int, str]]]:
    """Return the parent's names, most trusted first, and where their paths lie."""
    names, places = [], []
    for code in layout.WINDOWS_LOCATORS:
        for locator in header.locators:
            if locator.code != code or not locator.length:
                continue
            end = locator.offset + locator.length
            what = f"parent locator {code.decode()}"
            if locator.length > _MOST_LOCATOR_BYTES:
                needed = f"at most {_MOST_LOCATOR_BYTES} bytes"
                bad(file.location, what, locator.offset, f"{locator.length} bytes", needed)
            if end > file.size_bytes:
                cut_short(file, what, end)
            path = file.read_at(locator.offset, locator.length).decode("utf-16-le", "replace")
            names.append(windows_base_name(path.split("\0")[0]))
            places.append((locator.offset, end, what))
    names.append(windows_base_name(header.parent_name))
    return tuple(dict.fromkeys(name for name in names if name)), places
