"""MCS to PVS: a master image of a hypervisor, prepared for a cloud, into a vDisk store there."""

from __future__ import annotations

from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from blocks import CloudTarget, HypervisorConnection, Site
from flows._bring import Bringing, bring
from flows._checked import checked_flow
from flows._export import exported, master_of
from flows._hand_over import ALREADY_THERE
from flows._marks import MOST_ATTEMPTS
from imageport.citrix.names import check_vdisk_name
from imageport.citrix.vdisk_store import IfExists
from imageport.workflow.choices import EnginePlace
from imageport.workflow.master import ExportWay
from tasks._places import route_between
from tasks.export import preflight_master, release_master
from tasks.options import PrepareOptions


@checked_flow(name="mcs-to-pvs", flow_run_name="{vm} to {cloud.place}", timeout_seconds=None)
def mcs_to_pvs(  # noqa: PLR0913, PLR0917 - the run form
    source: Site,
    hypervisor: HypervisorConnection,
    vm: str,
    target: Site,
    cloud: CloudTarget,
    image: str = "",
    snapshot: str = "",
    disk: str = "",
    way: ExportWay = ExportWay.AUTO,
    publish_name: str = "",
    if_exists: IfExists = IfExists.NEW_VERSION,
    options: PrepareOptions = PrepareOptions(),  # noqa: B008 - frozen, and the form shows it
    keep_parent: bool = True,
    engine: EnginePlace = EnginePlace.CLOUD,
) -> State[None]:
    """Bring an MCS master image to a cloud: preflight, export, upload, prepare, publish, verify.

    What the target already has is left alone; a run that was killed goes on where it was.

    Args:
        source: Site with the export folder; this run works on its work pool.
        hypervisor: Where the machine with the master image is.
        vm: Inventory path of the machine, or its name where only one has it.
        target: Site whose vDisk store the image is published to, by a run on its own work pool.
        cloud: Account, region and network that the image is prepared in.
        image: Name of the vDisk; empty takes the machine's name.
        snapshot: Name of the machine's snapshot to export, as MCS names it; empty takes one and
            removes it afterwards, for which the machine must be shut down.
        disk: Label of the disk where the machine has several; empty is the boot disk.
        way: How the bytes come: only what changed where the hypervisor tells, else as a stream;
            or by ranges, which a killed run does not read again.
        publish_name: Name of the vDisk in the target store; empty keeps the image's name.
        if_exists: What to do when the target store has that name with other content.
        options: What the compositing engine is asked to do. An image without the PVS target
            device software needs its installer among them.
        keep_parent: Keep the uploaded snapshot, so that the next upload sends only what changed.
        engine: Where the engine composes: in the cloud on a copy of the uploaded disk, or at the
            source site before the upload.
    """
    if publish_name:
        check_vdisk_name(publish_name)  # an export takes hours
    master = master_of(source, hypervisor, vm, image=image, snapshot=snapshot, disk=disk, way=way)
    if (flow_run.get_run_count() or 0) > MOST_ATTEMPTS:
        release_master(master)
        return Failed(message=f"Gave up: crashed {MOST_ATTEMPTS} times.")
    route = route_between(source, target, cloud, exports=True)
    found, exported_now = exported(
        master, lambda key: preflight_master(route, master, key, options)
    )
    chosen = Bringing(
        publish_name, if_exists, options, keep_parent, engine, source_key=found.source_key
    )
    brought = bring(route, target, cloud, found.image, chosen)
    if not (exported_now or brought.moved):
        text = f"Nothing had to move: {brought.published.text}"
        return Completed(name=ALREADY_THERE, message=text)
    return Completed(message=f"Published {brought.published.text}")
