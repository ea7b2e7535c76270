# References: Azure REST API, Disks and Snapshots: Get, List By Resource Group, Delete,
# Grant Access, Revoke Access; "DiskState".
"""What ARM does alike with disks and snapshots: show, list, delete, grant and revoke access."""

from __future__ import annotations

import copy
from typing import Any
from urllib.parse import quote

from imageport.sandbox.azure.arm_body import check_members, one_of, whole_number
from imageport.sandbox.azure.arm_errors import ArmError, not_allowed, not_found
from imageport.sandbox.azure.arm_messages import ArmAnswer, ArmRequest
from imageport.sandbox.azure.disk_errors import DiskError
from imageport.sandbox.azure.emulator import Emulator
from imageport.sandbox.azure.operations import NotYet
from imageport.sandbox.azure.storage_bodies import size_gb

Json = dict[str, Any]
PROVIDER = "Microsoft.Compute"
DISK_OPERATIONS = "Microsoft.Compute/DiskOperations"
LONGEST_ACCESS_SECONDS = 4294967295
"""``durationInSeconds`` is a 32 bit number; the service itself names no other limit."""
SHORTEST_ACCESS_SECONDS = 60
GRANT = ("access", "durationInSeconds", "getSecureVMGuestStateSAS", "fileFormat")
PAGE = 50
"""Entries of a list's page: small enough that a list of a busy group has several."""


def show(emulator: Emulator, document: Json) -> Json:
    """Return a disk or snapshot as ARM answers it."""
    shown = copy.deepcopy(document)
    properties = shown["properties"]
    key = str(shown["id"]).lower()
    holder = _holder(emulator, key)
    try:
        size_bytes = emulator.store.size_bytes(key)
        state = emulator.store.state(key)
    except DiskError:
        return shown  # its bytes are still being made
    properties["diskSizeBytes"] = size_bytes
    properties["diskSizeGB"] = size_gb(size_bytes)
    properties["diskState"] = state
    if holder is not None:
        shown["managedBy"] = holder["id"]
        if holder["imageport"]["power"] in {"deallocated", "deallocating"}:
            properties["diskState"] = "Reserved"
    return shown


def _holder(emulator: Emulator, key: str) -> Json | None:
    """Return the machine that a disk belongs to."""
    for machine in emulator.resources.of_type("Microsoft.Compute/virtualMachines"):
        if key in machine["imageport"]["disks"]:
            return machine
    return None


def find(emulator: Emulator, request: ArmRequest) -> Json:
    """Return the document of the resource that a request names."""
    document = emulator.resources.get(request.key)
    if document is None:
        raise not_found(request.scope)
    return document


def get(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer GET of a disk or snapshot."""
    return ArmAnswer(200, show(emulator, find(emulator, request)))


def list_group(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer GET of all disks or snapshots of a resource group, by pages."""
    kind = f"{PROVIDER}/{request.names['kind']}"
    found = [show(emulator, item) for item in emulator.resources.of_type(kind)]
    return page_of(emulator, request, found)


def page_of(emulator: Emulator, request: ArmRequest, found: list[Json]) -> ArmAnswer:
    """Return one page of a list, with the address of the next one."""
    start = int(request.query.get("$skiptoken") or 0)
    body: Json = {"value": found[start : start + PAGE]}
    if start + PAGE < len(found):
        version = quote(request.query["api-version"])
        body["nextLink"] = (
            f"{emulator.endpoint}{request.path}?api-version={version}&$skiptoken={start + PAGE}"
        )
    return ArmAnswer(200, body)


def delete(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer DELETE: refused while a machine or a grant has the disk."""
    document = emulator.resources.get(request.key)
    if document is None:
        return ArmAnswer(204)
    name = document["name"]
    holder = _holder(emulator, request.key)
    if holder is not None:
        raise not_allowed(f"Disk {name} is attached to VM {holder['id']}.")
    if _granted(emulator, request.key):
        raise not_allowed(
            f"There is an active shared access signature outstanding for disk {name}. Call "
            "EndGetAccess before deleting the disk. To learn more, visit: "
            "aka.ms/revokeaccessapi."
        )
    if document["properties"]["provisioningState"] in {"Creating", "Updating"}:
        raise busy(name)
    document["properties"]["provisioningState"] = "Deleting"
    emulator.resources.put(document)

    def finish() -> None:
        if emulator.copying[request.key]:
            raise NotYet
        if _has_bytes(emulator, request.key):
            emulator.store.delete(request.key)
        emulator.resources.drop(request.key)

    def failed() -> None:
        document["properties"]["provisioningState"] = "Failed"
        emulator.resources.put(document)

    operation = emulator.begin(DISK_OPERATIONS, finish, failed)
    return ArmAnswer(202, None, operation, final_state="location")


def _granted(emulator: Emulator, key: str) -> bool:
    """Tell whether somebody has access: an upload that was refused at its end has none."""
    return _has_bytes(emulator, key) and emulator.store.get(key).policy is not None


def _has_bytes(emulator: Emulator, key: str) -> bool:
    """Tell whether there is a disk behind the resource: making its bytes may have failed."""
    try:
        emulator.store.get(key)
    except DiskError:
        return False
    return True


def busy(name: str) -> ArmError:
    """Say that something else is going on with a disk."""
    text = (
        f"Another operation on disk or snapshot '{name}' is in progress. Retry after it has ended."
    )
    return ArmError(409, "Conflict", text)


def begin_get_access(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer beginGetAccess: the signed URL comes with the operation's end."""
    document = find(emulator, request)
    body = request.json()
    known = dict.fromkeys(GRANT)
    check_members(body, known, "GrantAccessData")
    access = one_of(body.get("access"), ("Read", "Write"), "access")
    seconds = whole_number(
        body.get("durationInSeconds"),
        "durationInSeconds",
        SHORTEST_ACCESS_SECONDS,
        LONGEST_ACCESS_SECONDS,
    )
    one_of(body.get("fileFormat"), ("VHD",), "fileFormat", "VHD")
    if body.get("getSecureVMGuestStateSAS"):
        text = "The disk has no security profile that keeps a guest state."
        raise ArmError(400, "BadRequest", text, target="getSecureVMGuestStateSAS")
    _check_grantable(emulator, document, access)

    def finish() -> Json:
        if emulator.resources.get(request.key) is None:
            raise not_found(request.scope)
        url = emulator.store.grant(request.key, access, seconds, emulator.endpoint)
        return {"accessSAS": url}

    operation = emulator.begin(DISK_OPERATIONS, finish)
    return ArmAnswer(202, None, operation, final_state="location")


def _check_grantable(emulator: Emulator, document: Json, access: str) -> None:
    name = document["name"]
    key = str(document["id"]).lower()
    if document["properties"]["provisioningState"] != "Succeeded":
        raise busy(name)
    if document["properties"].get("networkAccessPolicy") == "DenyAll":
        text = f"Access to disk {name} is not permitted: its network access policy is 'DenyAll'."
        raise not_allowed(text)
    if int(document["properties"].get("completionPercent", 100)) < 100:
        raise not_allowed(f"Access not permitted because the copy of {name} is not complete.")
    holder = _holder(emulator, key)
    if holder is not None:
        raise ArmError(
            409,
            "Conflict",
            f"Access not permitted because disk {name} is currently attached to running VM "
            f"{holder['id']}.",
        )
    state = emulator.store.state(key)
    allowed = {"Write": {"ReadyToUpload", "ActiveUpload"}, "Read": {"Unattached", "ActiveSAS"}}
    if state not in allowed[access]:
        raise not_allowed(
            f"{access} access is not permitted because disk {name} is in the '{state}' state."
        )


def end_get_access(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer endGetAccess; without a grant there is nothing to end, and no error."""
    find(emulator, request)
    refused: list[ArmError] = []
    try:
        emulator.store.revoke(request.key)
    except DiskError as error:
        refused.append(ArmError(error.status, error.code, error.message))
        if error.status == 409:
            raise refused[0] from error

    def finish() -> None:
        # A footer that is wrong is found by the operation, not by the request.
        if refused:
            raise refused[0]

    operation = emulator.begin(DISK_OPERATIONS, finish)
    return ArmAnswer(202, None, operation, final_state="location")
