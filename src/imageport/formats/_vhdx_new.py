"""Lays out a new VHDX file: log, metadata, BAT, then payload blocks."""

# References: [MS-VHDX] 2.1 layout, 2.2 header section, 2.6.2 known items.

from __future__ import annotations

import struct
import uuid

from imageport.formats import _vhdx_layout as layout
from imageport.formats._vhdx_structure import Structure
from imageport.model import MIB
from imageport.storage.byte_file import WritableFile

_CREATOR = "imageport".encode("utf-16-le")
_PHYSICAL_SECTOR_BYTES = 4096
"""As Hyper-V makes them: guests then align their writes."""
_LOG_OFFSET = MIB
_LOG_BYTES = MIB
_METADATA_OFFSET = 2 * MIB
_BAT_OFFSET = 3 * MIB
_REQUIRED = 4
_VIRTUAL_DISK = 2


def new_structure(geometry: layout.Geometry, disk_id: uuid.UUID) -> Structure:
    """Return the structures of a new, empty disk."""
    bat_bytes = geometry.entry_count * layout.BAT_ENTRY_BYTES
    bat = layout.Region(layout.REGION_BAT, _BAT_OFFSET, -(-bat_bytes // MIB) * MIB, required=True)
    metadata = layout.Region(layout.REGION_METADATA, _METADATA_OFFSET, MIB, required=True)
    header = layout.Header(
        sequence=1,
        file_write_guid=uuid.uuid4(),
        data_write_guid=uuid.uuid4(),
        log_guid=layout.NO_GUID,
        log_version=0,
        version=1,
        log_bytes=_LOG_BYTES,
        log_offset=_LOG_OFFSET,
    )
    return Structure(header, (metadata, bat), geometry, bat, disk_id, _PHYSICAL_SECTOR_BYTES)


def write_structure(file: WritableFile, structure: Structure) -> None:
    """Write everything but the final signature into an empty file; durable on return."""
    # First of all the mark that tells our own unfinished file from anybody else's.
    file.write_at(0, layout.UNFINISHED_SIGNATURE + _CREATOR.ljust(512, b"\0"))
    file.set_size(structure.bat.end)
    for offset in layout.HEADER_OFFSETS:
        file.write_at(offset, structure.header.pack())
    regions = layout.pack_regions(list(structure.regions))
    for offset in layout.REGION_TABLE_OFFSETS:
        file.write_at(offset, regions)
    file.write_at(_METADATA_OFFSET, _packed_metadata(structure))
    file.flush()


def is_own_file(head: bytes) -> bool:
    """Return whether a file that starts with ``head`` was begun by `write_structure`."""
    signed = head[:8] in {layout.SIGNATURE, layout.UNFINISHED_SIGNATURE}
    return signed and head[8:].startswith(_CREATOR + b"\0\0")


def _packed_metadata(structure: Structure) -> bytes:
    geometry = structure.geometry
    disk = _REQUIRED | _VIRTUAL_DISK
    items = [
        (layout.ITEM_FILE_PARAMETERS, struct.pack("<II", geometry.block_bytes, 0), _REQUIRED),
        (layout.ITEM_DISK_SIZE, struct.pack("<Q", geometry.disk_bytes), disk),
        (layout.ITEM_DISK_ID, structure.disk_id.bytes_le, disk),
        (layout.ITEM_LOGICAL_SECTOR, struct.pack("<I", geometry.sector_bytes), disk),
        (layout.ITEM_PHYSICAL_SECTOR, struct.pack("<I", structure.physical_sector_bytes), disk),
    ]
    entries, values = [], b""
    for item, value, flags in items:
        offset = layout.METADATA_TABLE_BYTES + len(values)
        entries.append(layout.MetadataEntry(item, offset, len(value), flags))
        values += value
    return layout.pack_metadata(entries) + values
