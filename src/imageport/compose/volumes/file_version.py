# References: PE format (optional header data directories, the .rsrc section); VS_VERSIONINFO,
# VS_FIXEDFILEINFO and StringFileInfo (Microsoft, Menus and other resources).
"""Who made a Windows program or driver, and its version, from its version resource."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from imageport.compose.volumes.guest_files import GuestFiles
from imageport.compose.volumes.pe_header import SIGNATURE, pe_header_place
from imageport.errors import EngineFailed

MAX_BYTES = 64 * 1024 * 1024
"""More of a file is not read: version resources lie near the end, but drivers are small."""
_RESOURCES = 2
"""Index of the data directory that leads to resources."""
_RT_VERSION = 16
_DIRECTORY_AT = {0x10B: 96, 0x20B: 112}
"""Where data directories begin in an optional header, by its magic (PE32, PE32+)."""
_FIXED_SIGNATURE = 0xFEEF04BD
_MAX_SECTIONS = 96
"""What Windows' loader accepts."""
_MAX_ENTRIES = 4096
_MAX_RESOURCE_BYTES = 65536
"""A node's length is a 16-bit number, so a version resource cannot be longer."""


@dataclass(frozen=True, slots=True)
class FileVersion:
    """What a file says of itself; ``company`` is "" when it names none."""

    company: str
    version: str
    """Four numbers with dots."""


def read_version(data: bytes) -> FileVersion | None:
    """Return what the version resource of a PE file says.

    Args:
        data: the file, or so much of its beginning that its resources are in it.

    Returns:
        None when this is no PE file, has no version, or is cut off or broken before it.
    """
    try:
        resource = _version_resource(data)
        return None if resource is None else _read_resource(resource)
    except struct.error:  # a number would lie outside of the data
        return None


def file_version(files: GuestFiles, path: str) -> FileVersion | None:
    """Return what a guest's file says of itself, None when it is missing or says nothing."""
    if not files.exists(path):
        return None
    try:
        return read_version(files.read(path, MAX_BYTES))
    except EngineFailed:  # compressed in a way that NTFS' driver cannot read
        return None


def _version_resource(data: bytes) -> bytes | None:
    header = pe_header_place(data)
    if header is None or data[header : header + 4] != SIGNATURE:
        return None
    count, optional_size = struct.unpack_from("<H12xH", data, header + 6)
    optional = header + 24
    (magic,) = struct.unpack_from("<H", data, optional)
    directories = _DIRECTORY_AT.get(magic, 0)
    place = optional + directories + 8 * _RESOURCES
    if not directories or place + 8 > optional + optional_size:
        return None
    (root,) = struct.unpack_from("<I", data, place)
    if not root or count > _MAX_SECTIONS:
        return None
    sections = [
        struct.unpack_from("<IIII", data, optional + optional_size + 40 * number + 8)
        for number in range(count)
    ]
    base = _offset(sections, root)
    return None if base is None else _find_version(data, sections, base)


def _offset(sections: list[tuple[int, ...]], address: int) -> int | None:
    """Return where in the file an address of the loaded image lies."""
    for virtual_size, start, raw_size, raw in sections:
        if start <= address < start + max(virtual_size, raw_size):
            return raw + address - start
    return None


def _find_version(data: bytes, sections: list[tuple[int, ...]], base: int) -> bytes | None:
    """Walk the three levels (type, name, language); any name and language will do."""
    entry = base
    for wanted in (_RT_VERSION, None, None):
        named, numbered = struct.unpack_from("<HH", data, entry + 12)
        children = (
            struct.unpack_from("<II", data, entry + 16 + 8 * number)
            for number in range(min(named + numbered, _MAX_ENTRIES))
        )
        found = next((to for key, to in children if wanted is None or key == wanted), None)
        if found is None:
            return None
        entry = base + (found & 0x7FFFFFFF)
    address, size = struct.unpack_from("<II", data, entry)
    start = _offset(sections, address)
    if start is None or size > _MAX_RESOURCE_BYTES or start + size > len(data):
        return None
    return data[start : start + size]


@dataclass(frozen=True, slots=True)
class _Node:
    """One node of the resource: its key, its value, and where its children lie."""

    key: str
    value: bytes
    children: tuple[int, int]


def _read_resource(resource: bytes) -> FileVersion | None:
    root = _node(resource, 0, len(resource))
    if root is None or root.key != "VS_VERSION_INFO" or len(root.value) < 16:
        return None
    signature, _, high, low = struct.unpack_from("<IIII", root.value)
    if signature != _FIXED_SIGNATURE:
        return None
    numbers = (high >> 16, high & 0xFFFF, low >> 16, low & 0xFFFF)
    return FileVersion(_company(resource, root), ".".join(map(str, numbers)))


def _company(resource: bytes, root: _Node) -> str:
    for info in _children(resource, root):
        if info.key != "StringFileInfo":
            continue
        for table in _children(resource, info):
            for text in _children(resource, table):
                if text.key == "CompanyName":
                    return text.value.decode("utf-16-le", "replace").split("\0", 1)[0].strip()
    return ""


def _children(resource: bytes, node: _Node) -> Iterator[_Node]:
    at, end = node.children
    while at + 6 <= end:
        child = _node(resource, at, end)
        if child is None:
            return
        yield child
        (length,) = struct.unpack_from("<H", resource, at)
        at += -(-length // 4) * 4  # siblings begin on multiples of 4 bytes


def _node(resource: bytes, at: int, limit: int) -> _Node | None:
    length, value_length, is_text = struct.unpack_from("<HHH", resource, at)
    end = at + length
    if length < 6 or end > limit:
        return None
    key_end = at + 6
    while resource[key_end : key_end + 2] != b"\0\0":
        key_end += 2
        if key_end + 2 > end:
            return None
    key = resource[at + 6 : key_end].decode("utf-16-le", "replace")
    value = -(-(key_end + 2) // 4) * 4
    # A text's length counts characters.
    value_end = min(value + value_length * (2 if is_text else 1), end)
    return _Node(key, resource[value:value_end], (-(-value_end // 4) * 4, end))
