# References: Azure Resource Manager, "Track asynchronous Azure operations"; ARM RPC, "Async API".
"""Long-running operations: what answers 202 now and is finished later."""

from __future__ import annotations

import threading
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from imageport.sandbox.azure.arm_errors import ArmError

LOOK_SECONDS = 0.1
KEPT = 5000
"""Finished operations are forgotten beyond these; Azure keeps them for a day or so."""


Finish = Callable[[], dict[str, Any] | None]


class NotYet(Exception):
    """Raised by the end of an operation that has to be tried again a moment later."""


@dataclass(slots=True)
class Operation:
    """One operation; ``result`` is what it answers in the end, if anything."""

    id: str
    kind: str
    """Provider and collection, ``Microsoft.Compute/operations``: where its address is."""
    started: float = field(default_factory=time.time)
    ended: float = 0.0
    status: str = "InProgress"
    result: dict[str, Any] | None = None
    error: ArmError | None = None

    def document(self) -> dict[str, Any]:
        """Return what its ``Azure-AsyncOperation`` address answers."""
        found: dict[str, Any] = {
            "name": self.id, "status": self.status, "startTime": _iso(self.started),
        }  # fmt: skip
        if self.ended:
            found["endTime"] = _iso(self.ended)
        if self.error is not None:
            found["error"] = self.error.document()
        if self.result is not None:
            found["properties"] = {"output": self.result}
        return found


class Operations:
    """All operations of the process; each ends on a timer, under the emulator's lock."""

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._all: dict[str, Operation] = {}

    def find(self, operation_id: str) -> Operation | None:
        """Return one by its id."""
        with self._lock:
            return self._all.get(operation_id)

    def begin(
        self,
        kind: str,
        seconds: float,
        finish: Finish,
        failed: Callable[[], None],
        work: Callable[[], None] | None = None,
    ) -> Operation:
        """Run ``work``, then after ``seconds`` ``finish``; an ArmError of either is ``Failed``."""
        operation = Operation(str(uuid.uuid4()), kind)
        with self._lock:
            self._all[operation.id] = operation
            for old in list(self._all)[:-KEPT]:
                del self._all[old]

        def run() -> None:
            error = None
            try:
                if work is not None:
                    work()
            except Exception as found:
                error = found
            self._later(seconds, lambda: self._end(operation, finish, failed, error))

        threading.Thread(target=run, name=f"operation-{operation.id}", daemon=True).start()
        return operation

    def _end(
        self,
        operation: Operation,
        finish: Finish,
        failed: Callable[[], None],
        error: Exception | None,
    ) -> None:
        try:
            if error is not None:
                raise error
            operation.result = finish()
        except NotYet:
            self._later(LOOK_SECONDS, lambda: self._end(operation, finish, failed, None))
            return
        except ArmError as refused:
            operation.error = refused
        except Exception:  # a defect of the emulator: said to the client instead of hanging it
            operation.error = ArmError(500, "InternalServerError", traceback.format_exc())
        try:
            if operation.error is not None:
                failed()
        finally:
            operation.ended = time.time()
            operation.status = "Succeeded" if operation.error is None else "Failed"

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        def run() -> None:
            with self._lock:
                call()

        timer = threading.Timer(seconds, run)
        timer.daemon = True
        timer.start()


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()
