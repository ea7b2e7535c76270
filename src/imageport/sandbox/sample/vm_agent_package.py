# References: [MS-CFB] 2.2 Compound File Header, 2.3 FAT, 2.6 Compound File Directory Sectors.
"""The Azure VM agent's installer as an operator supplies it, as far as form goes.

A compound file with an installation package's class and one stream that states product and
version: enough for an emulated first boot, nothing that a real msiexec would install.
"""

from __future__ import annotations

import struct
from pathlib import Path
from uuid import UUID

VERSION = "2.7.41491.1172"
FILE_NAME = f"WindowsAzureVmAgent.amd64_{VERSION}.fre.msi"
STREAM = "SampleVmAgent"
_SIGNATURE = bytes.fromhex("d0cf11e0a1b11ae1")
_INSTALLER = UUID("000c1084-0000-0000-c000-000000000046")
_SECTOR = 512
_NO_STREAM, _FREE, _END, _FAT = 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD
_MIN_SECTORS, _MAX_SECTORS = 8, 126
"""4096 bytes: anything shorter would lie in the mini stream; more needs a second FAT sector."""


def write_vm_agent_package(folder: Path) -> Path:
    """Write the installer into the folder, made if missing, and return its path.

    The same bytes at every call: the payload is pinned by its digest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE_NAME
    path.write_bytes(compound_file(STREAM, f"WindowsAzureVmAgent {VERSION}".encode("ascii")))
    return path


def compound_file(stream: str, content: bytes) -> bytes:
    """Return an installation package of one stream. Sector 0: FAT, 1: directory, then the stream.

    Raises:
        ValueError: the content does not fit into the sectors that one FAT sector describes.
    """
    sectors = max(-(-len(content) // _SECTOR), _MIN_SECTORS)
    if sectors > _MAX_SECTORS:
        raise ValueError(f"Bad stream: found {sectors} sectors, needed {_MAX_SECTORS} or fewer.")
    size = sectors * _SECTOR
    chain = [_FAT, _END, *range(3, 2 + sectors), _END]
    fat = struct.pack(f"<{_SECTOR // 4}I", *chain, *[_FREE] * (_SECTOR // 4 - len(chain)))
    directory = _entry("Root Entry", 5, child=1, class_id=_INSTALLER, start=_END)
    directory += _entry(stream, 2, child=_NO_STREAM, start=2, size=size)
    directory += 2 * _entry("", 0, child=_NO_STREAM)
    return _header() + fat + directory + content.ljust(size, b"\0")


def _header() -> bytes:
    head = _SIGNATURE + bytes(16) + struct.pack("<HHHHH", 0x3E, 3, 0xFFFE, 9, 6) + bytes(6)
    head += struct.pack("<IIIII", 0, 1, 1, 0, 4096)  # one FAT sector, the directory is sector 1
    head += struct.pack("<IIII", _END, 0, _END, 0)  # no mini FAT, no further DIFAT sectors
    return head + struct.pack("<109I", 0, *[_FREE] * 108)


def _entry(
    name: str, kind: int, *, child: int, class_id: UUID | None = None, start: int = 0, size: int = 0
) -> bytes:
    text = (name + "\0").encode("utf-16-le") if name else b""
    entry = text.ljust(64, b"\0") + struct.pack("<HBB", len(text), kind, 1)
    entry += struct.pack("<III", _NO_STREAM, _NO_STREAM, child)
    entry += (class_id.bytes_le if class_id else bytes(16)) + bytes(4 + 16)
    return entry + struct.pack("<IQ", start, size)
