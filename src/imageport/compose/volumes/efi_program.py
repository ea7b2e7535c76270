# References: Microsoft PE Format (MS-DOS stub, COFF header, optional header); UEFI 2.10 §2.1.1.
"""Is a file a program that 64-bit firmware of PCs would start?"""

from __future__ import annotations

import struct

from imageport.compose.volumes.pe_header import X64, pe_header_place, pe_machine

HEAD_BYTES = 4096
"""Enough to find the headers of any program: linkers put them into the first KiB."""
MAX_PROGRAM_BYTES = 64 * 1024 * 1024
"""Windows' boot manager has 2 to 3 MiB."""
_PE32_PLUS = 0x20B
_APPLICATION = 10


def efi_program_problem(head: bytes) -> str:
    """Return why the file's first `HEAD_BYTES` are no x64 EFI application, "" when they are."""
    at = pe_header_place(head)
    if at is None:
        return "no program: it does not begin with 'MZ'"
    machine = pe_machine(head)
    if machine is None or at + 94 > len(head):
        return f"no program: no PE header at offset {at}"
    if machine != X64:
        return f"for another processor: machine type {machine:#06x}, needed {X64:#06x}"
    (magic,) = struct.unpack_from("<H", head, at + 24)
    (subsystem,) = struct.unpack_from("<H", head, at + 24 + 68)
    if magic != _PE32_PLUS or subsystem != _APPLICATION:
        return f"no EFI application: subsystem {subsystem}, needed {_APPLICATION}"
    return ""
