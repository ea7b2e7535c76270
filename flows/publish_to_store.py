"""Publish: a prepared image into this site's vDisk store; started by the run that prepared it."""

from __future__ import annotations

from prefect.client.schemas.objects import State
from prefect.states import Completed

from blocks import CloudTarget, Site
from flows._checked import checked_flow
from flows._hand_over import ALREADY_THERE
from imageport.citrix.vdisk_store import IfExists
from tasks._places import route_between
from tasks.catalogue import inventory
from tasks.publish import publish
from tasks.verify import verify


@checked_flow(name="publish-to-store", flow_run_name="{name} to {target.name}")
def publish_to_store(
    target: Site,
    cloud: CloudTarget,
    prepared_id: str,
    name: str,
    if_exists: IfExists = IfExists.NEW_VERSION,
) -> State[None]:
    """Write a prepared image into the site's vDisk store and read it back.

    Args:
        target: Site whose vDisk store is written; this run works on its work pool.
        cloud: Account and region that hold the prepared image.
        prepared_id: Catalogue id of the prepared generation.
        name: Name of the vDisk in the store.
        if_exists: What to do when the store has that name with other content.
    """
    route = route_between(None, target, cloud)
    published = publish(route, prepared_id, name, if_exists)
    text = f"{published.file_name} in {published.store}"
    if published.already_there:
        return Completed(name=ALREADY_THERE, message=f"{text} is what was prepared, unchanged")
    verified = verify(route, prepared_id, published.file_name)
    inventory(route)
    return Completed(message=f"{text}; {verified.level}")
