"""PVS to PVS: a vDisk of one site, prepared for a cloud, into the vDisk store of another."""

from __future__ import annotations

from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from blocks import CloudTarget, Site
from flows._bring import Bringing, bring
from flows._checked import checked_flow
from flows._hand_over import ALREADY_THERE
from flows._marks import MOST_ATTEMPTS
from imageport.citrix.vdisk_store import IfExists
from imageport.workflow.choices import EnginePlace
from tasks._places import route_between
from tasks.options import PrepareOptions


@checked_flow(name="pvs-to-pvs", flow_run_name="{image} to {cloud.place}", timeout_seconds=None)
def pvs_to_pvs(  # noqa: PLR0913, PLR0917 - the run form
    source: Site,
    target: Site,
    cloud: CloudTarget,
    image: str,
    publish_name: str = "",
    if_exists: IfExists = IfExists.NEW_VERSION,
    options: PrepareOptions = PrepareOptions(),  # noqa: B008 - frozen, and the form shows it
    accept_lock: bool = False,
    keep_parent: bool = True,
    engine: EnginePlace = EnginePlace.CLOUD,
) -> State[None]:
    """Bring a PVS vDisk to a cloud: preflight, upload, prepare, publish, verify.

    What the target already has is left alone; a run that was killed goes on where it was.

    Args:
        source: Site whose vDisk store holds the image; this run works on its work pool.
        target: Site whose vDisk store the image is published to, by a run on its own work pool.
        cloud: Account, region and network that the image is prepared in.
        image: Name of the vDisk in the source store, with or without .vhdx.
        publish_name: Name of the vDisk in the target store; empty keeps the image's name.
        if_exists: What to do when the target store has that name with other content.
        options: What the compositing engine is asked to do.
        accept_lock: Read a vDisk although its lock does not tell who holds it.
        keep_parent: Keep the uploaded snapshot, so that the next upload sends only what changed.
        engine: Where the engine composes: in the cloud on a copy of the uploaded disk, or at the
            source site before the upload. An image that is prepared already counts either way.
    """
    if (flow_run.get_run_count() or 0) > MOST_ATTEMPTS:
        return Failed(message=f"Gave up: crashed {MOST_ATTEMPTS} times.")
    route = route_between(source, target, cloud)
    chosen = Bringing(publish_name, if_exists, options, keep_parent, engine, accept_lock)
    brought = bring(route, target, cloud, image, chosen)
    if not brought.moved:
        text = f"Nothing had to move: {brought.published.text}"
        return Completed(name=ALREADY_THERE, message=text)
    return Completed(message=f"Published {brought.published.text}")
