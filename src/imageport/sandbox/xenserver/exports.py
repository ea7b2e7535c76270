# References: xapi-project/xen-api, ocaml/xapi: export_raw_vdi, importexport, xapi_http,
# attach_helpers.
"""``GET /export_raw_vdi``: what xapi checks, in its order, and how it sends a disk.

After ``200 OK`` nothing can be said by HTTP any more: what fails then fails the task, and the HTTP
server writes its error page into the body. The connection's end means nothing.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from imageport.sandbox.xenserver.api import Api, check_permission
from imageport.sandbox.xenserver.failure import Failure
from imageport.sandbox.xenserver.machines import Machines
from imageport.sandbox.xenserver.records import NULL, Record
from imageport.sandbox.xenserver.roles import EXPORT
from imageport.sandbox.xenserver.storage import (
    allocated_blocks,
    blocks_of,
    changed_blocks,
    pieces_of,
)
from imageport.sandbox.xenserver.vhd_layout import BITMAP, footer_of, head_of_stream

PATH = "/export_raw_vdi"
ERROR_PAGE = b"HTTP/1.1 500 Internal Error\r\ncontent-length:0\r\nconnection:close\r\n\r\n"
"""What the server writes when a handler raises, wherever in a body it is (xen-api #4603)."""
CONTENT_TYPES = {"raw": "application/octet-stream", "vhd": "application/vhd"}


class CutOff(Exception):
    """The connection ends here, by a knob."""


@dataclass
class Request:
    """What was asked for, by query and cookie."""

    query: dict[str, str]
    cookie: dict[str, str]

    def get(self, name: str) -> str:
        """Return a parameter wherever it stands; xapi looks into cookies first for the session."""
        return self.cookie.get(name) or self.query.get(name, "")


@dataclass
class Answer:
    """Status, headers and, for 200, the body."""

    status: HTTPStatus
    headers: list[tuple[str, str]]
    body: Iterator[bytes] = field(default_factory=lambda: iter(()))


class Exports:
    """Sends disks of one pool."""

    def __init__(self, api: Api, machines: Machines, lock: threading.RLock) -> None:
        self._api = api
        self._machines = machines
        self._records = machines.records
        self._knobs = machines.knobs
        self._lock = lock
        self.requests: list[dict[str, str]] = []
        """The queries so far, for tests."""

    def answer(self, request: Request, host: str) -> Answer:
        """Decide what a request on a host gets; the body is made while it is sent."""
        with self._lock:
            self.requests.append(dict(request.query))
            try:
                return self._checked(request, host)
            except Failure:
                return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, [])

    def _checked(self, request: Request, host: str) -> Answer:
        task = request.get("task_id")
        try:
            caller = self._api.session(request.get("session_id"))
        except Failure:
            self._machines.end_task(task, ["SESSION_AUTHENTICATION_FAILED"])
            return Answer(HTTPStatus.UNAUTHORIZED, [])
        try:
            check_permission(caller, EXPORT)
        except Failure as failure:
            self._machines.end_task(task, failure.description)
            return Answer(HTTPStatus.FORBIDDEN, [])
        vdi = self._disk(request.get("vdi"))
        address = self._elsewhere(vdi, host)
        if address:
            query = "&".join(f"{name}={value}" for name, value in request.query.items())
            location = f"https://{address}{PATH}?{query}"
            return Answer(HTTPStatus.FOUND, [("Location", location)])
        self._records.get("task", task)
        form = request.get("format") or "raw"
        if form not in CONTENT_TYPES:
            self._machines.end_task(task, ["INTERNAL_ERROR", f"Unknown format {form}"])
            return Answer(HTTPStatus.NOT_FOUND, [])
        headers = [
            ("task-id", task), ("content-type", CONTENT_TYPES[form]), ("connection", "close"),
            ("content-disposition",
             f'attachment; filename="{self._records.get("VDI", vdi)["uuid"]}.{form}"'),
        ]  # fmt: skip
        return Answer(HTTPStatus.OK, headers, self._sent(vdi, form, request.get("base"), task))

    def _disk(self, name: str) -> str:
        known = self._records.find("VDI", name)
        return name if known is not None else self._records.by_uuid("VDI", name)

    def _elsewhere(self, vdi: str, host: str) -> str:
        """Return the address of a host that sees the disk's storage; empty when this one does."""
        sr = self._records.get("VDI", vdi)["SR"]
        plugged = [
            pbd["host"]
            for pbd in self._records.all("PBD").values()
            if pbd["SR"] == sr and pbd["currently_attached"]
        ]
        if host in plugged:
            return ""
        if not plugged:
            raise Failure("SR_NOT_ATTACHED", sr)
        return str(self._records.get("host", plugged[0])["address"])

    def _sent(self, vdi: str, form: str, base: str, task: str) -> Iterator[bytes]:
        """Yield the body; complete the task before or after its end, as the knobs say."""
        attached: list[str] = []
        failure: list[str] = []
        try:
            yield from self._cut(self._content(vdi, form, base, task, attached))
            failure = self._knobs.failure_at_end
        except Failure as error:
            failure = error.description
            yield ERROR_PAGE
        except (CutOff, OSError, GeneratorExit):
            failure = ["INTERNAL_ERROR", "Subprocess exited with unexpected code 1; vhd-tool"]
            raise
        finally:
            self._end(task, attached, failure)

    def _end(self, task: str, attached: list[str], failure: list[str]) -> None:
        with self._lock:
            if not (failure and self._knobs.keeps_disk_attached):
                self._detach_in_time(attached)
            if self._knobs.endless_task and not failure:
                return
            delay = self._knobs.task_seconds
            if not delay or failure:
                self._machines.end_task(task, failure)
                return
        threading.Timer(delay, self._end_later, (task,)).start()

    def _detach_in_time(self, attached: list[str]) -> None:
        if not self._knobs.detach_seconds:
            self._detach(attached)
            return
        threading.Timer(self._knobs.detach_seconds, self._detach, (attached,)).start()

    def _end_later(self, task: str) -> None:
        with self._lock:
            self._machines.end_task(task)

    def _content(
        self, vdi: str, form: str, base: str, task: str, attached: list[str]
    ) -> Iterator[bytes]:
        record = self._records.get("VDI", vdi)
        size = int(record["virtual_size"])
        if form == "vhd" and size > self._knobs.largest_vhd_bytes:
            raise Failure("VDI_TOO_LARGE", vdi, str(self._knobs.largest_vhd_bytes))
        attached.append(self._attach(vdi, task))
        if self._knobs.failure_before_data:
            raise Failure(*self._knobs.failure_before_data)
        self._wait_while_silent(task)
        path = self._machines.disks.path(record["uuid"])
        earlier = self._base_of(base, task, attached)
        if form == "raw":
            yield from pieces_of(path)
        else:
            yield from self._vhd(path, size, earlier)
        yield bytes(self._knobs.trailing_bytes)

    def _base_of(self, base: str, task: str, attached: list[str]) -> Record | None:
        if not base:
            return None
        ref = self._disk(base)
        attached.append(self._attach(ref, task))
        return None if self._knobs.ignores_base else self._records.get("VDI", ref)

    def _vhd(self, path: Path, size: int, base: Record | None) -> Iterator[bytes]:
        footer = footer_of(size, differencing=base is not None)
        if base is None:
            blocks, parent = allocated_blocks(path), None
        else:
            blocks = changed_blocks(path, self._machines.disks.path(base["uuid"]))
            parent = uuid.UUID(base["uuid"])
        yield head_of_stream(footer, size, blocks, parent)
        for data in blocks_of(path, blocks):
            yield BITMAP
            yield data
        yield footer

    def _attach(self, vdi: str, task: str) -> str:
        """Plug the disk into the control domain, named for the task, as xapi does to read it."""
        with self._lock:
            machines = self._records.all("VM")
            control = next(ref for ref, vm in machines.items() if vm["is_control_domain"])
            fields = {
                "mode": "RO", "userdevice": "autodetect", "currently_attached": True,
                "other_config": {"task_id": task},
            }  # fmt: skip
            return self._machines.attach(control, vdi, fields)

    def _detach(self, attached: list[str]) -> None:
        caller: Record = {"permissions": [], "subject": NULL}
        with self._lock:
            for vbd in attached:
                if self._records.find("VBD", vbd) is None:
                    continue  # somebody tidied up
                if self._records.get("VBD", vbd)["currently_attached"]:
                    self._machines.unplug(caller, vbd)
                self._machines.destroy_attachment(caller, vbd)

    def _cut(self, body: Iterator[bytes]) -> Iterator[bytes]:
        with self._lock:
            limit = self._knobs.cuts.pop(0) if self._knobs.cuts else None
        sent = 0
        for data in body:
            if limit is not None and limit < sent + len(data):
                yield data[: limit - sent]
                raise CutOff
            sent += len(data)
            yield data

    def _wait_while_silent(self, task: str) -> None:
        while self._knobs.silent_before_data:
            record = self._records.find("task", task)
            if record is None or record["current_operations"]:
                raise Failure("TASK_CANCELLED", task)
            time.sleep(0.02)
