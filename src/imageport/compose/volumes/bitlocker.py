# References: libyal/libbde "BitLocker Drive Encryption (BDE) format": volume header of Windows 7
# and later, FVE metadata block header, metadata header, metadata entries, volume master key.
"""What protects the key of a BitLocker volume: told in the refusal, since it says what to do.

A volume whose protection is suspended is encrypted all the same; its key lies open beside it, a
"clear key", so that machines start without being asked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from imageport.compose.volumes.ntfs_volume import ReadAt

SIGNATURE = b"-FVE-FS-"
_METADATA_AT = 176
"""In the volume header: where the first of three metadata blocks lies, 64 bits."""
_BLOCK_HEADER_BYTES, _METADATA_HEADER_BYTES = 64, 48
_MAX_METADATA_BYTES = 64 * 1024
"""Windows keeps 64 KiB for a block."""
_ENTRY = struct.Struct("<HHHH")
"""Size of the whole entry, entry type, value type, version."""
_VOLUME_MASTER_KEY = 0x0002
_PROTECTION_AT = 26
"""In the key's own data: after its GUID (16), time (8) and two bytes of which nothing is known."""
_CLEAR_KEY = 0x0000
_PROTECTORS = {
    _CLEAR_KEY: "a clear key",
    0x0100: "the TPM",
    0x0200: "a start-up key",
    0x0500: "the TPM with a PIN",
    0x0800: "a recovery password",
    0x2000: "a password",
}


def is_bitlocker(boot_sector: bytes) -> bool:
    """Say whether the volume is encrypted."""
    return boot_sector[3:11] == SIGNATURE


def describe_bitlocker(boot_sector: bytes, read_at: ReadAt) -> str:
    """Return what is known of a volume's protection, in words; "" when nothing can be read."""
    kinds = list(dict.fromkeys(_protectors(boot_sector, read_at)))
    if not kinds:
        return ""
    if _CLEAR_KEY in kinds:
        return "its protection is suspended, it is encrypted all the same"
    named = [_PROTECTORS.get(kind, f"a protector of type {kind:#06x}") for kind in kinds]
    return f"its key is protected by {' and '.join(named)}"


def _protectors(boot_sector: bytes, read_at: ReadAt) -> Iterator[int]:
    if len(boot_sector) < _METADATA_AT + 8:
        return
    (at,) = struct.unpack_from("<Q", boot_sector, _METADATA_AT)
    head = read_at(at, _BLOCK_HEADER_BYTES + _METADATA_HEADER_BYTES)
    if len(head) < _BLOCK_HEADER_BYTES + _METADATA_HEADER_BYTES or head[:8] != SIGNATURE:
        return
    (size,) = struct.unpack_from("<I", head, _BLOCK_HEADER_BYTES)
    if not _METADATA_HEADER_BYTES <= size <= _MAX_METADATA_BYTES:
        return
    metadata = read_at(at + _BLOCK_HEADER_BYTES, size)
    place = _METADATA_HEADER_BYTES
    while place + _ENTRY.size <= len(metadata):
        length, kind, _, _ = _ENTRY.unpack_from(metadata, place)
        if length < _ENTRY.size:
            return
        data = metadata[place + _ENTRY.size : place + length]
        if kind == _VOLUME_MASTER_KEY and len(data) >= _PROTECTION_AT + 2:
            yield int(struct.unpack_from("<H", data, _PROTECTION_AT)[0])
        place += length
