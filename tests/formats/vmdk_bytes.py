"""Makes VMDK files and streams byte by byte, as vSphere, VirtualBox and others write them.

Recipe of a stream: header, descriptor, grains with their markers; a table behind the grains that
it maps (vSphere) or all tables at the end (VirtualBox); directory, footer, end marker.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from imageport.formats import _vmdk_layout as layout

SECTOR = 512
GRAIN_SECTORS = 128
NEWLINES = layout.FLAG_NEWLINE_TEST
STREAM_FLAGS = NEWLINES | layout.FLAG_COMPRESSED | layout.FLAG_MARKERS


def described(
    extents: Iterable[str], kind: str = "streamOptimized", parent: str = "ffffffff", more: str = ""
) -> bytes:
    """Return a descriptor's text."""
    lines = [
        "# Disk DescriptorFile",
        "version=1",
        "CID=5a0f17c7",
        f"parentCID={parent}",
        f'createType="{kind}"',
        *([more] if more else []),
        "",
        "# Extent description",
        *extents,
        "",
        "# The Disk Data Base",
        "#DDB",
        'ddb.adapterType = "lsilogic"',
    ]
    return "\n".join(lines).encode() + b"\n"


def header(capacity: int, flags: int, **fields: object) -> layout.SparseHeader:
    """Return a header that other fields may be put into by name."""
    facts: dict[str, object] = {
        "magic": b"KDMV",
        "version": 3 if flags & layout.FLAG_COMPRESSED else 1,
        "flags": flags,
        "capacity": capacity,
        "grain_size": GRAIN_SECTORS,
        "descriptor_offset": 1,
        "descriptor_size": 4,
        "entries_per_table": 512,
        "redundant_directory": 0,
        "directory": layout.DIRECTORY_AT_END,
        "overhead": 8,
        "unclean_shutdown": 0,
        "newlines": b"\n \r\n",
        "compression": 1 if flags & layout.FLAG_COMPRESSED else 0,
    }
    return layout.SparseHeader(**(facts | fields))  # type: ignore[arg-type]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % SECTOR)


@dataclass
class StreamRecipe:
    """A stream in the making; change a field, then `build`."""

    grains: dict[int, bytes]
    capacity: int
    descriptor: bytes = b""
    tables_at_once: bool = False
    flags: int = STREAM_FLAGS
    fields: dict[str, object] = field(default_factory=dict)
    order: list[int] | None = None
    """Grain numbers as they are sent; ascending unless given."""
    between: bytes = b""
    """Put behind the first grain, or behind each one."""
    between_all: bool = False
    packed: Callable[[bytes], bytes] = zlib.compress
    tail: bytes = b""

    def build(self) -> bytes:
        """Return the stream's bytes."""
        size = int(self.fields.get("grain_size", GRAIN_SECTORS))  # type: ignore[call-overload]
        descriptor = self.descriptor or described([f'RW {self.capacity} SPARSE "x.vmdk"'])
        top = header(self.capacity, self.flags, **self.fields)
        out = bytearray(top.pack() + descriptor.ljust(4 * SECTOR, b"\0"))
        out = out.ljust(8 * SECTOR, b"\0")
        tables: defaultdict[int, array[int]] = defaultdict(lambda: array("I", bytes(2048)))
        directory = array("I", bytes(4 * -(-self.capacity // (size * 512))))
        waiting: list[int] = []
        order = sorted(self.grains) if self.order is None else self.order
        for index, grain in enumerate(order):
            number, inside = divmod(grain, 512)
            if waiting and waiting[-1] != number and not self.tables_at_once:
                self._table(out, tables, directory, waiting.pop())
            if number not in waiting:
                waiting.append(number)
            if number < len(directory):
                tables[number][inside] = len(out) // SECTOR
            data = self.packed(self.grains[grain])
            out += padded(layout.pack_marker(grain * size, len(data)) + data)
            out += self.between if self.between_all or index == 0 else b""
        for number in waiting:
            self._table(out, tables, directory, number)
        place = len(out) // SECTOR + 1
        body = padded(directory.tobytes())
        out += layout.pack_marker(len(body) // SECTOR, kind=layout.MarkerKind.GRAIN_DIRECTORY)
        out += body
        out += layout.pack_marker(1, kind=layout.MarkerKind.FOOTER)
        out += header(self.capacity, self.flags, **(self.fields | {"directory": place})).pack()
        out += layout.pack_marker(0)
        return bytes(out) + self.tail

    @staticmethod
    def _table(
        out: bytearray, tables: Mapping[int, array[int]], directory: array[int], number: int
    ) -> None:
        if number < len(directory):
            out += layout.pack_marker(4, kind=layout.MarkerKind.GRAIN_TABLE)
            directory[number] = len(out) // SECTOR
            out += tables[number].tobytes()


def grain(value: int, length: int = GRAIN_SECTORS * SECTOR) -> bytes:
    """Return a grain's content: compressible, and another one for each value."""
    return (struct.pack("<I", value) * (length // 4 + 1))[:length]


def sparse_vmdk(
    grains: dict[int, bytes], capacity: int, descriptor: bytes | None = None, **fields: object
) -> bytes:
    """Return a monolithic sparse file: descriptor, directory twice, tables twice, grains.

    Sectors: 0 header, 1 descriptor, 5 redundant directory, 6 its tables, then the directory at
    6 + 4 t, its tables behind it, and grains from the next multiple of 128 on.
    """
    count = -(-capacity // (GRAIN_SECTORS * 512))
    directory_at = 6 + 4 * count
    overhead = -(-(directory_at + 1 + 4 * count) // GRAIN_SECTORS) * GRAIN_SECTORS
    if descriptor is None:
        descriptor = described([f'RW {capacity} SPARSE "x.vmdk"'], "monolithicSparse")
    facts = {"redundant_directory": 5, "directory": directory_at, "overhead": overhead} | fields
    flags = int(facts.pop("flags", NEWLINES | layout.FLAG_REDUNDANT_TABLES))  # type: ignore[call-overload]
    tables = array("I", bytes(2048 * count))
    for place, number in enumerate(grains):
        tables[number] = overhead + place * GRAIN_SECTORS
    out = bytearray(header(capacity, flags, **facts).pack() + descriptor.ljust(2048, b"\0"))
    for first in (6, directory_at + 1):
        places = array("I", [first + 4 * index for index in range(count)])
        out += padded(places.tobytes()) + tables.tobytes()
    out = out.ljust(overhead * SECTOR, b"\0")
    for data in grains.values():
        out += data
    return bytes(out)
