"""Chains of disks with known content, packed here by the specification's tables alone.

Recipe of a VHDX layer: header section; log of 1 MiB at 1 MiB; metadata at 2 MiB; BAT from 3 MiB;
then sector bitmaps and payload blocks as they come. Every payload block is filled with random
bytes, also where its bitmap says that the parent knows: who ignores a bitmap reads noise. Nothing
of the product is used but its folders and its checksum, so that a mistake is not made twice.
"""

from __future__ import annotations

import mmap
import random
import struct
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from imageport.formats._crc32c import crc32c
from imageport.storage.byte_file import WritableFile
from imageport.storage.folder import Folder

KIB, MIB = 1024, 1024 * 1024
NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED, UNMAPPED_DRAFT, FULL, PARTIAL = 0, 1, 2, 3, 5, 6, 7
LOG, METADATA, BAT = MIB, 2 * MIB, 3 * MIB
NO_GUID = uuid.UUID(int=0)
LOCATOR_TYPE = uuid.UUID("b04aefb7-d19e-4a81-b789-25b8e9445913")


@dataclass(frozen=True, slots=True)
class Layer:
    """One file of a chain; ``blocks`` maps a block to its state and, if partial, its sectors."""

    size_bytes: int
    block_bytes: int = MIB
    sector_bytes: int = 512
    blocks: dict[int, tuple[int, Iterable[int]]] = field(default_factory=dict)

    @property
    def chunk_ratio(self) -> int:
        return 2**23 * self.sector_bytes // self.block_bytes

    def bat_bytes(self, *, has_parent: bool) -> int:
        count = -(-self.size_bytes // self.block_bytes)
        chunks = -(-count // self.chunk_ratio)
        # With a parent the last chunk has its bitmap's entry too.
        entries = chunks * (self.chunk_ratio + 1) if has_parent else count + chunks - 1
        return -(-entries * 8 // MIB) * MIB

    def entry_at(self, block: int) -> int:
        return BAT + 8 * (block + block // self.chunk_ratio)

    def bitmap_entry_at(self, chunk: int) -> int:
        return BAT + 8 * ((chunk + 1) * (self.chunk_ratio + 1) - 1)


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was made, and the disk that a guest sees through it and what lies below."""

    name: str
    data_write_guid: uuid.UUID
    content: bytearray | mmap.mmap


def sealed(data: bytes) -> bytes:
    """Return a structure with its CRC-32C, which `test_crc32c` holds against the RFC's values."""
    return data[:4] + struct.pack("<I", crc32c(data[:4] + bytes(4) + data[8:])) + data[8:]


def locator(pairs: dict[str, str], kind: uuid.UUID = LOCATOR_TYPE) -> bytes:
    """Return a parent locator item."""
    table, texts = b"", b""
    start = 20 + 12 * len(pairs)
    for key, value in pairs.items():
        packed = key.encode("utf-16-le"), value.encode("utf-16-le")
        at = start + len(texts)
        table += struct.pack("<IIHH", at, at + len(packed[0]), len(packed[0]), len(packed[1]))
        texts += packed[0] + packed[1]
    return struct.pack("<16sHH", kind.bytes_le, 0, len(pairs)) + table + texts


def parent_pairs(parent: Written) -> dict[str, str]:
    """Return what Windows writes of a parent."""
    return {
        "parent_linkage": "{" + str(parent.data_write_guid) + "}",
        "relative_path": f".\\{parent.name}",
        "absolute_win32_path": f"\\\\?\\D:\\store\\{parent.name}",
        "volume_path": f"\\\\?\\Volume{{26a21bda-a627-11d7-9931-806e6f6e6963}}\\{parent.name}",
    }


def write_layer(
    folder: Folder,
    name: str,
    layer: Layer,
    *,
    parent: Written | None = None,
    pairs: dict[str, str] | None = None,
    seed: int = 0,
) -> Written:
    """Write one file; ``pairs`` replaces what the locator says of the parent.

    A disk of more than 64 MiB takes nothing over from its parent, which must be empty.
    """
    dice = random.Random(f"{name} {seed}")  # noqa: S311 - contents
    made = Written(name, uuid.UUID(int=dice.getrandbits(128)), _room(layer.size_bytes))
    items = _metadata(layer, dice, has_parent=parent is not None)
    if parent is not None:
        said = locator(parent_pairs(parent) if pairs is None else pairs)
        items.append((uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c"), said))
        if layer.size_bytes <= 64 * MIB:
            _put(made.content, 0, bytes(parent.content))
    bat_bytes = layer.bat_bytes(has_parent=parent is not None)
    with folder.create(name) as file:
        file.set_sparse()
        file.write_at(0, b"vhdxfile" + "chain recipe".encode("utf-16-le"))
        for at, sequence in ((64 * KIB, 7), (128 * KIB, 6)):
            file.write_at(at, header(made.data_write_guid, sequence))
        for at in (192 * KIB, 256 * KIB):
            file.write_at(at, _regions(bat_bytes))
        file.write_at(METADATA, _packed_metadata(items))
        blocks = _Blocks(file, layer, made.content, BAT + bat_bytes)
        for block in sorted(layer.blocks):
            blocks.write(block, dice)
        file.set_size(blocks.end)
    return made


def header(data_write_guid: uuid.UUID, sequence: int, log_guid: uuid.UUID = NO_GUID) -> bytes:
    """Return one of the two headers."""
    packed = struct.pack(
        "<4sIQ16s16s16sHHIQ",
        *(b"head", 0, sequence, bytes(16), data_write_guid.bytes_le, log_guid.bytes_le),
        *(0, 1, MIB, LOG),
    )
    return sealed(packed.ljust(4 * KIB, b"\0"))


@dataclass
class _Blocks:
    """Writes payload blocks and their bitmaps, and applies them to what the guest sees."""

    file: WritableFile
    layer: Layer
    content: bytearray | mmap.mmap
    end: int
    bitmaps: dict[int, int] = field(default_factory=dict)

    def write(self, block: int, dice: random.Random) -> None:
        layer = self.layer
        state, sectors = layer.blocks[block]
        start = block * layer.block_bytes
        length = min(layer.block_bytes, layer.size_bytes - start)
        # In states without data the place means nothing, and may hold anything.
        place = 0 if state == NOT_PRESENT else (block + 9) * MIB
        if state not in {NOT_PRESENT, PARTIAL}:
            _put(self.content, start, bytes(length))
        if state in {FULL, PARTIAL}:
            place, self.end = self.end, self.end + layer.block_bytes
            noise = dice.randbytes(length)
            self.file.write_at(place, noise)
            if state == FULL:
                _put(self.content, start, noise)
            else:
                self._write_bits(block, noise, list(sectors))
        self.file.write_at(layer.entry_at(block), struct.pack("<Q", place | state))

    def _write_bits(self, block: int, noise: bytes, sectors: list[int]) -> None:
        layer = self.layer
        chunk = block // layer.chunk_ratio
        if chunk not in self.bitmaps:
            self.bitmaps[chunk], self.end = self.end, self.end + MIB
            entry = struct.pack("<Q", self.bitmaps[chunk] | FULL)
            self.file.write_at(layer.bitmap_entry_at(chunk), entry)
        bits = bytearray(layer.block_bytes // layer.sector_bytes // 8)
        for sector in sectors:
            bits[sector // 8] |= 1 << sector % 8
            at = sector * layer.sector_bytes
            piece = noise[at : at + layer.sector_bytes]
            _put(self.content, block * layer.block_bytes + at, piece)
        inside = block % layer.chunk_ratio * len(bits)
        self.file.write_at(self.bitmaps[chunk] + inside, bytes(bits))


def _room(size_bytes: int) -> bytearray | mmap.mmap:
    """Return zeros that take no memory where they are many."""
    return bytearray(size_bytes) if size_bytes <= 64 * MIB else mmap.mmap(-1, size_bytes)


def _put(content: bytearray | mmap.mmap, offset: int, data: bytes) -> None:
    data = data[: max(0, len(content) - offset)]
    content[offset : offset + len(data)] = data


def _regions(bat_bytes: int) -> bytes:
    body = struct.pack("<4sIII", b"regi", 0, 2, 0)
    for kind, offset, length in (
        ("2dc27766-f623-4200-9d64-115e9bfd4a08", BAT, bat_bytes),
        ("8b7ca206-4790-4b9a-b8fe-575f050f886e", METADATA, MIB),
    ):
        body += struct.pack("<16sQII", uuid.UUID(kind).bytes_le, offset, length, 1)
    return sealed(body.ljust(64 * KIB, b"\0"))


def _metadata(
    layer: Layer, dice: random.Random, *, has_parent: bool
) -> list[tuple[uuid.UUID, bytes]]:
    known = (
        (
            "caa16737-fa36-4d43-b3b6-33f0aa44e76b",
            struct.pack("<II", layer.block_bytes, 2 * has_parent),
        ),
        ("2fa54224-cd1b-4876-b211-5dbed83bf4b8", struct.pack("<Q", layer.size_bytes)),
        ("beca12ab-b2e6-4523-93ef-c309e000c746", dice.randbytes(16)),
        ("8141bf1d-a96f-4709-ba47-f233a8faab5f", struct.pack("<I", layer.sector_bytes)),
        ("cda348c7-445d-4471-9cc9-e9885251c556", struct.pack("<I", 4096)),
    )
    return [(uuid.UUID(kind), value) for kind, value in known]


def _packed_metadata(items: list[tuple[uuid.UUID, bytes]]) -> bytes:
    table = struct.pack("<8sHH20s", b"metadata", 0, len(items), b"")
    values = b""
    for kind, value in items:
        at = 64 * KIB + len(values)
        table += struct.pack("<16sIIII", kind.bytes_le, at, len(value), 4, 0)
        values += value
    return table.ljust(64 * KIB, b"\0") + values
