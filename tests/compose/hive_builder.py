"""Hives and transaction logs from scratch, written by the format's description and not by hivex.

`build_hive` lays a tree of `Node` out as Windows does; `old_log` and `new_log` write what changed
between two states of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from imageport.compose.hives.log_layout import marvin32
from imageport.sandbox.sample.hives import base_block_checksum

PAGE = 4096
NONE = 0xFFFFFFFF
WRITTEN = 133_485_408_000_000_000
_LEAF_KEYS = 500
"""Windows splits a list of subkeys when it outgrows a page."""
_SEGMENT = 16344
_DESCRIPTOR = bytes.fromhex("0100 0080" + "00000000" * 4)
"""Self-relative, with no owner and no lists."""


@dataclass
class Node:
    """One key: its values (name to type and data) and its subkeys."""

    name: str = "ROOT"
    values: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)
    class_name: str = ""


def build_hive(root: Node, *, sequence: int = 1, minor: int = 5) -> bytes:
    """Return a clean hive."""
    writer = _Writer(minor)
    at = writer.key(root, NONE)
    bins = writer.bins()
    block = base_block(sequence, sequence, len(bins), root=at, minor=minor)
    return block.ljust(PAGE, b"\0") + bins


def base_block(
    first: int, second: int, bins_bytes: int, *, root: int = 32, minor: int = 5, kind: int = 0
) -> bytes:
    """Return the 512 bytes that hive and logs begin with."""
    head = (b"regf", first, second, WRITTEN, 1, minor, kind, 1, root, bins_bytes, 1)
    block = struct.pack("<4sIIQIIIIIII", *head).ljust(508, b"\0")
    return block + struct.pack("<I", base_block_checksum(block))


def with_sequences(hive: bytes, first: int, second: int) -> bytes:
    """Return the hive with other sequence numbers and a right checksum."""
    block = bytearray(hive[:512])
    struct.pack_into("<II", block, 4, first, second)
    struct.pack_into("<I", block, 508, base_block_checksum(bytes(block)))
    return bytes(block) + hive[512:]


def log_entry(
    sequence: int, bins_bytes: int, pages: Iterable[tuple[int, bytes]], *, flags: int = 1
) -> bytes:
    """Return an entry of the new format; ``pages`` are offsets from the first bin, and bytes."""
    written = list(pages)
    body = b"".join(struct.pack("<II", at, len(data)) for at, data in written)
    body += b"".join(data for _, data in written)
    size = -(-(40 + len(body)) // 512) * 512
    body = body.ljust(size - 40, b"\0")
    head = struct.pack("<4sIIIII", b"HvLE", size, flags, sequence, bins_bytes, len(written))
    head += struct.pack("<Q", marvin32(body))
    return head + struct.pack("<Q", marvin32(head)) + body


def new_log(entries: list[bytes], *, sequence: int, like: bytes) -> bytes:
    """Return a log of the new format whose base block is a copy of the hive ``like``'s."""
    return _log_block(like, 6, sequence) + b"".join(entries)


def old_log(before: bytes, after: bytes, *, sequence: int) -> bytes:
    """Return a log of the old format that leads from one state to the other."""
    bits = bytearray((len(after) - PAGE) // 512 // 8)
    data = b""
    for at, page in changed_pages(before, after):
        bits[at // PAGE] = 0xFF  # Windows marks whole pages of 4 KiB
        data += page
    vector = b"DIRT" + bytes(bits)
    return _log_block(after, 1, sequence) + vector.ljust(-(-len(vector) // 512) * 512, b"\0") + data


def changed_pages(before: bytes, after: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the pages of the bins that differ, by offset from the first bin."""
    for at in range(PAGE, len(after), PAGE):
        if before[at : at + PAGE] != after[at : at + PAGE]:
            yield at - PAGE, after[at : at + PAGE]


def _log_block(like: bytes, kind: int, sequence: int) -> bytes:
    block = bytearray(like[:512])
    struct.pack_into("<II", block, 4, sequence, sequence)
    struct.pack_into("<I", block, 28, kind)
    struct.pack_into("<I", block, 508, base_block_checksum(bytes(block)))
    return bytes(block)


class _Writer:
    """Cells one after the other, in bins that begin at pages."""

    def __init__(self, minor: int) -> None:
        self._minor = minor
        self._data = bytearray()
        self._at = 0
        self._security = self._reserve(24 + len(_DESCRIPTOR))
        links = (self._security, self._security, 1, len(_DESCRIPTOR))
        self._put(self._security, struct.pack("<2sHIIII", b"sk", 0, *links) + _DESCRIPTOR)

    def bins(self) -> bytes:
        """Return all bins; what is left of the last is a free cell."""
        self._close()
        return bytes(self._data)

    def key(self, node: Node, parent: int) -> int:
        """Write a key and all below; returns its offset."""
        name = node.name.encode("latin-1")
        at = self._reserve(80 + len(name))
        values = self._values(node)
        children = sorted(node.children, key=lambda child: child.name.upper())
        offsets = [self.key(child, at) for child in children]
        lists = self._lists(children, offsets)
        klass = node.class_name.encode("utf-16-le")
        class_at = self._cell(klass) if klass else NONE
        flags = 0x20 | (0x0C if parent == NONE else 0)
        head = struct.pack("<2sHQII", b"nk", flags, WRITTEN, 0, 0 if parent == NONE else parent)
        head += struct.pack("<IIIIII", len(offsets), 0, lists, NONE, len(node.values), values)
        head += struct.pack("<II5IHH", self._security, class_at, *[0] * 5, len(name), len(klass))
        self._put(at, head + name)
        return at

    def _values(self, node: Node) -> int:
        cells = [self._value(name, kind, data) for name, (kind, data) in node.values.items()]
        return self._cell(struct.pack(f"<{len(cells)}I", *cells)) if cells else NONE

    def _value(self, name: str, kind: int, data: bytes) -> int:
        encoded = name.encode("latin-1")
        size, place = len(data), 0
        if size <= 4:
            size, place = size | 0x80000000, int.from_bytes(data.ljust(4, b"\0"), "little")
        elif size > _SEGMENT and self._minor >= 4:
            parts = [data[at : at + _SEGMENT] for at in range(0, size, _SEGMENT)]
            cells = [self._cell(part) for part in parts]
            listed = self._cell(struct.pack(f"<{len(cells)}I", *cells))
            place = self._cell(struct.pack("<2sHI", b"db", len(cells), listed))
        else:
            place = self._cell(data)
        head = struct.pack("<2sHIIIHH", b"vk", len(encoded), size, place, kind, 1, 0)
        return self._cell(head + encoded)

    def _lists(self, children: list[Node], offsets: list[int]) -> int:
        leaves = []
        for first in range(0, len(offsets), _LEAF_KEYS):
            part = slice(first, first + _LEAF_KEYS)
            pairs = zip(children[part], offsets[part], strict=True)
            elements = b"".join(struct.pack("<II", at, _hash(child.name)) for child, at in pairs)
            head = struct.pack("<2sH", b"lh", len(offsets[part]))
            leaves.append(self._cell(head + elements))
        if len(leaves) <= 1:
            return leaves[0] if leaves else NONE
        return self._cell(struct.pack(f"<2sH{len(leaves)}I", b"ri", len(leaves), *leaves))

    def _cell(self, data: bytes) -> int:
        at = self._reserve(4 + len(data))
        self._put(at, data)
        return at

    def _reserve(self, size: int) -> int:
        size = -(-size // 8) * 8
        if self._at + size > len(self._data):
            self._close()
            room = -(-(32 + size) // PAGE) * PAGE
            head = struct.pack("<4sIIQQI", b"hbin", self._at, room, 0, WRITTEN, 0)
            self._data += head.ljust(room, b"\0")
            self._at += 32
        at, self._at = self._at, self._at + size
        struct.pack_into("<i", self._data, at, -size)
        return at

    def _close(self) -> None:
        left = len(self._data) - self._at
        if left:
            struct.pack_into("<i", self._data, self._at, left)
        self._at = len(self._data)

    def _put(self, at: int, data: bytes) -> None:
        self._data[at + 4 : at + 4 + len(data)] = data


def _hash(name: str) -> int:
    value = 0
    for letter in name.upper():
        value = (37 * value + ord(letter)) & 0xFFFFFFFF
    return value
