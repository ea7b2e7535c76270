"""What ``imageport inspect`` tells of a chain: every file of it, the one that was named first."""

from __future__ import annotations

import re
from typing import Any

from imageport.citrix.names import disk_named
from imageport.formats.disk_file import DiskFile
from imageport.formats.linked_disk import LinkedDisk


def chain_facts(disk: DiskFile) -> list[dict[str, Any]]:
    """Return the files of a chain, down to the base; nothing for a disk without a parent.

    ``version`` is the number in the file's name as PVS gives them, None for other names.
    ``holds`` sums the bytes that the file itself says are data, zeros or trimmed, and those that
    it leaves to its parent.
    """
    if not isinstance(disk, LinkedDisk) or disk.parent is None:
        return []
    return [_file_facts(one) for one in disk.chain()]


def _file_facts(disk: LinkedDisk) -> dict[str, Any]:
    name = re.split(r"[\\/]", disk.location)[-1]
    _, file = disk_named(name)
    link = disk.parent_link
    holds = dict.fromkeys(("data", "zero", "hole", "below"), 0)
    for segment in disk.own_segments(0, disk.size_bytes):
        holds[segment.state.name.lower()] += segment.length
    return {
        "location": disk.location,
        "name": name,
        "format": disk.format_name,
        "version": file.version if file else None,
        "size_bytes": disk.size_bytes,
        "id": disk.link_id,
        "parent_ids": list(link.ids) if link else [],
        "parent_names": list(link.names) if link else [],
        "holds": {f"{state}_bytes": count for state, count in holds.items()},
        "file": disk.own_details(),
    }
