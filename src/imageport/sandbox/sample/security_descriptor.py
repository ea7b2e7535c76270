"""The access that a real system volume gives, as the bytes that NTFS stores.

Without it every file would be open to everybody, and a test that the engine keeps descriptors
would prove nothing. Reference: [MS-DTYP] 2.4.6 SECURITY_DESCRIPTOR.
"""

from __future__ import annotations

import struct

_SYSTEM = (18,)
_ADMINISTRATORS = (32, 544)
_USERS = (32, 545)
_FULL = 0x1F01FF
_READ_AND_EXECUTE = 0x1200A9
_INHERITED_BY_FILES_AND_FOLDERS = 0x03
_SELF_RELATIVE_PROTECTED_DACL = 0x9004


def volume_descriptor() -> bytes:
    """Return: SYSTEM and Administrators everything, Users read and run; for all below as well."""
    entries = b"".join(
        _allow(access, who)
        for access, who in (
            (_FULL, _SYSTEM),
            (_FULL, _ADMINISTRATORS),
            (_READ_AND_EXECUTE, _USERS),
        )
    )
    acl = struct.pack("<BBHHH", 2, 0, 8 + len(entries), 3, 0) + entries
    owner, group = _sid(_ADMINISTRATORS), _sid(_SYSTEM)
    dacl_at = 20
    owner_at = dacl_at + len(acl)
    group_at = owner_at + len(owner)
    control = _SELF_RELATIVE_PROTECTED_DACL
    return struct.pack("<BBHIIII", 1, 0, control, owner_at, group_at, 0, dacl_at) + (
        acl + owner + group
    )


def _allow(access: int, who: tuple[int, ...]) -> bytes:
    sid = _sid(who)
    size = 8 + len(sid)
    return struct.pack("<BBHI", 0, _INHERITED_BY_FILES_AND_FOLDERS, size, access) + sid


def _sid(authorities: tuple[int, ...]) -> bytes:
    head = struct.pack("<BB", 1, len(authorities)) + (5).to_bytes(6, "big")
    return head + b"".join(struct.pack("<I", value) for value in authorities)
