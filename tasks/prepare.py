"""The uploaded disk composed, booted once and judged."""

from __future__ import annotations

from prefect import task

from imageport.workflow.prepare import prepare as run_prepare
from tasks._places import load_site, payload_for, workplace
from tasks._policies import REMEMBERED, RETRYING, StepKey
from tasks._reporting import publish_report, shown_progress
from tasks.models import GenerationResult, Route, SourceIdentity
from tasks.options import PrepareOptions


@task(
    name="prepare",
    task_run_name="prepare {identity.image} for {route.place}",
    cache_policy=StepKey(step="prepare", inputs=("route", "uploaded_id", "identity")),
    **REMEMBERED,
    **RETRYING,
)
def prepare(
    route: Route, uploaded_id: str, identity: SourceIdentity, options: PrepareOptions
) -> GenerationResult:
    """Make the prepared generation and store what was changed as a report beside the run."""
    here = load_site(route.source)
    with (
        shown_progress(identity.image) as events,
        workplace(route, here, events) as place,
        payload_for(route, here, options) as payload,
    ):
        choices = options.choices(route.cloud_name)
        generation = run_prepare(place, uploaded_id, choices, payload=payload)
    publish_report(generation)
    return GenerationResult.of(generation)
