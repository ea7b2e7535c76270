"""The vDisk's blocks into the target account, as they are or composed at the site."""

from __future__ import annotations

from typing import Any

from prefect import task

from imageport.workflow.compose_at_site import SiteComposing
from imageport.workflow.compose_at_site import compose_and_upload as run_compose_and_upload
from imageport.workflow.facts import image_name
from imageport.workflow.upload import upload as run_upload
from imageport.workflow.upload import upload_opened
from tasks._branch import current_branch
from tasks._places import load_site, payload_for, source_store, workplace
from tasks._policies import REMEMBERED, RETRYING, StepKey
from tasks._reporting import publish_report, shown_progress
from tasks.models import GenerationResult, Route, SourceIdentity
from tasks.options import PrepareOptions


@task(
    name="upload",
    task_run_name="upload {image} for {route.place}",
    cache_policy=StepKey(step="upload", inputs=("route", "image", "source_key", "keep_parent")),
    **REMEMBERED,
    **RETRYING,
)
def upload(
    route: Route,
    image: str,
    source_key: str,
    accept_lock: bool = False,
    keep_parent: bool = True,
) -> GenerationResult:
    """Upload what the target does not have; a task that was killed goes on from its journal."""
    here = load_site(route.source)
    wanted: dict[str, Any] = {"source_key": source_key, "keep_parent": keep_parent}
    reader = current_branch().source
    with (
        shown_progress(image_name(image)) as events,
        workplace(route, here, events) as place,
    ):
        if reader is not None:
            with reader.opened() as (facts, disk):
                generation = upload_opened(place, facts, disk, known_of=reader.known_of, **wanted)
        else:
            with source_store(route, here) as store:
                generation = run_upload(place, store, image, accept_lock=accept_lock, **wanted)
    return GenerationResult.of(generation)


@task(
    name="compose-and-upload",
    task_run_name="compose and upload {image} for {route.place}",
    # The identity has the source, the options, the operator's files and the engine.
    cache_policy=StepKey(
        step="compose-and-upload", inputs=("route", "image", "identity", "keep_parent")
    ),
    **REMEMBERED,
    **RETRYING,
)
def compose_and_upload(
    route: Route,
    image: str,
    identity: SourceIdentity,
    options: PrepareOptions,
    accept_lock: bool = False,
    keep_parent: bool = True,
) -> GenerationResult:
    """Compose beside the vDisk, then upload what the target does not have of the result."""
    here = load_site(route.source)
    with (
        shown_progress(image_name(image)) as events,
        workplace(route, here, events) as place,
        source_store(route, here) as store,
        payload_for(route, here, options) as payload,
    ):
        choices = options.choices(route.cloud_name)
        composing = SiteComposing(identity.source_key, choices, payload)
        generation = run_compose_and_upload(
            place, store, image, composing, accept_lock=accept_lock, keep_parent=keep_parent
        )
    publish_report(generation)
    return GenerationResult.of(generation)
