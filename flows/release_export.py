"""Release: what an export that nobody will go on with left in its hypervisor and folder."""

from __future__ import annotations

from prefect.client.schemas.objects import State
from prefect.states import Completed

from blocks import HypervisorConnection, Site
from flows._checked import checked_flow
from flows._export import master_of
from imageport.errors import LeaseHeld
from tasks.export import release_master


@checked_flow(name="release-export", flow_run_name="{vm}")
def release_export(
    source: Site, hypervisor: HypervisorConnection, vm: str, image: str = "", disk: str = ""
) -> State[None]:
    """Remove the snapshot and the half file of an export; started by the janitor.

    Only what this product made, and never while a run exports the image.

    Args:
        source: Site with the export folder; this run works on its work pool.
        hypervisor: Where the machine is.
        vm: Inventory path of the machine, or its name where only one has it.
        image: Name of the vDisk; empty takes the machine's name.
        disk: Label of the disk; empty is the boot disk.
    """
    try:
        removed = release_master(master_of(source, hypervisor, vm, image=image, disk=disk))
    except LeaseHeld:
        return Completed(message=f"Another run exports '{image or vm}': it removes what it finds.")
    return Completed(message=f"Removed {len(removed)}: {', '.join(removed) or 'nothing was left'}")
