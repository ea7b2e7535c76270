"""The snapshot that an export reads: the operator's, or one of ours that goes when we are done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager

from imageport.citrix.vdisk_store import token_of
from imageport.errors import ImageportError
from imageport.hypervisor import OWN_PREFIX, Vm, VmSnapshot
from imageport.progress import Stage
from imageport.workflow.export_bytes import STAGE
from imageport.workflow.master import ExportPlace, Master
from imageport.workflow.place import may_go_on

_TOKEN = 8
"""Characters: some platforms cut names at 80."""


@contextmanager
def held_snapshot(place: ExportPlace, master: Master) -> Iterator[VmSnapshot]:
    """Give the snapshot to read; the image's lease is held.

    One of ours stays only when another try of this run may go on with it; what earlier runs of
    the image left is removed first, for nobody works on it any more. One that the platform does
    not let go yet is the next export's business: a killed run's lease outlives it by minutes.
    """
    try:
        remove_stale(place, master.vm, master.image)
    except ImageportError as error:
        Stage(STAGE, place.events).note(f"an earlier run's snapshot stays for now: {error.message}")
    if master.snapshot is not None:
        yield master.snapshot
        return
    snapshot = None
    try:
        snapshot = place.hypervisor.take_snapshot(master.vm, _name(place, master.image))
        yield snapshot
    except BaseException as error:
        if not may_go_on(error):
            # The first error is the one to report; the next export of the image tries again.
            with contextlib.suppress(ImageportError):
                _remove_own(place, master, snapshot)
        raise
    place.hypervisor.remove_snapshot(master.vm, snapshot)


def remove_stale(place: ExportPlace, vm: Vm, image: str, *, own_too: bool = False) -> list[str]:
    """Remove snapshots that ended runs took for this image; with ``own_too`` this run's as well."""
    removed = []
    for snapshot in vm.snapshots:
        ours = snapshot.name.startswith(_prefix(place, image))
        if ours and (own_too or snapshot.name != _name(place, image)):
            place.hypervisor.remove_snapshot(vm, snapshot)
            removed.append(snapshot.name)
    return removed


def _remove_own(place: ExportPlace, master: Master, snapshot: VmSnapshot | None) -> None:
    """Remove this run's snapshot; without one, the one whose taking was not seen to its end."""
    if snapshot is not None:
        place.hypervisor.remove_snapshot(master.vm, snapshot)
        return
    vm = place.hypervisor.find_vm(master.vm.location)
    if vm.id == master.vm.id:
        remove_stale(place, vm, master.image, own_too=True)


def _prefix(place: ExportPlace, image: str) -> str:
    return f"{OWN_PREFIX}{token_of(f'{image.casefold()}@{place.site}')[:_TOKEN]}-"


def _name(place: ExportPlace, image: str) -> str:
    return _prefix(place, image) + token_of(place.run)[:_TOKEN]
