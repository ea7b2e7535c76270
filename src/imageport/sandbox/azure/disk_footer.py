# References: Virtual Hard Disk Image Format Specification 1.0, "Hard Disk Footer Format";
# Azure: a fixed VHD of whole MiB, its footer checked when write access is revoked.
"""The last 512 bytes of an uploaded or exported disk, by the sandbox's own reading of the format.

Written apart from the product's footer on purpose: two readings that agree prove more than one.
"""

from __future__ import annotations

import struct
import uuid

from imageport.model import MIB
from imageport.sandbox.azure.disk_errors import DiskError

FOOTER_BYTES = 512
_COOKIE = b"conectix"
_FIXED = 2
_FIXED_OFFSET = (1 << 64) - 1
_LAYOUT = struct.Struct(">8sIIQI4sI4sQQ4sII16sB")
_CHECKSUM_AT = 64
_STAMP = 1767225600 - 946684800
"""Start of 2026, in the format's seconds since 2000."""


def footer_checksum(footer: bytes) -> int:
    """Return the ones' complement of the sum of all bytes but the checksum's own."""
    covered = sum(footer[:_CHECKSUM_AT]) + sum(footer[_CHECKSUM_AT + 4 :])
    return ~covered & 0xFFFFFFFF


def check_footer(footer: bytes, size_bytes: int, blob_url: str) -> None:
    """Raise DiskError (InvalidVhd) unless the footer fits a fixed disk of this size."""
    blob = f"disk 'abcd' with blob {blob_url}"
    values = _LAYOUT.unpack_from(footer)
    if values[0] != _COOKIE:
        raise _invalid(
            f"The specified cookie value in VHD footer indicates that {blob} is not a supported "
            "VHD. Disk is expected to have cookie value 'conectix'."
        )
    current_size, disk_type, checksum = values[9], values[11], values[12]
    if disk_type != _FIXED:
        raise _invalid(
            f"The specified {blob} is of VHD type {disk_type}. Only fixed VHDs are supported."
        )
    if current_size % MIB:
        raise _invalid(
            f"The specified {blob} has an unsupported virtual size of {current_size} bytes. "
            "The size must be a whole number (in MBs)."
        )
    if current_size != size_bytes:
        raise _invalid(
            f"The VHD footer of {blob} states a size of {current_size} bytes; the disk was "
            f"created for {size_bytes} bytes."
        )
    if checksum != footer_checksum(footer):
        raise _invalid(f"The checksum in the VHD footer of {blob} is not valid.")


def export_footer(size_bytes: int, identity: str) -> bytes:
    """Return the footer that an exported disk ends with; the same for the same disk."""
    unique = uuid.uuid5(uuid.NAMESPACE_URL, identity).bytes
    facts = (_COOKIE, 2, 0x10000, _FIXED_OFFSET, _STAMP, b"win ", 0x60001, b"Wi2k")
    shape = (size_bytes, size_bytes, _geometry(size_bytes), _FIXED, 0, unique, 0)
    footer = bytearray(_LAYOUT.pack(*facts, *shape).ljust(FOOTER_BYTES, b"\0"))
    struct.pack_into(">I", footer, _CHECKSUM_AT, footer_checksum(bytes(footer)))
    return bytes(footer)


def _geometry(size_bytes: int) -> bytes:
    """Return cylinders, heads and sectors as the appendix of the specification computes them."""
    sectors = min(size_bytes // 512, 65535 * 16 * 255)
    if sectors >= 65535 * 16 * 63:
        heads, per_track = 16, 255
        cylinders = sectors // per_track // heads
        return struct.pack(">HBB", cylinders, heads, per_track)
    per_track = 17
    tracks = sectors // per_track
    heads = max(4, (tracks + 1023) // 1024)
    if tracks >= heads * 1024 or heads > 16:
        per_track, heads = 31, 16
        tracks = sectors // per_track
    if tracks >= heads * 1024:
        per_track, heads = 63, 16
        tracks = sectors // per_track
    return struct.pack(">HBB", tracks // heads, heads, per_track)


def _invalid(message: str) -> DiskError:
    return DiskError(400, "InvalidVhd", message)
