"""What the server does by itself: notice dead runs, resume crashed ones, call the janitor."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.automations import Automation, EventTrigger, Posture
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, RunDeployment
from prefect.events.schemas.events import ResourceSpecification

from flows._marks import AUTO_RESUME, PARTIALLY_PUBLISHED, TAG

HEARTBEAT_SECONDS = 30
"""Prefect's shortest; every work pool sets it."""
SILENCE = timedelta(seconds=3 * HEARTBEAT_SECONDS)
PATIENCE = timedelta(seconds=45)
"""A worker reports a crash twice within seconds and would overwrite an immediate resumption."""


def automations(janitor_id: UUID) -> list[Automation]:
    """Return the automations of this project; ``janitor_id`` is the janitor's deployment."""
    return [
        Automation(
            name="imageport: a silent run has crashed",
            description="No heartbeat in 90 seconds: its worker or machine died.",
            trigger=EventTrigger(
                after={"prefect.flow-run.heartbeat"},
                expect={"prefect.flow-run.*"},
                for_each={"prefect.resource.id"},
                match=_any_run(),
                match_related=_tagged(TAG),
                posture=Posture.Proactive,
                threshold=1,
                within=SILENCE,
            ),
            actions=[_change(StateType.CRASHED, None, "No sign of life in 90 s.")],
        ),
        Automation(
            name="imageport: a crashed run is resumed",
            description=(
                "45 seconds after the crash, when nothing else happened to the run. A second copy "
                "is fenced off by the lease per image and target; the flow gives up by itself."
            ),
            trigger=EventTrigger(
                after={"prefect.flow-run.Crashed"},
                expect={"prefect.flow-run.*"},
                for_each={"prefect.resource.id"},
                match=_any_run(),
                match_related=_tagged(AUTO_RESUME),
                posture=Posture.Proactive,
                threshold=1,
                within=PATIENCE,
            ),
            actions=[_change(StateType.SCHEDULED, "AwaitingRetry", "Resumed after its crash.")],
        ),
        Automation(
            name="imageport: the janitor follows a run that ended badly",
            description="Cancelled, failed or crashed: what it left in the cloud is removed.",
            trigger=EventTrigger(
                expect={
                    "prefect.flow-run.Cancelled",
                    "prefect.flow-run.Crashed",
                    "prefect.flow-run.Failed",
                    f"prefect.flow-run.{PARTIALLY_PUBLISHED}",
                },
                match=_any_run(),
                match_related=_tagged(TAG),
                posture=Posture.Reactive,
                threshold=1,
                within=timedelta(0),
            ),
            actions=[
                RunDeployment(
                    source="selected",
                    deployment_id=janitor_id,
                    parameters=_ended_run(),
                    job_variables=None,
                )
            ],
        ),
    ]


def _change(state: StateType, name: str | None, message: str) -> ChangeFlowRunState:
    return ChangeFlowRunState(state=state, name=name, message=message, force=False)


def _any_run() -> ResourceSpecification:
    return ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"})


def _tagged(tag: str) -> ResourceSpecification:
    return ResourceSpecification(
        {"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"}
    )


def _ended_run() -> dict[str, Any]:
    template = "{{ event.resource.id | replace('prefect.flow-run.', '') }}"
    return {"ended_run": {"__prefect_kind": "jinja", "template": template}}
