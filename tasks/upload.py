"""The vDisk's blocks into the target account."""

from __future__ import annotations

from prefect import task

from imageport.workflow.upload import upload as run_upload
from tasks._places import load_site, workplace
from tasks._policies import REMEMBERED, RETRYING, StepKey
from tasks._reporting import shown_progress
from tasks.models import GenerationResult, Route


@task(
    name="upload",
    task_run_name="upload {image}",
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
    with (
        shown_progress(image) as events,
        workplace(route, here, events) as place,
        here.store.open_store() as store,
    ):
        generation = run_upload(
            place, store, image,
            source_key=source_key, accept_lock=accept_lock, keep_parent=keep_parent,
        )  # fmt: skip
    return GenerationResult.of(generation)
