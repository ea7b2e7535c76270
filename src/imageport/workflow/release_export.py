"""Release: what an export that will not go on leaves is removed, in the folder and the machine."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from imageport.citrix.names import is_version_of
from imageport.errors import ImageportError, LeaseHeld
from imageport.workflow.checkpoints import Checkpoint
from imageport.workflow.export import work_key
from imageport.workflow.export_bytes import STAGE
from imageport.workflow.export_turn import holding_image, holding_machine
from imageport.workflow.facts import image_name
from imageport.workflow.master import ExportPlace, WantedMaster, look_up
from imageport.workflow.master_snapshot import remove_stale


def release(place: ExportPlace, wanted: WantedMaster) -> list[str]:
    """Leave nothing of an export that will not go on; return what was removed.

    The folder comes first: it is cleared also when the hypervisor cannot be asked, and when what
    is asked of it takes longer than a cancelled run is given.

    Raises:
        LeaseHeld: another run exports the image; it removes what it finds.
        HypervisorError: the folder is cleared then.
    """
    try:
        # The disk that was asked for may be gone, too.
        master = look_up(place.hypervisor, replace(wanted, snapshot="", disk=""))
    except ImageportError:
        with holding_image(place, wanted.image or wanted.vm)():
            _clear_folder(place, image_name(wanted.image or wanted.vm))
        raise
    with holding_image(place, master.image)():
        removed = _clear_folder(place, master.image)
        with contextlib.suppress(LeaseHeld), holding_machine(place, master.vm)():
            removed += place.hypervisor.tidy_up(master.vm)
        return removed + remove_stale(place, master.vm, master.image, own_too=True)


def _clear_folder(place: ExportPlace, image: str) -> list[str]:
    """Delete half files of an image, and what is noted of how far they had come."""
    removed = []
    for left in place.store.leftovers():
        if is_version_of(left.file_name, image):
            place.store.discard(left.part_name)
            removed.append(left.part_name)
    key = work_key(place, image)
    Checkpoint(place.state.folder, STAGE, key).clear()
    place.state.journals.delete(key)
    return removed
