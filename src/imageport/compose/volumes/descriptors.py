# References: [MS-DTYP] 2.4.6 SECURITY_DESCRIPTOR, 2.4.5 ACL, 2.4.4.2 ACCESS_ALLOWED_ACE.
"""Security descriptors of everything the engine adds to the guest.

What libguestfs and ntfs-3g create is open to everybody; in a golden image that lets any user put
code where SYSTEM runs it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum

from imageport.errors import BadDisk

ADMINISTRATORS = "S-1-5-32-544"
USERS = "S-1-5-32-545"
SYSTEM = "S-1-5-18"
FULL = 0x001F01FF
READ_AND_EXECUTE = 0x001200A9
_WRITES = 0x000D0156
"""DELETE, WRITE_DAC, WRITE_OWNER, and write data, append, write attributes, delete child."""
_GENERIC_WRITES = 0x50000000
"""GENERIC_ALL and GENERIC_WRITE."""

_INHERIT_TO_ALL_BELOW = 0x03
_PROTECTED_SELF_RELATIVE_DACL = 0x9004
_ALLOWED = 0
_ALLOWED_FORMS = {0x00, 0x04, 0x05, 0x09, 0x0B}
"""ACE types that grant; compound, object and callback forms count as grants too."""
_HEADER = struct.Struct("<BBHIIII")


class Access(StrEnum):
    """Who may use what we add."""

    USERS_READ = "users-read"
    """SYSTEM and Administrators: full; Users: read and execute."""
    ADMINISTRATORS_ONLY = "administrators-only"
    """SYSTEM and Administrators: full; nobody else."""

    def descriptor(self, *, is_folder: bool) -> bytes:
        """Return the descriptor as NTFS stores it; a folder's entries pass on to all below."""
        entries = [(SYSTEM, FULL), (ADMINISTRATORS, FULL)]
        if self is Access.USERS_READ:
            entries.append((USERS, READ_AND_EXECUTE))
        return _build(entries, _INHERIT_TO_ALL_BELOW if is_folder else 0)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a DACL."""

    kind: int
    mask: int
    sid: str


def entries_of(descriptor: bytes) -> list[Entry] | None:
    """Return the DACL's entries, None when there is no DACL (everybody may do everything).

    Raises:
        BadDisk: the bytes are no self-relative descriptor.
    """
    if len(descriptor) < _HEADER.size:
        raise BadDisk(f"Bad security descriptor: found {len(descriptor)} bytes, needed 20 or more.")
    _, _, control, _, _, _, dacl_at = _HEADER.unpack_from(descriptor)
    if not control & 0x0004 or not dacl_at:
        return None
    try:
        _, _, _, count, _ = struct.unpack_from("<BBHHH", descriptor, dacl_at)
        return _entries(descriptor, dacl_at + 8, count)
    except (struct.error, IndexError) as error:
        raise BadDisk(f"Bad security descriptor: its DACL ends early ({error}).") from error


def who_else_may_write(descriptor: bytes) -> list[str]:
    """Return the SIDs other than SYSTEM and Administrators that may change the object."""
    entries = entries_of(descriptor)
    if entries is None:
        return ["S-1-1-0"]
    writes = _WRITES | _GENERIC_WRITES
    granting = [e for e in entries if e.kind in _ALLOWED_FORMS and e.mask & writes]
    return sorted({e.sid for e in granting} - {SYSTEM, ADMINISTRATORS})


def describe(descriptor: bytes) -> str:
    """Return one line for reports, like ``S-1-5-18 full, S-1-5-32-545 read``."""
    entries = entries_of(descriptor)
    if entries is None:
        return "no DACL"
    names = {FULL: "full", READ_AND_EXECUTE: "read and execute"}
    return ", ".join(f"{e.sid} {names.get(e.mask, hex(e.mask))}" for e in entries)


def _build(entries: list[tuple[str, int]], flags: int) -> bytes:
    aces = b"".join(_allow(sid, mask, flags) for sid, mask in entries)
    acl = struct.pack("<BBHHH", 2, 0, 8 + len(aces), len(entries), 0) + aces
    owner, group = _sid_bytes(ADMINISTRATORS), _sid_bytes(SYSTEM)
    owner_at = _HEADER.size + len(acl)
    header = _HEADER.pack(
        1, 0, _PROTECTED_SELF_RELATIVE_DACL, owner_at, owner_at + len(owner), 0, _HEADER.size
    )
    return header + acl + owner + group


def _allow(sid: str, mask: int, flags: int) -> bytes:
    body = _sid_bytes(sid)
    return struct.pack("<BBHI", _ALLOWED, flags, 8 + len(body), mask) + body


def _sid_bytes(sid: str) -> bytes:
    _, revision, authority, *subs = sid.split("-")
    head = struct.pack("<BB", int(revision), len(subs)) + int(authority).to_bytes(6, "big")
    return head + b"".join(struct.pack("<I", int(sub)) for sub in subs)


def _sid_text(data: bytes, at: int) -> str:
    revision, count = data[at], data[at + 1]
    authority = int.from_bytes(data[at + 2 : at + 8], "big")
    subs = struct.unpack_from(f"<{count}I", data, at + 8)
    return "-".join(["S", str(revision), str(authority), *map(str, subs)])


def _entries(data: bytes, at: int, count: int) -> list[Entry]:
    found = []
    for _ in range(count):
        kind, _, size, mask = struct.unpack_from("<BBHI", data, at)
        if size < 16:
            raise struct.error(f"entry of {size} bytes")
        found.append(Entry(kind, mask, _sid_text(data, at + 8)))
        at += size
    return found
