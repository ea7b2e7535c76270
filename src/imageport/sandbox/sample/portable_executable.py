"""The smallest files that tools accept as 64-bit Windows programs with a version.

Guest inspection reads the architecture from ``cmd.exe``; our own inspection reads product versions
from the version resource. References: PE Format (Microsoft), VS_VERSIONINFO.
"""

from __future__ import annotations

import struct
from enum import IntEnum

_ALIGNMENT = 512
_RESOURCE_RVA = 0x1000
_RT_VERSION = 16
_ENGLISH_UNICODE = "040904b0"


class Subsystem(IntEnum):
    """IMAGE_SUBSYSTEM values used here."""

    NATIVE = 1
    CONSOLE = 3
    EFI_APPLICATION = 10


def minimal_pe(name: str, version: str, *, company: str) -> bytes:
    """Return a PE32+ x86-64 file with one resource section that holds its version.

    Args:
        name: file name; ``.sys`` makes a driver, ``.dll`` a library, ``.efi`` a program of
            firmware, anything else one of Windows.
        version: four numbers with dots.
        company: the CompanyName string.
    """
    resource = _resource_section(_version_info(name, version, company))
    raw = resource.ljust(-(-len(resource) // _ALIGNMENT) * _ALIGNMENT, b"\0")
    headers = _headers(name, len(resource), len(raw))
    return headers.ljust(_ALIGNMENT, b"\0") + raw


def _headers(name: str, resource_size: int, raw_size: int) -> bytes:
    kinds = {".sys": Subsystem.NATIVE, ".efi": Subsystem.EFI_APPLICATION}
    subsystem = kinds.get(name.lower()[-4:], Subsystem.CONSOLE)
    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    characteristics = 0x2022 if name.lower().endswith(".dll") else 0x0022
    coff = struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, 1, 0, 0, 0, 0xF0, characteristics)
    optional = struct.pack("<HBBIIIII", 0x20B, 14, 0, 0, raw_size, 0, 0, 0)
    optional += struct.pack("<QII6H", 0x140000000, 0x1000, _ALIGNMENT, 10, 0, 10, 0, 10, 0)
    optional += struct.pack("<IIIIHH", 0, 0x2000, _ALIGNMENT, 0, subsystem, 0x0160)
    optional += struct.pack("<QQQQII", 0x100000, 0x1000, 0x100000, 0x1000, 0, 16)
    directories = bytearray(16 * 8)
    struct.pack_into("<II", directories, 2 * 8, _RESOURCE_RVA, resource_size)
    section = struct.pack("<8sIIIIIIHHI", b".rsrc", resource_size, _RESOURCE_RVA, raw_size,
                          _ALIGNMENT, 0, 0, 0, 0, 0x40000040)  # fmt: skip
    return dos + coff + optional + bytes(directories) + section


def _resource_section(data: bytes) -> bytes:
    """Three directory levels (type, name, language) that lead to one data entry."""
    level = struct.calcsize("<IIHHHH") + 8
    out = b""
    for depth, identity in enumerate((_RT_VERSION, 1, 0x409)):
        target = level * (depth + 1)
        out += struct.pack("<IIHHHHII", 0, 0, 0, 0, 0, 1, identity,
                           target if depth == 2 else target | 0x80000000)  # fmt: skip
    return out + struct.pack("<IIII", _RESOURCE_RVA + len(out) + 16, len(data), 0, 0) + data


def _version_info(name: str, version: str, company: str) -> bytes:
    numbers = [int(part) for part in version.split(".")]
    high, low = numbers[0] << 16 | numbers[1], numbers[2] << 16 | numbers[3]
    file_type = 3 if name.lower().endswith(".sys") else 1
    fixed = struct.pack("<13I", 0xFEEF04BD, 0x10000, high, low, high, low, 0x3F, 0, 0x40004,
                        file_type, 0, 0, 0)  # fmt: skip
    texts = {
        "CompanyName": company,
        "FileVersion": version,
        "OriginalFilename": name,
        "ProductVersion": version,
    }
    strings = b"".join(
        _pad(_node(key, (text + "\0").encode("utf-16-le"), text=True))
        for key, text in texts.items()
    )
    table = _node(_ENGLISH_UNICODE, b"", children=strings, text=True)
    translation = _node("Translation", struct.pack("<HH", 0x409, 1200))
    children = _pad(_node("StringFileInfo", b"", children=table, text=True))
    children += _node("VarFileInfo", b"", children=translation, text=True)
    return _node("VS_VERSION_INFO", fixed, children=children)


def _node(key: str, value: bytes, *, children: bytes = b"", text: bool = False) -> bytes:
    """One node: length, length of the value (texts count characters), type, key, value."""
    value_length = len(value) // 2 if text else len(value)
    head = struct.pack("<HH", value_length, int(text)) + (key + "\0").encode("utf-16-le")
    # The length field in front takes part in the alignment to 4 bytes.
    head += b"\0" * (-(len(head) + 2) % 4)
    body = head + (_pad(value) if children else value) + children
    return struct.pack("<H", len(body) + 2) + body


def _pad(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
