# References: Virtual Hard Disk Image Format Specification 1.0, "Hard Disk Footer Format" and
# appendix "CHS Calculation"; Azure, "Upload a VHD" (fixed VHD of whole MiB).
"""The last 512 bytes of an uploaded disk, without which Azure takes it for no disk at all."""

from __future__ import annotations

import hashlib
import struct
import uuid
from typing import Final, NamedTuple

FOOTER_BYTES: Final = 512
FIXED_DISK: Final = 2
SECTOR_BYTES: Final = 512

_LAYOUT = struct.Struct(">8s I I Q I 4s I 4s Q Q H B B I I 16s B")
"""Cookie, features, file format version, data offset, time stamp, creator application, creator
version, creator host OS, original size, current size, cylinders, heads, sectors per track, disk
type, checksum, unique id, saved state; 427 reserved bytes follow."""
_CHECKSUM_OFFSET: Final = 64
_NO_OFFSET: Final = 0xFFFF_FFFF_FFFF_FFFF
_RESERVED_FEATURE: Final = 2
"""A bit that the specification demands to be set."""
_MOST_SECTORS: Final = 65535 * 16 * 255


class Geometry(NamedTuple):
    """Cylinders, heads and sectors per track: what BIOSes once wanted."""

    cylinders: int
    heads: int
    sectors_per_track: int


def vhd_footer(size_bytes: int, identity: str) -> bytes:
    """Return the footer of a fixed VHD.

    Args:
        size_bytes: Of the disk without the footer.
        identity: Makes the unique id: the same upload always writes the same footer, so one that
            is taken up again changes nothing.
    """
    unique_id = uuid.UUID(bytes=hashlib.sha256(identity.encode()).digest()[:16], version=4)
    geometry = chs_geometry(size_bytes)

    def packed(checksum: int) -> bytes:
        fields = (
            b"conectix",
            _RESERVED_FEATURE,
            0x0001_0000,  # version 1.0
            _NO_OFFSET,  # only dynamic disks have a header to point to
            0,  # 2000-01-01: a time would change the footer of an upload that goes on later
            b"win ",  # as Hyper-V: readers then take the size from here and not from CHS
            0x000A_0000,
            b"Wi2k",
            size_bytes,
            size_bytes,
            *geometry,
            FIXED_DISK,
            checksum,
            unique_id.bytes,
            0,
        )
        return _LAYOUT.pack(*fields).ljust(FOOTER_BYTES, b"\0")

    return packed(footer_checksum(packed(0)))


def footer_checksum(footer: bytes) -> int:
    """Return the one's complement of the sum of all bytes outside the checksum field."""
    counted = footer[:_CHECKSUM_OFFSET] + footer[_CHECKSUM_OFFSET + 4 :]
    return ~sum(counted) & 0xFFFF_FFFF


def chs_geometry(size_bytes: int) -> Geometry:
    """Return the geometry by the specification's appendix; cylinders are rounded down."""
    total = min(size_bytes // SECTOR_BYTES, _MOST_SECTORS)
    if total >= 65535 * 16 * 63:
        sectors, heads = 255, 16
        return Geometry(total // sectors // heads, heads, sectors)
    sectors = 17
    tracks = total // sectors
    heads = max(4, (tracks + 1023) // 1024)
    if tracks >= heads * 1024 or heads > 16:
        sectors, heads = 31, 16
        tracks = total // sectors
    if tracks >= heads * 1024:
        sectors, heads = 63, 16
        tracks = total // sectors
    return Geometry(tracks // heads, heads, sectors)
