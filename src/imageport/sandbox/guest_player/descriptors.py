"""Who may do what with a file: read from ntfssecaudit, and what a new file takes from its folder.

References: [MS-DTYP] 2.4.6 SECURITY_DESCRIPTOR, 2.5.3.4.1 inheritance.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imageport.sandbox.guest_player.programs import run

EVERYBODY = {"S-1-1-0", "S-1-5-11", "S-1-5-32-545", "S-1-5-32-546", "S-1-5-7"}
"""Everyone, Authenticated Users, Users, Guests, Anonymous."""
WRITE_RIGHTS = 0x000D0156
"""Write or append data, write attributes and properties, delete child, delete, change access."""
_ALLOW, _GENERIC_WRITE = 0, 0x50000000
_FILES, _FOLDERS, _ONLY_THIS_FAR, _INHERIT_ONLY, _INHERITED = 1, 2, 4, 8, 0x10
_DUMP_LINE = re.compile(r"^\s+[0-9a-f]{6}((?:  ?[0-9a-f]{2,8})+)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of an access list."""

    kind: int
    flags: int
    rights: int
    who: str
    raw: bytes

    @property
    def may_write(self) -> bool:
        """Tell whether it grants any way to change the object."""
        return self.kind == _ALLOW and bool(self.rights & (WRITE_RIGHTS | _GENERIC_WRITE))


def audited(image: Path, path: str) -> tuple[Entry, ...] | None:
    """Return the access list that ntfssecaudit reads from an unmounted volume, None if none."""
    text = run("ntfssecaudit", "-v", image, "/" + path, good=(0, 1)).decode("utf-8", "replace")
    dump = "".join(_DUMP_LINE.findall(text)).replace(" ", "")
    return entries(bytes.fromhex(dump)) if dump else None


def entries(descriptor: bytes) -> tuple[Entry, ...]:
    """Return the entries of a descriptor; without a list, everybody may do everything."""
    (at,) = struct.unpack_from("<I", descriptor, 16)
    if at == 0:
        return (Entry(_ALLOW, 0, 0x1F01FF, "S-1-1-0", b""),)
    return tuple(_list_entries(descriptor[at:]))


def _list_entries(acl: bytes) -> Iterator[Entry]:
    (count,) = struct.unpack_from("<H", acl, 4)
    at = 8
    for _ in range(count):
        kind, flags, size, rights = struct.unpack_from("<BBHI", acl, at)
        yield Entry(kind, flags, rights, _sid(acl[at + 8 : at + size]), acl[at : at + size])
        at += size


def inherited(parent: bytes, *, folder: bool) -> bytes:
    """Return the descriptor of something new in a folder that has the descriptor ``parent``."""
    wanted = _FOLDERS if folder else _FILES
    taken = []
    for entry in entries(parent):
        passes_through = folder and entry.flags & _FILES and not entry.flags & _ONLY_THIS_FAR
        if not entry.flags & wanted and not passes_through:
            continue
        flags = _INHERITED
        if folder and not entry.flags & _ONLY_THIS_FAR:
            flags |= entry.flags & (_FILES | _FOLDERS)
            flags |= 0 if entry.flags & _FOLDERS else _INHERIT_ONLY
        taken.append(entry.raw[:1] + bytes([flags]) + entry.raw[2:])
    body = b"".join(taken)
    acl = struct.pack("<BBHHH", 2, 0, 8 + len(body), len(taken), 0) + body
    owner, group = b"\1\2\0\0\0\0\0\5\x20\0\0\0\x20\2\0\0", b"\1\1\0\0\0\0\0\5\x12\0\0\0"
    owner_at = 20 + len(acl)
    head = struct.pack("<BBHIIII", 1, 0, 0x8404, owner_at, owner_at + len(owner), 0, 20)
    return head + acl + owner + group


def _sid(data: bytes) -> str:
    count = data[1]
    parts = struct.unpack_from(f"<{count}I", data, 8)
    return "-".join(["S", str(data[0]), str(int.from_bytes(data[2:8], "big")), *map(str, parts)])
