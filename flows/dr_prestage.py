"""Disaster recovery: images brought to other clouds before anyone needs them."""

from __future__ import annotations

import asyncio
from typing import Any

from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import BaseModel, ConfigDict, Field

from blocks import CloudTarget, HypervisorConnection, Site
from flows._checked import checked_flow
from flows._hand_over import (
    IMAGE_PARAMETER,
    completed,
    reference,
    run_elsewhere,
    workflow_of,
)
from imageport.errors import ImageportError
from imageport.workflow.choices import EnginePlace
from tasks._places import route_between
from tasks.catalogue import images_at
from tasks.options import PrepareOptions


class Destination(BaseModel):
    """One place that images are brought to."""

    model_config = ConfigDict(extra="forbid")

    site: Site = Field(title="Target site", description="Site whose vDisk store is published to.")
    cloud: CloudTarget = Field(title="Cloud", description="Account and region to prepare in.")


@checked_flow(name="dr-prestage")
async def dr_prestage(  # noqa: PLR0913, PLR0917 - the run form
    source: Site,
    destinations: list[Destination],
    images: list[str] | None = None,
    options: PrepareOptions = PrepareOptions(),  # noqa: B008 - frozen, and the form shows it
    at_once: int = 2,
    engine: EnginePlace = EnginePlace.CLOUD,
    hypervisor: HypervisorConnection | None = None,
) -> State[None]:
    """Bring every image to every destination; what is current there is left alone.

    Args:
        source: Site whose vDisk store or export folder holds the images.
        destinations: Where the images are to be ready.
        images: Names of vDisks; none means every vDisk that a destination already has, without
            exported master images. With a hypervisor, inventory paths of machines with these.
        options: What the compositing engine is asked to do.
        at_once: How many images are brought at the same time.
        engine: Where the engine composes: in the cloud, or at the source site before the upload.
        hypervisor: Where the images are machines; none for vDisks of the source's store.
    """
    if hypervisor is not None and not images:
        return Failed(message="Bad images: found none, needed machines of the hypervisor.")
    wanted = [
        (image, destination)
        for destination in destinations
        for image in images or images_at(route_between(source, destination.site, destination.cloud))
    ]
    if not wanted:
        return Completed(message="No images are named, and no destination has any yet.")
    shared = {"options": options.model_dump(mode="json"), "engine": engine.value}
    if hypervisor is not None:
        shared["hypervisor"] = reference(hypervisor)
    places = asyncio.Semaphore(max(1, at_once))
    outcomes = await asyncio.gather(
        *(_bring(source, destination, image, shared, places) for image, destination in wanted)
    )
    failed = [text for text, ok in outcomes if not ok]
    message = "\n".join(text for text, _ in outcomes)
    if len(failed) == len(outcomes):
        return Failed(message=message)
    return Completed(name="PartiallyStaged" if failed else None, message=message)


async def _bring(
    source: Site,
    destination: Destination,
    image: str,
    shared: dict[str, Any],
    places: asyncio.Semaphore,
) -> tuple[str, bool]:
    """Run one image to one destination; a failure is an outcome, the others go on."""
    flow = workflow_of(shared)
    parameters = {
        "source": reference(source),
        "target": reference(destination.site),
        "cloud": reference(destination.cloud),
        IMAGE_PARAMETER[flow]: image,
        **shared,
    }
    what = f"{image} to {destination.site.name}"
    # Blocks of two clouds may have one name.
    key = f"{flow_run.get_id()}:{what}:{parameters['cloud']['$ref']['block_document_slug']}"
    try:
        async with places:
            run = await run_elsewhere(f"{flow}/{source.work_pool}", parameters, key)
        return f"{what}: {completed(run, what).text}", True
    except ObjectNotFound:
        return f"{what}: there is no deployment {flow}/{source.work_pool}", False
    except ImageportError as error:
        return f"{what}: {error.message}", False
