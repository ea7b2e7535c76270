"""Parses the text that describes a VMDK: its kind, its parent, the extents that make it up."""

# References: VMware Virtual Disk Format 5.0: the descriptor file.

from __future__ import annotations

import re
from dataclasses import dataclass

from imageport.formats import _vmdk_layout as layout
from imageport.formats._vmdk_header import MAX_SECTORS, bad, unsupported

MAX_BYTES = 2 * 1024 * 1024
"""62 TiB in extents of 2 GiB, one line of 64 bytes each; nothing sound is larger."""
MAX_EXTENTS = 4096
"""8 TiB in extents of 2 GiB. Each is an open file."""
NO_PARENT = "ffffffff"
_EXTENT = re.compile(
    r'(RW|RDONLY|NOACCESS)\s+(\d{1,19})\s+(\w{1,32})(?:\s+"([^"]*)"(?:\s+(\d{1,19}))?)?',
    re.IGNORECASE,
)
_SETTING = re.compile(r'(\w+)\s*=\s*(?:"([^"]*)"|(\S*))\s*$')
_DECLARED = re.compile(rb'^\s*encoding\s*=\s*"?([\w.-]{1,32})', re.MULTILINE | re.IGNORECASE)
_ENCODINGS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "iso-8859-1": "iso-8859-1",
    "iso-8859-15": "iso-8859-15",
    "gbk": "gbk",
    "gb18030": "gb18030",
    "big5": "big5",
    "shift_jis": "cp932",
    "euc-kr": "euc-kr",
    **{f"windows-{page}": f"cp{page}" for page in range(1250, 1259)},
    **{f"windows-{page}": f"cp{page}" for page in (932, 936, 949, 950)},
}
"""Names that VMware products write; any other could be a codec that is no text encoding."""


@dataclass(frozen=True, slots=True)
class DescribedExtent:
    """One extent line; ``size`` and ``start`` are sectors, ``start`` that of its content."""

    access: str
    size: int
    kind: str
    name: str
    start: int


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a descriptor says, as far as reading the disk needs it."""

    create_type: str
    content_id: str
    parent_content_id: str
    parent_name: str
    extents: tuple[DescribedExtent, ...]

    @property
    def size(self) -> int:
        """Return the disk's sectors."""
        return sum(extent.size for extent in self.extents)


def is_descriptor(head: bytes) -> bool:
    """Return whether bytes start a descriptor, perhaps behind a byte order mark or empty lines."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")[:32]
    letters = start.lower().replace(b" ", b"")
    return letters.startswith(layout.DESCRIPTOR_MAGIC.lower().replace(b" ", b""))


def nominal_size(location: str, descriptor: Descriptor, header: layout.SparseHeader) -> int:
    """Return the sectors of a disk whose descriptor lies in its only extent.

    VirtualBox rounds the header's capacity up to whole grains and keeps the disk's own size in the
    descriptor; others write the same number twice.
    """
    if not descriptor.extents:
        return header.capacity
    if not fits_capacity(descriptor.size, header):
        at = header.descriptor_offset * layout.SECTOR_BYTES
        needed = f"{header.capacity}, the header's capacity, or as many within its last grain"
        bad(location, "descriptor's sectors", at, descriptor.size, needed)
    return descriptor.size


def fits_capacity(size: int, header: layout.SparseHeader) -> bool:
    """Return whether a disk of so many sectors ends within the last grain of the capacity.

    If it ended a grain earlier, a grain could come that lies past the disk's end.
    """
    last_grain = (header.capacity - 1) // header.grain_size
    return last_grain * header.grain_size < size <= header.capacity


def parse(location: str, data: bytes, offset: int = 0) -> Descriptor:
    """Read a descriptor; what follows a NUL is padding.

    Raises:
        BadDisk: No descriptor, or one that contradicts itself.
        UnsupportedDisk: Written in an encoding that we do not know.
    """
    if not is_descriptor(data[:1024]):
        bad(location, "descriptor", offset, data[:24], layout.DESCRIPTOR_MAGIC)
    lines = _text(location, data.partition(b"\0")[0]).splitlines()
    settings: dict[str, str] = {}
    extents: list[DescribedExtent] = []
    for number, raw_line in enumerate(lines, start=1):
        line = raw_line.strip()
        if line.startswith("#") or not line:
            continue
        if found := _EXTENT.match(line):
            extents.append(_extent(location, offset, number, found))
        elif found := _SETTING.match(line):
            name, value = found[1].lower(), found[2] or found[3] or ""
            if settings.setdefault(name, value) != value and name in {"cid", "parentcid"}:
                bad(location, f"descriptor's {name}, line {number}", offset, value, settings[name])
    if len(extents) > MAX_EXTENTS:
        bad(location, "descriptor's extents", offset, len(extents), f"at most {MAX_EXTENTS}")
    return Descriptor(
        create_type=settings.get("createtype", ""),
        content_id=settings.get("cid", ""),
        parent_content_id=settings.get("parentcid", NO_PARENT).lower().removeprefix("0x"),
        parent_name=settings.get("parentfilenamehint", ""),
        extents=tuple(extents),
    )


def refuse_delta(location: str, descriptor: Descriptor) -> None:
    """Raise `UnsupportedDisk` for a disk that holds only what differs from another one."""
    if descriptor.parent_content_id != NO_PARENT:
        parent = descriptor.parent_name or f"the disk with CID {descriptor.parent_content_id}"
        unsupported(
            location,
            f"it holds only what differs from its parent '{parent}': it belongs to a snapshot",
            "Export the snapshot through vSphere, which reads the whole chain, or consolidate "
            "the machine's snapshots first.",
        )


def _text(location: str, data: bytes) -> str:
    data = data.removeprefix(b"\xef\xbb\xbf")
    if data.isascii():
        return data.decode("ascii")
    declared = _DECLARED.search(data)
    name = declared[1].decode("ascii").lower() if declared else "utf-8"
    if name not in _ENCODINGS:
        unsupported(
            location,
            f"its descriptor is written in the encoding '{name}', which is not one of VMware's",
            "Give the extent files names in plain letters and correct the descriptor.",
        )
    try:
        return data.decode(_ENCODINGS[name])
    except UnicodeDecodeError as error:
        bad(location, "descriptor's text", error.start, f"bytes that are not {name}", name)


def _extent(location: str, offset: int, number: int, found: re.Match[str]) -> DescribedExtent:
    size, start = int(found[2]), int(found[5] or 0)
    if not 0 < size <= MAX_SECTORS or start > MAX_SECTORS:
        what = f"extent in line {number} of the descriptor"
        bad(location, what, offset, f"{size} sectors from {start}", f"1 to {MAX_SECTORS}")
    return DescribedExtent(found[1].upper(), size, found[3].upper(), found[4] or "", start)
