# References: XenServer Management API, "Wire protocol" and the classes VM, VBD, VDI, task.
"""The pool's database: records by class and reference, as they go over the wire.

Integers are strings there, times are XML-RPC's; a reference that leads nowhere is
``OpaqueRef:NULL``.
"""

from __future__ import annotations

import time
import uuid
from typing import Any, Final
from xmlrpc.client import DateTime

from imageport.sandbox.xenserver.failure import Failure

NULL: Final = "OpaqueRef:NULL"
Record = dict[str, Any]


class Records:
    """All objects of the pool; the caller holds the pool's lock."""

    def __init__(self) -> None:
        names = ("session", "task", "pool", "host", "VM", "VBD", "VDI", "SR", "PBD")
        self.classes: dict[str, dict[str, Record]] = {name: {} for name in names}

    def add(self, kind: str, **fields: Any) -> str:
        """Add an object and return its reference."""
        ref = f"OpaqueRef:{uuid.uuid4()}"
        self.classes[kind][ref] = {"uuid": str(uuid.uuid4()), **fields}
        return ref

    def get(self, kind: str, ref: str) -> Record:
        """Return the record itself; HANDLE_INVALID as xapi says it."""
        found = self.classes[kind].get(ref)
        if found is None:
            raise Failure("HANDLE_INVALID", kind, ref)
        return found

    def find(self, kind: str, ref: str) -> Record | None:
        """Return the record, or None."""
        return self.classes[kind].get(ref)

    def by_uuid(self, kind: str, value: str) -> str:
        """Return a reference; UUID_INVALID when no object has that uuid."""
        for ref, record in self.classes[kind].items():
            if record["uuid"] == value:
                return ref
        raise Failure("UUID_INVALID", kind, value)

    def remove(self, kind: str, ref: str) -> None:
        """Forget an object."""
        self.get(kind, ref)
        del self.classes[kind][ref]

    def all(self, kind: str) -> dict[str, Record]:
        """Return all objects of a class."""
        return self.classes[kind]


def now() -> DateTime:
    """Return the time as the wire has it: UTC, basic format with a Z."""
    return DateTime(time.strftime("%Y%m%dT%H:%M:%SZ", time.gmtime()))


LONG_AGO: Final = DateTime("19700101T00:00:00Z")
