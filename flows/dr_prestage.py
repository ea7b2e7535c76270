"""Disaster recovery: images brought to other clouds before anyone needs them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from blocks import HypervisorConnection, Site
from flows._checked import checked_flow
from flows._destinations import Destination
from flows._hand_over import (
    IMAGE_PARAMETER,
    completed,
    reference,
    run_elsewhere,
    workflow_of,
)
from flows._marks import PARTIALLY_PUBLISHED
from imageport.errors import ImageportError
from imageport.workflow.choices import EnginePlace
from imageport.workflow.facts import image_name
from tasks._places import route_between
from tasks.catalogue import images_at
from tasks.options import PrepareOptions


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
    # Composing at the site makes another disk for each cloud: nothing that could be read once.
    apart = engine is EnginePlace.SITE
    wanted = _wanted(source, destinations, images, apart=apart)
    if not wanted:
        return Completed(message="No images are named, and no destination has any yet.")
    shared = {"options": options.model_dump(mode="json"), "engine": engine.value}
    if hypervisor is not None:
        shared["hypervisor"] = reference(hypervisor)
    places = asyncio.Semaphore(max(1, at_once))
    outcomes = await asyncio.gather(
        *(_bring(source, places_of_it, image, shared, places) for image, places_of_it in wanted)
    )
    message = "\n".join(outcome.text for outcome in outcomes)
    if not any(outcome.somewhere for outcome in outcomes):
        return Failed(message=message)
    staged = all(outcome.everywhere for outcome in outcomes)
    return Completed(name=None if staged else "PartiallyStaged", message=message)


@dataclass(frozen=True, slots=True)
class _Staged:
    """How one image fared."""

    text: str
    somewhere: bool = False
    """At one of its destinations, or more, it is ready now."""
    everywhere: bool = False


def _wanted(
    source: Site, destinations: list[Destination], images: list[str] | None, *, apart: bool
) -> list[tuple[str, list[Destination]]]:
    """Return each image with all its destinations, for which it is read once; or with each."""
    wanted: dict[str, list[Destination]] = {}
    for one in destinations:
        for image in images or images_at(route_between(source, one.site, one.cloud)):
            wanted.setdefault(image, []).append(one)
    if apart:
        return [(image, [one]) for image, places in wanted.items() for one in places]
    return list(wanted.items())


async def _bring(
    source: Site,
    destinations: list[Destination],
    image: str,
    shared: dict[str, Any],
    places: asyncio.Semaphore,
) -> _Staged:
    """Run one image to its destinations; a failure is an outcome, other images go on."""
    flow, parameters = _asked(destinations, image, shared)
    parameters["source"] = reference(source)
    what = f"{image} to {', '.join(one.site.name for one in destinations)}"
    # Blocks of two clouds may have one name, and one cloud may get an image under two.
    clouds = [
        f"{reference(one.cloud)['$ref']['block_document_slug']}{one.suffix}" for one in destinations
    ]
    key = f"{flow_run.get_id()}:{what}:{','.join(clouds)}"
    try:
        async with places:
            run = await run_elsewhere(f"{flow}/{source.work_pool}", parameters, key)
        text = completed(run, f"bring {what}").text
    except ImageportError as error:
        somewhere = error.fields.get("ended") == PARTIALLY_PUBLISHED
        return _Staged(f"{what}: {error.message}", somewhere)
    return _Staged(f"{what}: {text}", somewhere=True, everywhere=True)


def _asked(
    destinations: list[Destination], image: str, shared: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Return the flow that brings the image to so many places, and its parameters."""
    if len(destinations) > 1:
        listed = [
            {"site": reference(one.site), "cloud": reference(one.cloud), "suffix": one.suffix}
            for one in destinations
        ]
        kept = {name: value for name, value in shared.items() if name != "engine"}
        return "fan-out", {"destinations": listed, "image": image, **kept}
    (one,) = destinations
    flow = workflow_of(shared)
    parameters = {
        "target": reference(one.site),
        "cloud": reference(one.cloud),
        IMAGE_PARAMETER[flow]: image,
        **shared,
    }
    if one.suffix:
        parameters["publish_name"] = f"{image_name(image)}{one.suffix}"
    return flow, parameters
