"""Before anything is created: which content the vDisk has, and what would stop a run."""

from __future__ import annotations

from datetime import timedelta

from prefect import task

from imageport.compose.build_engine import engine_id
from imageport.compose.report_page import page_text, report_sections
from imageport.workflow.facts import options_key, source_facts
from imageport.workflow.preflight import PreflightReport as Preflight
from imageport.workflow.preflight import payload_sha256
from imageport.workflow.preflight import preflight as run_preflight
from imageport.workflow.prepare import find_current
from tasks._places import load_site, payload_for, source_store, workplace
from tasks._policies import REMEMBERED, RETRYING, StepKey
from tasks._reporting import publish_markdown, report_key, shown_progress
from tasks.models import PreflightResult, Route, SourceIdentity
from tasks.options import PrepareOptions

FRESH = timedelta(hours=4)
"""How long permissions, once checked, are believed; resumed runs do not inspect again."""


@task(name="identify", task_run_name="identify {image} for {route.place}", **RETRYING)
def identify(
    route: Route, image: str, options: PrepareOptions, accept_lock: bool = False
) -> SourceIdentity:
    """Tell which content the vDisk has now and whether the target has it prepared already."""
    here = load_site(route.source)
    engine = engine_id()
    with (
        workplace(route, here) as place,
        source_store(route, here) as store,
        payload_for(route, here, options) as payload,
    ):
        facts = source_facts(store, image, accept_lock=accept_lock)
        choices = options.choices(route.cloud_name)
        key = options_key(choices, payload_sha256(payload), engine)
        found = find_current(place, facts.image, facts.source_key, key)
    return SourceIdentity(
        image=facts.image,
        source_key=facts.source_key,
        options_key=key,
        engine_id=engine,
        size_bytes=facts.size_bytes,
        prepared_id=found.id if found else "",
    )


@task(
    name="preflight",
    task_run_name="preflight {image} for {route.place}",
    cache_policy=StepKey(step="preflight", inputs=("route", "image", "identity")),
    cache_expiration=FRESH,
    **REMEMBERED,
    **RETRYING,
)
def preflight(
    route: Route,
    image: str,
    identity: SourceIdentity,
    options: PrepareOptions,
    accept_lock: bool = False,
) -> PreflightResult:
    """Inspect the vDisk where it lies and ask the cloud; what would fail later fails now."""
    here = load_site(route.source)
    with (
        shown_progress(identity.image) as events,
        workplace(route, here, events) as place,
        source_store(route, here) as store,
        payload_for(route, here, options) as payload,
    ):
        choices = options.choices(route.cloud_name)
        report = run_preflight(
            place, store, image, choices, payload=payload, accept_lock=accept_lock
        )
    result = PreflightResult.of(report)
    publish_preflight(report)
    return result


def publish_preflight(report: Preflight) -> None:
    """Store what was found in the image, and what would be changed, beside the run."""
    page = f"{_page(PreflightResult.of(report))}\n\n{report_sections(report.plan)}"
    key = report_key("found", report.image)  # "preflight" is the key of the stage's progress
    publish_markdown(key, page, "What was found in the image, and what would be changed.")


def _page(result: PreflightResult) -> str:
    used, whole = result.data_bytes / 2**30, result.size_bytes / 2**30
    lines = [
        f"# {page_text(result.image)}",
        "",
        f"- {used:.1f} of {whole:.1f} GiB hold data",
        f"- {result.planned_changes} changes planned",
        f"- about {result.estimate_usd:.2f} USD for this run, by list prices",
        *(f"- Note: {page_text(warning)}" for warning in result.warnings),
    ]
    return "\n".join(lines)
