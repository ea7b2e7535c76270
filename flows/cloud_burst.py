"""Burst: make sure that an image is ready at a cloud site, now."""

from __future__ import annotations

from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.utilities.asyncutils import run_coro_as_sync

from blocks import CloudTarget, Site
from flows._checked import checked_flow
from flows._hand_over import ALREADY_THERE, completed, reference, run_elsewhere
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
) -> State[None]:
    """Verify that an image is current at the target, else bring it up; safe to call again.

    Args:
        source: Site whose vDisk store holds the image.
        target: Site that is to run machines from the image; this run works on its work pool.
        cloud: Account, region and network of the target.
        image: Name of the vDisk in the source store.
        publish_name: Name of the vDisk in the target store; empty keeps the image's name.
        options: What the compositing engine is asked to do.
        compare_with_source: Also compare with the source vDisk. Switch off when the source site
            is down: what is published and untouched then counts as current.
        engine: Where the engine composes: in the cloud, or at the source site before the upload.
    """
    name = publish_name or image_name(image)
    if not compare_with_source:
        found = published_now(route_between(None, target, cloud), image_name(image), name)
        if found is not None:
            text = f"Ready: {found.file_name} in {found.store}; not compared with the source."
            return Completed(name=ALREADY_THERE, message=text)
    parameters = {
        "source": reference(source),
        "target": reference(target),
        "cloud": reference(cloud),
        "image": image,
        "publish_name": name,
        "options": options.model_dump(mode="json"),
        "engine": engine.value,
    }
    key = f"{flow_run.get_id()}:bring-up"
    run = run_coro_as_sync(run_elsewhere(f"pvs-to-pvs/{source.work_pool}", parameters, key))
    outcome = completed(run, f"bring up '{image}'")
    return Completed(
        name=ALREADY_THERE if outcome.already_there else None, message=f"Ready: {outcome.text}"
    )
