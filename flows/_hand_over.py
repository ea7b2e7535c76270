"""Work for another site: a run of a deployment on that site's work pool, awaited here.

What is handed over is a catalogue id and the names of blocks, never bytes. The key makes a parent
that was killed and started again find the run that it had started.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import arun_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.utilities.asyncutils import run_coro_as_sync

from blocks import CloudTarget, Site
from blocks._block import ImageportBlock
from imageport.citrix.vdisk_store import IfExists
from imageport.errors import InputError, TransferError
from tasks._branch import current_branch

POLL_SECONDS = 2.0
ALREADY_THERE = "AlreadyThere"
"""Name of the final state of a run that found nothing to move."""

IMAGE_PARAMETER = {"pvs-to-pvs": "image", "mcs-to-pvs": "vm", "fan-out": "image"}
"""The workflows that bring an image to a cloud, and what each calls the image."""

_MOST_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class HandedOver:
    """How a run for another site ended."""

    text: str
    already_there: bool


def reference(block: ImageportBlock) -> dict[str, Any]:
    """Return a saved block as a parameter of another run: by name, so it stays readable."""
    slug = f"{block.get_block_type_slug()}/{block.saved_name}"
    return {"$ref": {"block_document_slug": slug}}


def workflow_of(parameters: dict[str, Any]) -> str:
    """Return which workflow a run's parameters are for: a hypervisor has master images."""
    return "mcs-to-pvs" if "hypervisor" in parameters else "pvs-to-pvs"


def publish_at_target(
    target: Site, cloud: CloudTarget, *, prepared_id: str, name: str, if_exists: IfExists
) -> HandedOver:
    """Publish a prepared generation on the target site's work pool and wait for the end."""
    parameters = {
        "target": reference(target),
        "cloud": reference(cloud),
        "prepared_id": prepared_id,
        "name": name,
        "if_exists": if_exists.value,
    }
    key = f"{flow_run.get_id()}:publish:{prepared_id}:{name}"
    found = run_coro_as_sync(run_elsewhere(f"publish-to-store/{target.work_pool}", parameters, key))
    return completed(found, f"publish '{name}'")


async def run_elsewhere(deployment: str, parameters: dict[str, Any], key: str) -> FlowRun:
    """Start a run of another site's deployment, or find the one that ``key`` started, and wait.

    A run that had already failed before this call is not waited for: the next number of the key
    starts another.

    Raises:
        InputError: there is no such deployment.
        TransferCancelled: this run ends before the other did.
    """
    began = datetime.now(UTC)
    for attempt in range(1, _MOST_ATTEMPTS + 1):
        current_branch().check_wanted(f"start a run of '{deployment}'")
        run = await _ended(await _started(deployment, parameters, f"{key}:{attempt}"))
        ended_before = run.end_time is not None and run.end_time < began
        if not ended_before or (run.state is not None and run.state.is_completed()):
            return run
    return run


async def _started(deployment: str, parameters: dict[str, Any], key: str) -> FlowRun:
    try:
        return await arun_deployment(
            deployment, parameters=parameters, idempotency_key=key, timeout=0
        )
    except ObjectNotFound as error:
        raise InputError(
            f"Cannot start '{deployment}': there is no deployment of that name.",
            hint="It bears the name of the Site's work pool: correct the block, or register the "
            "deployment, and start this run again.",
        ) from error


async def _ended(run: FlowRun) -> FlowRun:
    """Wait for the end of a run; `TransferCancelled` when this one ends before it."""
    async with get_client() as client:
        while run.state is None or not run.state.is_final():
            current_branch().check_wanted(f"wait for '{run.name}'")
            await asyncio.sleep(POLL_SECONDS)
            run = await client.read_flow_run(run.id)
    return run


def completed(run: FlowRun, what: str) -> HandedOver:
    """Return how a run ended, or raise for one that did not complete: Prefect itself does not."""
    state = run.state
    if state is None or not state.is_completed():
        found = f"{state.name}: {state.message}" if state else "no state"
        raise TransferError(
            f"Cannot {what} at the other site: its run '{run.name}' ended as {found}",
            hint="Open that run for its log; start this one again once its cause is mended.",
            run=str(run.id),
            ended=state.name if state else None,
        )
    return HandedOver(state.message or "", already_there=state.name == ALREADY_THERE)
