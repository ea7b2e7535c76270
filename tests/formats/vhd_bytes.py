"""VHD files with known content, packed here by the specification's tables alone.

Recipe: copy of the footer, dynamic header, parent paths, table, blocks in the order that is asked
for, footer. Every block is filled with random bytes first, also where its bitmap says that a sector
is not here: who ignores a bitmap, or turns its bits around, reads noise. Nothing of the product is
used, so that a mistake cannot be made twice.
"""

from __future__ import annotations

import random
import struct
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

KIB, MIB = 1024, 1024 * 1024
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
HEADER, TABLE = 512, 2048


@dataclass(frozen=True)
class Recipe:
    """One file; ``blocks`` maps a block to the runs (first sector, count) that it holds."""

    size_bytes: int
    block_bytes: int = 512 * KIB
    blocks: dict[int, Sequence[tuple[int, int]]] = field(default_factory=dict)
    order: Sequence[int] = ()
    """Blocks in the order of the file; ascending when empty."""
    kind: int = DYNAMIC
    creator: bytes = b"pxy "
    geometry: tuple[int, int, int] = (0, 0, 0)
    seed: int = 0
    parent: Made | None = None
    parent_seconds: int = 0
    parent_name: str = ""
    paths: dict[bytes, str] = field(default_factory=dict)
    table_entries: int = 0
    """0: as many as the disk has blocks."""
    footer_bytes: int = 512

    @property
    def block_count(self) -> int:
        return -(-self.size_bytes // self.block_bytes)


@dataclass(frozen=True, repr=False)
class Made:
    """A file, what a guest reads from it through its parents, and where its parts lie."""

    content: bytes
    guest: bytes
    unique_id: bytes
    places: dict[int, int]
    """Offset in the file of each block's bitmap."""

    def __repr__(self) -> str:
        return f"<a file of {len(self.content)} bytes, blocks at {self.places}>"


def checksummed(data: bytes, at: int) -> bytes:
    rest = data[:at] + bytes(4) + data[at + 4 :]
    return rest[:at] + struct.pack(">I", 0xFFFFFFFF - sum(rest) % 2**32) + rest[at + 4 :]


def footer(recipe: Recipe, unique_id: bytes) -> bytes:
    offset = 2**64 - 1 if recipe.kind == FIXED else HEADER
    packed = b"conectix" + struct.pack(">IIQI", 2, 0x10000, offset, 700_000_000)
    packed += recipe.creator + struct.pack(">I4sQQ", 0x60001, b"Wi2k", *2 * (recipe.size_bytes,))
    packed += struct.pack(">HBB", *recipe.geometry) + struct.pack(">II", recipe.kind, 0)
    return checksummed((packed + unique_id).ljust(512, b"\0"), 64)


def make(recipe: Recipe) -> Made:
    """Return the file."""
    dice = random.Random(recipe.seed)  # noqa: S311 - contents
    unique_id = uuid.UUID(int=dice.getrandbits(128)).bytes
    end = footer(recipe, unique_id)
    if recipe.kind == FIXED:
        guest = dice.randbytes(recipe.size_bytes)
        return Made(guest + end[: recipe.footer_bytes], guest, unique_id, {})
    entries = [0xFFFFFFFF] * (recipe.table_entries or recipe.block_count)
    content = bytearray(TABLE + -(-len(entries) * 4 // 512) * 512)
    header = _header(recipe, len(entries), content)
    content[:512], content[HEADER : HEADER + 1024] = end, header
    guest = bytearray(recipe.size_bytes)
    if recipe.parent is not None:
        kept = min(len(guest), len(recipe.parent.guest))
        guest[:kept] = recipe.parent.guest[:kept]
    places = {}
    for block in recipe.order or sorted(recipe.blocks):
        places[block] = len(content)
        entries[block] = len(content) // 512
        data = dice.randbytes(recipe.block_bytes)
        content += _bitmap(recipe, recipe.blocks[block]) + data
        for first, count in recipe.blocks[block]:
            at, size = first * 512, count * 512
            start = block * recipe.block_bytes + at
            size = max(0, min(size, recipe.size_bytes - start))
            guest[start : start + size] = data[at : at + size]
    struct.pack_into(f">{len(entries)}I", content, TABLE, *entries)
    return Made(bytes(content) + end[: recipe.footer_bytes], bytes(guest), unique_id, places)


def _header(recipe: Recipe, entry_count: int, content: bytearray) -> bytes:
    """Return the dynamic header; the paths of the parent go to the end of ``content``."""
    parent = recipe.parent.unique_id if recipe.parent is not None else bytes(16)
    packed = b"cxsparse" + struct.pack(">QQI", 2**64 - 1, TABLE, 0x10000)
    packed += struct.pack(">III", entry_count, recipe.block_bytes, 0)
    packed += parent + struct.pack(">II", recipe.parent_seconds, 0)
    packed += recipe.parent_name.encode("utf-16-be").ljust(512, b"\0")
    for code, path in recipe.paths.items():
        text = path.encode("utf-16-le")
        packed += struct.pack(">4sIIIQ", code, 512, len(text), 0, len(content))
        content += text.ljust(512, b"\0")
    return checksummed(packed.ljust(1024, b"\0"), 36)


def _bitmap(recipe: Recipe, runs: Iterable[tuple[int, int]]) -> bytes:
    bits = bytearray(-(-recipe.block_bytes // 512 // 8 // 512) * 512)
    for first, count in runs:
        for sector in range(first, first + count):
            bits[sector // 8] |= 0x80 >> sector % 8
    return bytes(bits)


def put(content: bytes, offset: int, code: str, *values: object) -> bytes:
    """Return ``content`` with a packed value at ``offset``."""
    data = bytearray(content)
    struct.pack_into(code, data, offset, *values)
    return bytes(data)


def in_footers(content: bytes, at: int, code: str, *values: object) -> bytes:
    """Change a field of the footer and, where there is one, of its copy; checksums made right."""
    starts = [len(content) - 512] + ([0] if content.startswith(b"conectix") else [])
    for start in starts:
        changed = checksummed(put(content[start : start + 512], at, code, *values), 64)
        content = content[:start] + changed + content[start + 512 :]
    return content


def in_header(content: bytes, at: int, code: str, *values: object) -> bytes:
    """Change a field of the dynamic header; its checksum made right."""
    changed = checksummed(put(content[HEADER : HEADER + 1024], at, code, *values), 36)
    return content[:HEADER] + changed + content[HEADER + 1024 :]
