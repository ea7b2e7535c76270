# References: vSphere Web Services API: VirtualMachine.QueryChangedDiskAreas.
"""Which areas of a disk changed, asked slice by slice to the end of the disk."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from pyVmomi import vim, vmodl

from imageport.errors import HypervisorRefused, HypervisorUnreachable, VmMissing
from imageport.hypervisor import FrozenDisk
from imageport.hypervisors.vsphere.session import VsphereSession

_ALLOCATED = "*"
"""The change id that stands for the beginning: what was ever allocated."""
_CHANGE_ID = re.compile(r"(?P<tracking>[0-9A-Fa-f -]{2,64})/(?P<number>\d{1,10})")
_MOST_AREAS = 1_000_000
"""128 MiB of them here; a disk in more pieces is read as a whole."""

_SECTOR_BYTES = 512
"""What vSphere shows a guest; an answer in other units is of something else."""

Areas = list[tuple[int, int]]


def changed_areas(
    session: VsphereSession, machine: Any, frozen: FrozenDisk, since_change_id: str
) -> Areas | None:
    """Return (offset, length) of what changed since a change id; None when vCenter cannot tell."""
    if not _is_earlier(since_change_id, frozen.change_id):
        return None
    return _ask(session, machine, frozen, since_change_id)


def allocated_areas(session: VsphereSession, machine: Any, frozen: FrozenDisk) -> Areas | None:
    """Return what is allocated of a tracked disk on a datastore that can tell; None otherwise."""
    return _ask(session, machine, frozen, _ALLOCATED) if frozen.change_id else None


def _is_earlier(change_id: str, later: str) -> bool:
    """Tell whether two change ids are of one tracking, and the first is not the younger.

    What a host answers about a snapshot and what came after it is written nowhere; "nothing" would
    be taken for "the same".
    """
    first, second = _CHANGE_ID.fullmatch(change_id), _CHANGE_ID.fullmatch(later)
    if first is None or second is None or first["tracking"] != second["tracking"]:
        return False
    return int(first["number"]) <= int(second["number"])


def _ask(session: VsphereSession, machine: Any, frozen: FrozenDisk, since: str) -> Areas | None:
    snapshot = session.managed(vim.vm.Snapshot, frozen.snapshot.id)
    doing = f"ask what changed in '{frozen.location}'"
    found: Areas = []
    start = 0
    while start < frozen.size_bytes:
        query = partial(machine.QueryChangedDiskAreas, snapshot, int(frozen.disk.key), start, since)
        try:
            answer = session.call(doing, query)
        except (HypervisorRefused, VmMissing):
            # Of another disk, not tracked, no privilege: whatever it is, all may have changed.
            return None
        except HypervisorUnreachable as error:
            if isinstance(error.__cause__, vmodl.fault.SystemError):
                return None  # hosts fail so for as long as the tracking file is broken
            raise
        end = _end_of(answer, start, frozen.size_bytes)
        if end is None or not _take(found, answer, start, end) or len(found) > _MOST_AREAS:
            return None
        start = end
    return found


def _end_of(answer: Any, start: int, size: int) -> int | None:
    """Return where a slice ends; None for one that answers something else, or never ends."""
    if answer is None or answer.startOffset != start or not answer.length > 0:
        return None
    end = int(answer.startOffset + answer.length)
    return end if end <= size else None


def _take(found: Areas, answer: Any, start: int, end: int) -> bool:
    """Add a slice's areas; False when they do not ascend, overlap, leave it or cut a sector."""
    at = start
    for area in answer.changedArea or []:
        if not (area.length > 0 and at <= area.start and area.start + area.length <= end):
            return False
        if area.start % _SECTOR_BYTES or area.length % _SECTOR_BYTES:
            return False
        at = int(area.start + area.length)
        if found and sum(found[-1]) == area.start:
            found[-1] = (found[-1][0], at - found[-1][0])
        else:
            found.append((int(area.start), int(area.length)))
    return True
