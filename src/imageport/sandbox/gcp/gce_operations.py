# References: Compute Engine REST v1, "zoneOperations"; "Handling API responses".
"""Operations: what Compute Engine answers at once and finishes later."""

from __future__ import annotations

import secrets
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from imageport.sandbox.gcp.gce_messages import GceRefusal, Json, OperationFailure
from imageport.sandbox.gcp.gce_names import link, moment, new_id

LOOK_SECONDS: Final = 0.05
KEPT: Final = 5000
"""Finished operations are forgotten beyond these; Google keeps them for two weeks or so."""
DONE: Final = "DONE"


class NotYet(Exception):
    """Raised by the end of an operation that has to be tried again a moment later."""


@dataclass(frozen=True, slots=True)
class Work:
    """What an operation does."""

    finish: Callable[[], None]
    """Runs under the emulator's lock when the time is over; may raise `NotYet`."""
    failed: Callable[[], None] = lambda: None
    """Runs under the lock when the operation failed, to undo what it had begun."""
    before: Callable[[], None] | None = None
    """What takes time and holds nobody else up."""
    warnings: tuple[Json, ...] = ()
    """``code`` and ``message`` of each; the operation succeeds all the same."""


@dataclass(slots=True)
class Operation:
    """One operation."""

    place: str
    """``projects/P/zones/Z``, ``projects/P/global``."""
    kind: str
    """``insert``, ``delete``, ``compute.instances.guestTerminate``."""
    target: str
    """Path of the resource that it is about."""
    target_id: str
    user: str
    request_id: str = ""
    id: str = field(default_factory=new_id)
    started: float = field(default_factory=time.time)
    ended: float = 0.0
    error: OperationFailure | None = None
    warnings: tuple[Json, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        """Name it as Google does."""
        milliseconds = int(self.started * 1000)
        self.name = f"operation-{milliseconds}-{secrets.token_hex(7)}-{secrets.token_hex(4)}"

    @property
    def path(self) -> str:
        """Return where it can be asked for."""
        return f"{self.place}/operations/{self.name}"

    def document(self) -> Json:
        """Return it as clients see it."""
        found: Json = {
            "kind": "compute#operation",
            "id": self.id,
            "name": self.name,
            "operationType": self.kind,
            "targetLink": link(self.target),
            "targetId": self.target_id,
            "status": DONE if self.ended else "RUNNING",
            "progress": 100 if self.ended else 0,
            "user": self.user,
            "insertTime": moment(self.started),
            "startTime": moment(self.started),
            "selfLink": link(self.path),
        }
        for part in ("zone", "region"):
            if f"/{part}s/" in self.place:
                found[part] = link(self.place)
        if self.request_id:
            found["clientOperationId"] = self.request_id
        if self.ended:
            found["endTime"] = moment(self.ended)
        if self.warnings:
            found["warnings"] = list(self.warnings)
        if self.error is not None:
            one = {"code": self.error.code, "message": self.error.message}
            found["error"] = {"errors": [one]}
            found["httpErrorStatusCode"] = self.error.status
            found["httpErrorMessage"] = HTTPStatus(self.error.status).phrase.upper()
        return found


class Operations:
    """All operations of the process; each ends on a timer, under the emulator's lock."""

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._changed = threading.Condition(lock)
        self._all: dict[str, Operation] = {}

    def find(self, path: str) -> Operation | None:
        """Return one by its path."""
        return self._all.get(path)

    def of_place(self, place: str) -> Iterator[Operation]:
        """Yield those of a zone, a region or the project as a whole, the newest first."""
        yield from [item for item in reversed(list(self._all.values())) if item.place == place]

    def asked_before(self, request_id: str, kind: str, target: str) -> Operation | None:
        """Return the operation that an earlier request with this ``requestId`` began."""
        for item in self._all.values():
            if request_id and item.request_id == request_id:
                if (item.kind, item.target) != (kind, target):
                    text = f"The request ID '{request_id}' was used for another request."
                    raise GceRefusal(400, "invalid", text)
                return item
        return None

    def keep(self, operation: Operation) -> Operation:
        """Take an operation into the books."""
        with self._lock:
            self._all[operation.path] = operation
            for old in list(self._all)[:-KEPT]:
                del self._all[old]
        return operation

    def run(self, operation: Operation, seconds: float, work: Work) -> Operation:
        """Run ``work`` so that the operation takes at least so long."""
        operation.warnings = work.warnings
        self.keep(operation)

        def first() -> None:
            error = None
            try:
                if work.before is not None:
                    work.before()
            except Exception as found:
                error = found
            self._later(seconds, lambda: self._end(operation, work, error))

        threading.Thread(target=first, name=operation.name, daemon=True).start()
        return operation

    def wait(self, operation: Operation, seconds: float) -> None:
        """Wait until it is done, or so long; gives the lock back meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: bool(operation.ended), seconds)

    def _end(self, operation: Operation, work: Work, error: Exception | None) -> None:
        try:
            if error is not None:
                raise error
            work.finish()
        except NotYet:
            self._later(LOOK_SECONDS, lambda: self._end(operation, work, None))
            return
        except OperationFailure as failure:
            operation.error = failure
        except Exception:  # a defect of the emulator: said to the client instead of hanging it
            operation.error = OperationFailure(500, "INTERNAL_ERROR", traceback.format_exc())
        try:
            if operation.error is not None:
                work.failed()
        finally:
            operation.ended = time.time()
            self._changed.notify_all()

    def _later(self, seconds: float, call: Callable[[], Any]) -> None:
        def run() -> None:
            with self._lock:
                call()

        timer = threading.Timer(seconds, run)
        timer.daemon = True
        timer.start()
