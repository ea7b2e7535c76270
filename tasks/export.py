"""A master image out of its hypervisor, as a vDisk in the source site's export folder."""

from __future__ import annotations

from datetime import timedelta

from prefect import task
from prefect.runtime import flow_run

from imageport.workflow.export import export as run_export
from imageport.workflow.export_preflight import identify as run_identify
from imageport.workflow.export_preflight import preflight_master as run_preflight
from imageport.workflow.master import newest_export
from imageport.workflow.release_export import release as run_release
from tasks._places import export_place, load_site, payload_for, workplace
from tasks._policies import REMEMBERED, RETRYING, StepKey
from tasks._reporting import publish_markdown, report_key, shown_progress
from tasks.models import ExportResult, MasterIdentity, MasterRef, Route
from tasks.options import PrepareOptions

FRESH = timedelta(hours=4)
"""How long privileges, once checked, are believed; resumed runs do not ask again."""


@task(name="identify-master", task_run_name="identify {master.vm}", **RETRYING)
def identify_master(master: MasterRef) -> MasterIdentity:
    """Tell which content the machine's snapshot has and whether it was exported already."""
    with export_place(master) as place:
        found = run_identify(place, master.wanted())
    return MasterIdentity(image=found.image, key=found.key, exported_id=found.exported_id)


@task(
    name="preflight-master",
    task_run_name="preflight {master.vm} for {route.place}",
    cache_policy=StepKey(step="preflight-master", inputs=("route", "master", "key", "options")),
    cache_expiration=FRESH,
    **REMEMBERED,
    **RETRYING,
)
def preflight_master(
    route: Route, master: MasterRef, key: str, options: PrepareOptions
) -> list[str]:
    """Ask hypervisor and cloud for all that an export and what follows it will need."""
    del key
    here = load_site(route.source)
    with (
        shown_progress(master.image or master.vm) as events,
        export_place(master, events) as place,
        workplace(route, here, events) as target,
        payload_for(route, here, options) as payload,
    ):
        engine = options.choices(route.cloud_name).engine
        report = run_preflight(place, target, master.wanted(), engine, payload)
    publish_markdown(
        report_key("master", report.image),
        report.page(),
        "Which machine and disk are exported, and what the machine has beside it.",
    )
    return list(report.warnings)


@task(
    name="export",
    task_run_name="export {master.vm}",
    cache_policy=StepKey(step="export", inputs=("master", "key")),
    **REMEMBERED,
    **RETRYING,
)
def export(master: MasterRef, key: str) -> ExportResult:
    """Export what the folder does not have; ``key`` names the content, or this run."""
    del key
    with (
        shown_progress(master.image or master.vm) as events,
        export_place(master, events) as place,
    ):
        return ExportResult.of(run_export(place, master.wanted()))


@task(name="still-exported", task_run_name="still exported? {exported.file_name}", **RETRYING)
def still_exported(master: MasterRef, exported: ExportResult) -> bool:
    """Tell whether the folder gives this export, as it was written; asked before a hit counts."""
    with export_place(master) as place:
        newest = newest_export(place, exported.image)
        return newest is not None and newest.id == exported.id


@task(name="release-master", task_run_name="release {master.vm}")
def release_master(master: MasterRef) -> list[str]:
    """Leave no snapshot, lease or half file of an export that will not go on."""
    with export_place(master) as place:
        return run_release(place, master.wanted())


def content_or_run(key: str) -> str:
    """Return what an export's result is remembered by: without a named snapshot only this run."""
    return key or f"run {flow_run.get_id()}"
