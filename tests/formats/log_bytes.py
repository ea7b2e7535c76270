"""Pending VHDX logs with known content, packed by the specification's tables.

Recipe of `crashed`: a sound file; pages of it (4 KiB) are moved into log entries and scrambled in
place; both headers get a log GUID. Replaying the log gives the sound file back.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence

from tests.formats.chain_bytes import KIB, LOG, MIB, header, sealed

PAGE = 4 * KIB
GUID = uuid.UUID("5ac6e9a4-0000-4000-8000-00000000f00d")
Write = tuple[int, bytes | int]
"""(offset, page) or (offset, length of zeros)."""


def entry(
    sequence: int,
    writes: Sequence[Write],
    *,
    tail: int,
    flushed: int = 0,
    last: int = 0,
    log_guid: uuid.UUID = GUID,
) -> bytes:
    """Return one log entry, sealed."""
    descriptors, sectors = b"", b""
    for offset, what in writes:
        if isinstance(what, int):
            descriptors += struct.pack("<4sIQQQ", b"zero", 0, what, offset, sequence)
            continue
        descriptors += struct.pack("<4s4s8sQQ", b"desc", what[-4:], what[:8], offset, sequence)
        high, low = sequence >> 32, sequence & 0xFFFFFFFF
        sectors += struct.pack("<4sI4084sI", b"data", high, what[8:-4], low)
    length = -(-(64 + len(descriptors)) // PAGE) * PAGE + len(sectors)
    head = struct.pack(
        "<4sIIIQII16sQQ",
        *(b"loge", 0, length, tail, sequence, len(writes), 0, log_guid.bytes_le, flushed, last),
    )
    return sealed((head + descriptors).ljust(length - len(sectors), b"\0") + sectors)


def with_log(content: bytes, entries: dict[int, bytes], log_guid: uuid.UUID = GUID) -> bytes:
    """Return a file with a pending log of these entries, by their place in the log (it wraps)."""
    log = bytearray(MIB)
    for at, packed in entries.items():
        split = min(len(packed), MIB - at)
        log[at : at + split] = packed[:split]
        log[: len(packed) - split] = packed[split:]
    data = bytearray(content)
    data[LOG : LOG + MIB] = log
    data_write_guid = uuid.UUID(bytes_le=content[64 * KIB + 32 : 64 * KIB + 48])
    for at, sequence in ((64 * KIB, 8), (128 * KIB, 9)):
        data[at : at + PAGE] = header(data_write_guid, sequence, log_guid)
    return bytes(data)


def page(content: bytes, offset: int) -> bytes:
    return content[offset : offset + PAGE]


def scrambled(content: bytes, *offsets: int) -> bytes:
    """Return ``content`` with pages made noise that no reader takes for anything."""
    data = bytearray(content)
    for offset in offsets:
        data[offset : offset + PAGE] = b"\xa5" * PAGE
    return bytes(data)


def crashed(content: bytes, offsets: Sequence[int], *, first: int = 0, sequence: int = 5) -> bytes:
    """Return the file with pages in its log only; an entry a page, from ``first`` on in the log."""
    entries, at = {}, first
    for number, offset in enumerate(offsets):
        packed = entry(
            sequence + number,
            [(offset, page(content, offset))],
            tail=first,
            flushed=len(content),
            last=len(content),
        )
        entries[at] = packed
        at = (at + len(packed)) % MIB
    return with_log(scrambled(content, *offsets), entries)
