"""Janitor: removes what ended runs left in a cloud; on a schedule, and when a run ends badly."""

from __future__ import annotations

from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed

from blocks import AwsTarget, Site
from flows._marks import AUTO_RESUME, MOST_ATTEMPTS
from imageport.errors import InputError
from tasks._places import load_site, load_target, route_between
from tasks.catalogue import clean_up


@flow(name="janitor")
def janitor(
    target: Site | None = None, cloud: AwsTarget | None = None, ended_run: str = ""
) -> State[None]:
    """Delete what is left of one ended run, or everything of a site that is past its expiry.

    Never what the catalogue holds, and never what a live lease protects.

    Args:
        target: Site whose leftovers are meant; taken from the ended run if that is given.
        cloud: Account and region to look in; taken from the ended run if that is given.
        ended_run: Id of a flow run that was cancelled, failed or crashed; empty looks at expiry.
    """
    if ended_run:
        run = _read(ended_run)
        if run is None or not _has_ended(run):
            return Completed(message=f"Run {ended_run} has not ended, or will be resumed.")
        named = _blocks_of(run)
        if named is None:
            return Completed(message=f"Run {ended_run} names no target; nothing to clean up.")
        target, cloud = named
    if target is None or cloud is None:
        raise InputError(
            "Cannot clean up: found no target site or no cloud, needed both or an ended run."
        )
    deleted = clean_up(route_between(None, target, cloud), ended_run)
    return Completed(message=f"Deleted {len(deleted)}: {', '.join(deleted) or 'nothing was left'}")


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


def _blocks_of(run: FlowRun) -> tuple[Site, AwsTarget] | None:
    """Return the blocks that the run was started with."""
    slugs = []
    for name in ("target", "cloud"):
        value = run.parameters.get(name)
        found = value.get("$ref") if isinstance(value, dict) else None
        if not isinstance(found, dict):
            return None
        slugs.append(_slug(found))
    site, cloud = slugs
    return load_site(site.partition("/")[2]), load_target(cloud)


def _slug(found: dict[str, str]) -> str:
    """Return ``slug/name`` of a reference, which the UI writes by id and people by name."""
    if "block_document_slug" in found:
        return found["block_document_slug"]
    with get_client(sync_client=True) as client:
        document = client.read_block_document(UUID(found["block_document_id"]))
    slug = document.block_type.slug if document.block_type else ""
    return f"{slug}/{document.name}"
