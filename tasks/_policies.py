"""When a task runs again and when its earlier result stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prefect.cache_policies import CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.tasks import Task
from prefect.utilities.hashing import hash_objects

from imageport.errors import ImageportError
from tasks._branch import current_branch

RETRY_DELAYS_SECONDS = [5.0, 15.0, 30.0, 60.0, 120.0]
"""Almost four minutes together: longer than a killed run's lease and a file server's restart."""

RETRY_JITTER = 0.3


@dataclass
class StepKey(CachePolicy):
    """A key of ``step:version:hash`` over named inputs.

    Prefect's own INPUTS policy lets two tasks with equal inputs share an entry, and a key over the
    source code changes with every comment. Bump ``version`` when a step's result means another
    thing. ``inputs`` names the arguments that shape the result.
    """

    step: str = ""
    version: int = 1
    inputs: tuple[str, ...] = field(default=())

    def compute_key(
        self,
        task_ctx: TaskRunContext,  # noqa: ARG002 - Prefect's signature
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],  # noqa: ARG002 - Prefect's signature
        **_kwargs: Any,
    ) -> str | None:
        """Return the key; equal arguments of the same step and version give the same."""
        missing = [name for name in self.inputs if name not in inputs]
        if missing or not self.inputs:
            raise KeyError(f"{self.step}: no inputs {missing or self.inputs} to make a key of")
        digest = hash_objects({name: inputs[name] for name in self.inputs}, raise_on_failure=True)
        return f"imageport-{self.step}-v{self.version}-{digest}"


def is_retryable(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """Tell whether trying again may mend the failure: what the error itself says, nothing else.

    Once its run is being ended, a branch does not wait for another try.
    """
    # A persisted result stands in a record, anything else for itself.
    error = getattr(state.data, "result", state.data)
    may_help = isinstance(error, ImageportError) and error.retryable
    return may_help and not current_branch().ended()


RETRYING: dict[str, Any] = {
    "retries": len(RETRY_DELAYS_SECONDS),
    "retry_delay_seconds": RETRY_DELAYS_SECONDS,
    "retry_jitter_factor": RETRY_JITTER,
    "retry_condition_fn": is_retryable,
}
"""Options of every task that talks to a share or a cloud."""

REMEMBERED: dict[str, Any] = {"persist_result": True, "result_serializer": "json"}
"""Options of every task whose result a later run may take over: JSON, never pickle."""
