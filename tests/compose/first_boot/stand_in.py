"""A 64-bit Windows program from ``stand_in.c``, without a Windows compiler.

gcc and ld make flat code for a fixed address; the headers and the import table around it are made
here. References: PE Format (Microsoft).
"""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("stand_in.c")
_BASE, _IMPORTS, _CODE, _END = 0x140000000, 0x1000, 0x2000, 0x8000
_FUNCTIONS = (
    "GetCommandLineW", "GetModuleFileNameW", "CreateFileW", "WriteFile", "CloseHandle",
    "GetFileAttributesW", "CreateProcessW", "WaitForSingleObject", "GetExitCodeProcess", "Sleep",
    "ExitProcess",
)  # fmt: skip
_LAYOUT = "SECTIONS { . = 0x140002000; .all : { *(.text.start) *(.text*) *(.rodata*) *(.data*) \
*(.bss*) *(COMMON) } /DISCARD/ : { *(.comment) *(.note*) *(.eh_frame) } }"


def build_stand_in(folder: Path) -> bytes:
    """Compile the program in a folder; needs gcc and ld."""
    layout, code, flat = folder / "layout.ld", folder / "code.o", folder / "code.bin"
    layout.write_text(_LAYOUT)
    flags = "-O1 -c -ffreestanding -fpie -fshort-wchar -ffunction-sections -fno-stack-protector \
-fno-asynchronous-unwind-tables -fno-zero-initialized-in-bss -fcf-protection=none -mno-red-zone"
    subprocess.run(["gcc", *flags.split(), str(_SOURCE), "-o", str(code)], check=True)
    link = ["ld", "-T", str(layout), "--oformat", "binary", "-e", "start"]
    subprocess.run([*link, str(code), "-o", str(flat)], check=True)
    body = _imports().ljust(_CODE - _IMPORTS, b"\0") + flat.read_bytes()
    assert len(body) <= _END - _IMPORTS
    return _headers().ljust(0x400, b"\0") + body.ljust(_END - _IMPORTS, b"\0")


def _imports() -> bytes:
    """Return the address table, then names, then the directory that leads to both."""
    table_bytes = 8 * (len(_FUNCTIONS) + 1)
    at, names, places = _IMPORTS + table_bytes, b"", []
    for name in _FUNCTIONS:
        places.append(at + len(names))
        names += struct.pack("<H", 0) + name.encode() + b"\0" * (2 - len(name) % 2)
    library = at + len(names)
    names += b"KERNEL32.dll\0\0\0\0"
    table = struct.pack(f"<{len(places) + 1}Q", *places, 0)
    directory = struct.pack("<5I", 0, 0, 0, library, _IMPORTS) + bytes(20)
    return (table + names).ljust(0x800, b"\0") + directory


def _headers() -> bytes:
    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    coff = struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, 1, 0, 0, 0, 0xF0, 0x0023)
    size = _END - _IMPORTS
    optional = struct.pack("<HBBIIIII", 0x20B, 14, 0, size, 0, 0, _CODE, _CODE)
    optional += struct.pack("<QII6H", _BASE, 0x1000, 0x200, 6, 0, 0, 0, 6, 0)
    optional += struct.pack("<IIIIHH", 0, _END, 0x400, 0, 3, 0x0100)
    optional += struct.pack("<QQQQII", 0x100000, 0x1000, 0x100000, 0x1000, 0, 16)
    directories = bytearray(16 * 8)
    struct.pack_into("<II", directories, 8, _IMPORTS + 0x800, 40)
    section = struct.pack("<8sIIIIIIHHI", b".all", size, _IMPORTS, size, 0x400, 0, 0, 0, 0,
                          0xE0000060)  # fmt: skip
    return dos + coff + optional + bytes(directories) + section
