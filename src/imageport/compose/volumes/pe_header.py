# References: Microsoft PE Format (MS-DOS stub, signature, COFF file header).
"""Where the headers of a Windows or EFI program begin."""

from __future__ import annotations

import struct

X64 = 0x8664
"""Machine type of 64-bit PCs."""
SIGNATURE = b"PE\0\0"
_STUB_BYTES = 64
"""The MS-DOS header, which ends with the place of the other one."""


def pe_header_place(head: bytes) -> int | None:
    """Return where the MS-DOS header says that the PE one is, None when there is no such header.

    Whether `SIGNATURE` is there is still to be looked at; the file may be cut off before.
    """
    if len(head) < _STUB_BYTES or head[:2] != b"MZ":
        return None
    (at,) = struct.unpack_from("<I", head, _STUB_BYTES - 4)
    return int(at)


def pe_machine(head: bytes) -> int | None:
    """Return the machine type that a program is for, None when these bytes begin no program."""
    at = pe_header_place(head)
    if at is None or at + 6 > len(head) or head[at : at + 4] != SIGNATURE:
        return None
    return int(struct.unpack_from("<H", head, at + 4)[0])
