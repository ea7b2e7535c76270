# References: Virtual Hard Disk Image Format Specification 1.0; xapi-project/xen-api,
# ocaml/libs/vhd/vhd_format/f.ml (Vhd_input.vhd_common): the order in which xapi sends a VHD.
"""A VHD as xapi streams it: footer, header, a sector, the table, blocks ascending, footer.

Every bit of every bitmap is set. Written from the specification, without the product's own
formats: what reads it is to be proved by it.
"""

from __future__ import annotations

import struct
import time
import uuid
from typing import Final

SECTOR: Final = 512
BLOCK: Final = 2 * 1024 * 1024
TABLE_OFFSET: Final = 2048
BITMAP: Final = b"\xff" * SECTOR
UNUSED: Final = 0xFFFFFFFF
DYNAMIC: Final = 3
DIFFERENCING: Final = 4
_EPOCH: Final = 946684800
"""2000-01-01, from which VHD counts seconds."""


def head_of_stream(
    footer: bytes, size_bytes: int, blocks: list[int], base: uuid.UUID | None
) -> bytes:
    """Return all that comes before the first block.

    ``blocks`` are the indexes of those that follow; ``base`` is what a differencing disk names.
    """
    count = -(-size_bytes // BLOCK)
    table = [UNUSED] * count
    first = TABLE_OFFSET + len(_padded(b"\0" * 4 * count))
    for position, index in enumerate(blocks):
        table[index] = (first + position * (SECTOR + BLOCK)) // SECTOR
    packed = _padded(struct.pack(f">{count}I", *table))
    # The sector between header and table stays empty: xapi names a parent locator there and
    # never fills it.
    return footer + _header(count, base) + bytes(SECTOR) + packed


def footer_of(size_bytes: int, *, differencing: bool) -> bytes:
    """Return a footer with an id of its own."""
    body = struct.pack(
        ">8sIIQI4sI4sQQIII16sB427s",
        b"conectix", 2, 0x10000, SECTOR, int(time.time()) - _EPOCH, b"tap\0",
        0x10003, b"\0" * 4, size_bytes, size_bytes, _geometry(size_bytes),
        DIFFERENCING if differencing else DYNAMIC, 0,
        uuid.uuid4().bytes, 0, b"",
    )  # fmt: skip
    return body[:64] + struct.pack(">I", _checksum(body)) + body[68:]


def _header(count: int, base: uuid.UUID | None) -> bytes:
    locator = struct.pack(">4sIIIQ", b"MacX", SECTOR, 0, 0, 1536) if base else bytes(24)
    body = struct.pack(
        ">8sQQIIII16sII512s24s168s256s",
        b"cxsparse", 0xFFFFFFFFFFFFFFFF, TABLE_OFFSET, 0x10000, count, BLOCK, 0,
        base.bytes if base else b"", int(time.time()) - _EPOCH if base else 0, 0,
        "base.vhd".encode("utf-16-be") if base else b"", locator, b"", b"",
    )  # fmt: skip
    return body[:36] + struct.pack(">I", _checksum(body)) + body[40:]


def _geometry(size_bytes: int) -> int:
    """Return cylinders, heads and sectors per track as the specification computes them."""
    total = min(size_bytes // SECTOR, 65535 * 16 * 255)
    if total >= 65535 * 16 * 63:
        sectors, heads, tracks = 255, 16, total // 255
    else:
        sectors, tracks = 17, total // 17
        heads = max((tracks + 1023) // 1024, 4)
        if tracks >= heads * 1024 or heads > 16:
            sectors, heads, tracks = 31, 16, total // 31
        if tracks >= heads * 1024:
            sectors, heads, tracks = 63, 16, total // 63
    return (tracks // heads) << 16 | heads << 8 | sectors


def _checksum(body: bytes) -> int:
    return ~sum(body) & 0xFFFFFFFF


def _padded(data: bytes) -> bytes:
    """Fill up to whole sectors; the table's rest is unused entries."""
    return data + b"\xff" * (-len(data) % SECTOR)
