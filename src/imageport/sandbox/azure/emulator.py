"""What all parts of the emulated subscription share; one per process."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from imageport.sandbox.azure.arm_errors import ArmError, linked_forbidden
from imageport.sandbox.azure.arm_messages import ArmRequest
from imageport.sandbox.azure.call_record import CallRecord
from imageport.sandbox.azure.disk_errors import DiskError
from imageport.sandbox.azure.disk_store import DiskStore
from imageport.sandbox.azure.knobs import Knobs
from imageport.sandbox.azure.operations import Operation, Operations
from imageport.sandbox.azure.resource_table import ResourceTable
from imageport.sandbox.machines.hypervisor import Hypervisor

Result = TypeVar("Result")


class Emulator:
    """Resources, disks, machines, delays and faults behind the ARM face."""

    def __init__(self, root: Path, knobs: Knobs) -> None:
        self.root = root
        self.knobs = knobs
        self.lock = threading.RLock()
        self.store = DiskStore(root / "disks", knobs)
        self.resources = ResourceTable(root / "resources")
        self.operations = Operations(self.lock)
        self.hypervisor = Hypervisor(root / "machines", knobs, "azure")
        self.calls = CallRecord()
        self.copying: Counter[str] = Counter()
        """How many copies are being made of a disk or snapshot at this moment."""
        self.endpoint = ""
        """Where the process answers, once it does."""

    def begin(
        self,
        kind: str,
        finish: Callable[[], dict[str, Any] | None],
        failed: Callable[[], None] = lambda: None,
        work: Callable[[], None] | None = None,
    ) -> Operation:
        """Start a long-running operation that takes as long as any change of state.

        ``work`` is what takes time and holds nobody else up; ``finish`` runs under the lock.
        """

        def end() -> dict[str, Any] | None:
            if self.knobs.take("failed_operations"):
                text = "An internal execution error occurred. Please retry later."
                raise ArmError(500, "InternalExecutionError", text)
            return said_by_arm(finish)

        first = None if work is None else lambda: said_by_arm(work)
        return self.operations.begin(kind, self.knobs.state_seconds, end, failed, first)

    def check_linked(self, request: ArmRequest, action: str, scope: str) -> None:
        """Refuse a request when the credential lacks an action on something it refers to."""
        self.calls.record(action)
        if is_denied(self.knobs.denied, action):
            raise linked_forbidden((request.action, request.scope), action, scope)


def is_denied(denied: list[str], action: str) -> bool:
    """Tell whether an action was taken away; actions ignore case."""
    return action.lower() in {item.lower() for item in denied}


def said_by_arm(call: Callable[[], Result]) -> Result:
    """Return what ``call`` returns; what the disk store refuses is an ArmError."""
    try:
        return call()
    except DiskError as error:
        raise ArmError(error.status, error.code, error.message) from error
