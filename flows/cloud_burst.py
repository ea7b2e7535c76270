"""Burst: make sure that an image is ready at a cloud site, now."""

from __future__ import annotations

from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.utilities.asyncutils import run_coro_as_sync

from blocks import CloudTarget, HypervisorConnection, Site
from flows._checked import checked_flow
from flows._hand_over import (
    ALREADY_THERE,
    IMAGE_PARAMETER,
    completed,
    reference,
    run_elsewhere,
    workflow_of,
)
from imageport.workflow.choices import EnginePlace
from imageport.workflow.facts import image_name
from tasks._places import route_between
from tasks.catalogue import published_now
from tasks.options import PrepareOptions


@checked_flow(name="cloud-burst", flow_run_name="{image} at {target.name}")
def cloud_burst(  # noqa: PLR0913, PLR0917 - the run form
    source: Site,
    target: Site,
    cloud: CloudTarget,
    image: str,
    publish_name: str = "",
    options: PrepareOptions = PrepareOptions(),  # noqa: B008 - frozen, and the form shows it
    compare_with_source: bool = True,
    engine: EnginePlace = EnginePlace.CLOUD,
    hypervisor: HypervisorConnection | None = None,
) -> State[None]:
    """Verify that an image is current at the target, else bring it up; safe to call again.

    Args:
        source: Site whose vDisk store holds the image.
        target: Site that is to run machines from the image; this run works on its work pool.
        cloud: Account, region and network of the target.
        image: Name of the vDisk in the source store, or inventory path of the hypervisor's machine.
        publish_name: Name of the vDisk in the target store; empty keeps the image's name.
        options: What the compositing engine is asked to do.
        compare_with_source: Also compare with the source vDisk. Switch off when the source site
            is down: what is published and untouched then counts as current.
        engine: Where the engine composes: in the cloud, or at the source site before the upload.
        hypervisor: Where the image is a machine; none for a vDisk of the source's store.
    """
    known_as = image_name(image)
    name = publish_name or known_as
    if not compare_with_source:
        found = published_now(route_between(None, target, cloud), known_as, name)
        if found is not None:
            text = f"Ready: {found.file_name} in {found.store}; not compared with the source."
            return Completed(name=ALREADY_THERE, message=text)
    machine = {} if hypervisor is None else {"hypervisor": reference(hypervisor)}
    flow = workflow_of(machine)
    parameters = {
        "source": reference(source),
        "target": reference(target),
        "cloud": reference(cloud),
        IMAGE_PARAMETER[flow]: image,
        "publish_name": name,
        "options": options.model_dump(mode="json"),
        "engine": engine.value,
        **machine,
    }
    key = f"{flow_run.get_id()}:bring-up"
    run = run_coro_as_sync(run_elsewhere(f"{flow}/{source.work_pool}", parameters, key))
    outcome = completed(run, f"bring up '{image}'")
    return Completed(
        name=ALREADY_THERE if outcome.already_there else None, message=f"Ready: {outcome.text}"
    )
