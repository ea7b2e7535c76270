"""What all parts of the emulated Compute Engine share; one per process."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from imageport.sandbox.gcp.account import KMS_KEY
from imageport.sandbox.gcp.emulator import Emulator
from imageport.sandbox.gcp.gce_messages import (
    GceRefusal,
    GceRequest,
    Json,
    OperationFailure,
    forbidden,
    invalid,
)
from imageport.sandbox.gcp.gce_names import link, moment, name_of, new_fingerprint, new_id
from imageport.sandbox.gcp.gce_operations import Operation, Operations, Work
from imageport.sandbox.gcp.gce_table import PRIVATE, ResourceTable

FILE: Final = "file"
"""Member of what is private of a disk or image: the name of the file with its bytes."""
SYSTEM: Final = "system"
"""Who begins operations that nobody asked for."""


class Compute:
    """Resources, operations and files; everything here is called under the emulator's lock."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.knobs = emulator.knobs
        self.lock = emulator.lock
        self.folder = emulator.root / "compute"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.table = ResourceTable(emulator.root / "resources")
        self.operations = Operations(emulator.lock)
        self.hypervisor = emulator.hypervisor

    def check(self, permission: str, path: str) -> None:
        """Refuse with 403 when the account lacks a permission; it is recorded as needed."""
        self.emulator.calls.record(permission)
        if permission in self.knobs.denied:
            raise forbidden(permission, path)

    def is_read(self, path: str) -> bool:
        """Tell whether a disk or image is being copied to another at this moment."""
        source = link(path)
        return any(
            source in (item.get("sourceImage"), item.get("sourceDisk"))
            for kind, status in (("disks", "CREATING"), ("images", "PENDING"))
            for _, item in self.table.of_type(kind)
            if item["status"] == status
        )

    def file(self, document: Json) -> Path:
        """Return where the bytes of a disk or image are."""
        return self.folder / str(document[PRIVATE][FILE])

    def begin(self, request: GceRequest, kind: str, path: str, work: Work) -> Operation:
        """Begin an operation that takes as long as any change of state."""
        place = "/".join(path.split("/")[:-2])
        target_id = str((self.table.get(path) or {}).get("id", "0"))
        operation = Operation(
            place, kind, path, target_id, request.user, request.fields.get("requestId", "")
        )
        changed = replace(work, finish=self._failing(work.finish))
        return self.operations.run(operation, self.knobs.state_seconds, changed)

    def again(self, request: GceRequest, kind: str, path: str) -> Operation | None:
        """Return the operation that an earlier request with the same ``requestId`` began."""
        request_id = str(request.fields.get("requestId", ""))
        if request_id:
            _check_request_id(request_id)
        return self.operations.asked_before(request_id, kind, path)

    def new(self, kind: str, path: str, body: Json) -> Json:
        """Return the document of a new resource, with what Google adds to each."""
        return {
            **body,
            "kind": f"compute#{kind}",
            "id": new_id(),
            "name": name_of(path),
            "creationTimestamp": moment(self.emulator.now()),
            "selfLink": link(path),
            "labelFingerprint": new_fingerprint(),
            PRIVATE: {},
        }

    def _failing(self, finish: Callable[[], None]) -> Callable[[], None]:
        def end() -> None:
            if self.knobs.take("failed_operations"):
                text = "Internal error. Please try again or contact Google Support."
                raise OperationFailure(500, "INTERNAL_ERROR", text)
            finish()

        return end


def _check_request_id(request_id: str) -> None:
    try:
        good = uuid.UUID(request_id).int != 0
    except ValueError:
        good = False
    if not good:
        raise invalid("requestId", request_id, "Must be a valid UUID, and not all zeros.")


def check_key(key: Json, path: str) -> Json:
    """Return an encryption key as Google shows it: with the version that it took.

    Raises:
        GceRefusal: there is no such key, or the account of Compute Engine may not use it.
    """
    name = str(key.get("kmsKeyName", ""))
    bare, _, version = name.partition("/cryptoKeyVersions/")
    if set(key) - {"kmsKeyName", "kmsKeyServiceAccount"}:
        text = "The sandbox takes keys of Cloud KMS alone."
        raise GceRefusal(400, "invalid", f"Cannot encrypt '{path}': {text}")
    if bare != KMS_KEY:
        text = (
            f"Cloud KMS Error when using key {name}: Permission "
            f"'cloudkms.cryptoKeyVersions.useToEncrypt' denied on resource '{name}' (or it may not "
            "exist)."
        )
        raise GceRefusal(400, "invalid", text)
    return {"kmsKeyName": f"{bare}/cryptoKeyVersions/{version or 1}"}
