"""Janitor: removes what ended runs left in clouds; on a schedule, and when a run ends badly."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import arun_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Failed
from prefect.utilities.asyncutils import run_coro_as_sync

from blocks import CloudTarget, Site
from flows._checked import checked_flow
from flows._marks import AUTO_RESUME, MOST_ATTEMPTS
from imageport.errors import ImageportError, InputError
from tasks._places import load_site, load_target, route_between
from tasks.catalogue import clean_up, targets_of


@checked_flow(name="janitor")
def janitor(
    target: Site | None = None, cloud: CloudTarget | None = None, ended_run: str = ""
) -> State[None]:
    """Delete what is left of one ended run, or everything of a site that is past its expiry.

    Never what the catalogue holds, and never what a live lease protects.

    Args:
        target: Site whose leftovers are meant; taken from the ended run if that is given.
        cloud: Cloud to look in; taken from the ended run if that is given. Empty looks in every
            saved target that the site's catalogue or ledger knows, in whichever cloud.
        ended_run: Id of a flow run that was cancelled, failed or crashed; empty looks at expiry.
    """
    problems: list[str] = []
    if ended_run:
        run = _read(ended_run)
        if run is None or not _has_ended(run):
            return Completed(message=f"Run {ended_run} has not ended, or will be resumed.")
        named, problems = _blocks_of(run)
        problems.append(_release_export(run))
        if not named and not any(problems):
            return Completed(message=f"Run {ended_run} names no target; nothing to clean up.")
    elif target is None:
        raise InputError("Cannot clean up: found no target site, needed one or an ended run.")
    else:
        clouds = [cloud] if cloud else [load_target(name) for name in targets_of(target.saved_name)]
        named = [(target, place) for place in clouds]
    outcomes = [_cleaned(site, place, ended_run) for site, place in named]
    return _outcome([*outcomes, *(([], problem) for problem in problems)])


def _release_export(run: FlowRun) -> str:
    """Let the source site remove what an export left: only its worker reaches the hypervisor.

    Returns what went wrong; nothing of it keeps the cloud dirty.
    """
    if "hypervisor" not in run.parameters:
        return ""
    names = ("source", "hypervisor", "vm", "image", "disk")
    parameters = {name: run.parameters[name] for name in names if name in run.parameters}
    if "vm" not in parameters:
        # Where a form takes vDisks and machines alike, its image is the machine.
        parameters["vm"] = parameters.pop("image", "")
    if not parameters["vm"]:
        return ""  # a run for many images exports none itself
    try:
        source = load_site(_slug(run.parameters["source"]["$ref"]).partition("/")[2])
    except ImageportError as error:
        return error.message
    deployment = f"release-export/{source.work_pool}"
    key = f"release:{run.id}:{run.run_count}"
    try:
        started = arun_deployment(deployment, parameters=parameters, idempotency_key=key, timeout=0)
        run_coro_as_sync(started)
    except ObjectNotFound:
        return f"Cannot release the export of '{run.name}': there is no deployment {deployment}."
    return ""


def _cleaned(target: Site, cloud: CloudTarget, ended_run: str) -> tuple[list[str], str]:
    """Return what was deleted and what went wrong; one cloud's trouble keeps no other dirty."""
    route = route_between(None, target, cloud)
    try:
        return clean_up(route, ended_run), ""
    except ImageportError as error:
        return [], f"{route.cloud}: {error}"


def _outcome(outcomes: list[tuple[list[str], str]]) -> State[None]:
    deleted = [name for names, _ in outcomes for name in names]
    message = f"Deleted {len(deleted)}: {', '.join(deleted) or 'nothing was left'}"
    failures = [failure for _, failure in outcomes if failure]
    if failures:
        return Failed(message="\n".join([message, *failures]))
    return Completed(message=message)


def _read(run_id: str) -> FlowRun | None:
    with get_client(sync_client=True) as client:
        try:
            return client.read_flow_run(UUID(run_id))
        except ObjectNotFound:
            return None


def _has_ended(run: FlowRun) -> bool:
    """Tell whether nobody will go on with a run: a crashed one is resumed a few times."""
    if run.state is None or not run.state.is_final():
        return False
    resumed = run.state.is_crashed() and AUTO_RESUME in run.tags and run.run_count < MOST_ATTEMPTS
    return not resumed


def _blocks_of(run: FlowRun) -> tuple[list[tuple[Site, CloudTarget]], list[str]]:
    """Return site and cloud of each target that the run was started with, and what went wrong.

    A block that was deleted since keeps no other target dirty.
    """
    given = run.parameters.get("destinations") or [
        {"site": run.parameters.get("target"), "cloud": run.parameters.get("cloud")}
    ]
    named, problems = [], []
    for one in given:
        try:
            site, cloud = (_reference(one.get(name)) for name in ("site", "cloud"))
            if site and cloud:
                named.append((load_site(site.partition("/")[2]), load_target(cloud)))
        except (ImageportError, ObjectNotFound) as error:
            problems.append(f"Cannot clean up a target of '{run.name}': {error}")
    return named, problems


def _reference(value: Any) -> str:
    """Return ``slug/name`` of the block that a parameter refers to; empty if it is no reference."""
    found = value.get("$ref") if isinstance(value, dict) else None
    return _slug(found) if isinstance(found, dict) else ""


def _slug(found: dict[str, str]) -> str:
    """Return ``slug/name`` of a reference, which the UI writes by id and people by name."""
    if "block_document_slug" in found:
        return found["block_document_slug"]
    with get_client(sync_client=True) as client:
        document = client.read_block_document(UUID(found["block_document_id"]))
    slug = document.block_type.slug if document.block_type else ""
    return f"{slug}/{document.name}"
