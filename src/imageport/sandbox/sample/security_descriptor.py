"""The access that a real system volume gives, as the bytes that NTFS stores.

Without it every file would be open to everybody, and a test that the engine keeps descriptors
would prove nothing. Reference: [MS-DTYP] 2.4.6 SECURITY_DESCRIPTOR, 2.4.4.1 ACE_HEADER.
"""

from __future__ import annotations

import struct

_SYSTEM = (18,)
_ADMINISTRATORS = (32, 544)
_USERS = (32, 545)
_FULL = 0x1F01FF
_READ_AND_EXECUTE = 0x1200A9
_FOR_FILES_AND_FOLDERS_BELOW = 0x03
_INHERITED = 0x10
_SELF_RELATIVE_DACL = 0x8004
_PROTECTED = 0x1000
_AUTO_INHERITED = 0x0400
_PRIVATE_FOLDER = "windows/system32/config"


def descriptor_for(path: str, *, folder: bool) -> bytes:
    """Return the descriptor of a file or folder.

    SYSTEM and Administrators everything, Users read and run; the root hands it down. The folder of
    the hives is closed to Users, as on Windows.
    """
    lower = path.lower()
    private = lower == _PRIVATE_FOLDER or lower.startswith(_PRIVATE_FOLDER + "/")
    top = lower in {"", _PRIVATE_FOLDER}
    rights = [(_FULL, _SYSTEM), (_FULL, _ADMINISTRATORS)]
    if not private:
        rights.append((_READ_AND_EXECUTE, _USERS))
    flags = (_FOR_FILES_AND_FOLDERS_BELOW if folder else 0) | (0 if top else _INHERITED)
    control = _SELF_RELATIVE_DACL | (_PROTECTED if top else _AUTO_INHERITED)
    entries = b"".join(_allow(access, who, flags) for access, who in rights)
    acl = struct.pack("<BBHHH", 2, 0, 8 + len(entries), len(rights), 0) + entries
    owner, group = _sid(_ADMINISTRATORS), _sid(_SYSTEM)
    dacl_at = 20
    owner_at = dacl_at + len(acl)
    group_at = owner_at + len(owner)
    head = struct.pack("<BBHIIII", 1, 0, control, owner_at, group_at, 0, dacl_at)
    return head + acl + owner + group


def _allow(access: int, who: tuple[int, ...], flags: int) -> bytes:
    sid = _sid(who)
    return struct.pack("<BBHI", 0, flags, 8 + len(sid), access) + sid


def _sid(authorities: tuple[int, ...]) -> bytes:
    head = struct.pack("<BB", 1, len(authorities)) + (5).to_bytes(6, "big")
    return head + b"".join(struct.pack("<I", value) for value in authorities)
