"""Hives from scratch, written by the format's description and not by hivex.

`build_hive` lays a tree of `Node` out as Windows does.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

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
    block = _base_block(sequence, len(bins), at, minor)
    return block.ljust(PAGE, b"\0") + bins


def _base_block(sequence: int, bins_bytes: int, root: int, minor: int) -> bytes:
    head = (b"regf", sequence, sequence, WRITTEN, 1, minor, 0, 1, root, bins_bytes, 1)
    block = struct.pack("<4sIIQIIIIIII", *head).ljust(508, b"\0")
    return block + struct.pack("<I", base_block_checksum(block))


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
        name, is_latin = _name(node.name)
        at = self._reserve(80 + len(name))
        values = self._values(node)
        children = sorted(node.children, key=lambda child: child.name.upper())
        offsets = [self.key(child, at) for child in children]
        lists = self._lists(children, offsets)
        klass = node.class_name.encode("utf-16-le")
        class_at = self._cell(klass) if klass else NONE
        flags = (0x20 if is_latin else 0) | (0x0C if parent == NONE else 0)
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


def _name(text: str) -> tuple[bytes, bool]:
    """Return a name's bytes, and whether one is enough for each of its letters."""
    is_latin = all(ord(letter) < 0x100 for letter in text)
    return text.encode("latin-1" if is_latin else "utf-16-le"), is_latin


def _hash(name: str) -> int:
    value = 0
    for letter in name.upper():
        value = (37 * value + ord(letter)) & 0xFFFFFFFF
    return value
