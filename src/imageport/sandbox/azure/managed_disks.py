# References: Azure REST API, Disks - Create Or Update, Update (2026-03-02); "DiskCreateOption".
"""Managed disks: made for an upload, from a snapshot or disk, or empty."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from imageport.model import GIB, MIB
from imageport.sandbox.azure.arm_body import (
    Members,
    check_location,
    check_members,
    check_name,
    check_tags,
    check_zones,
    one_of,
    whole_number,
)
from imageport.sandbox.azure.arm_errors import (
    ArmError,
    bad_parameter,
    change_not_allowed,
    not_allowed,
    required,
)
from imageport.sandbox.azure.arm_messages import ArmAnswer, ArmRequest
from imageport.sandbox.azure.disk_errors import DiskError
from imageport.sandbox.azure.disk_store import LARGEST_UPLOAD_BYTES, SMALLEST_UPLOAD_BYTES
from imageport.sandbox.azure.emulator import Emulator
from imageport.sandbox.azure.storage_bodies import (
    INHERITED,
    PROPERTIES,
    TOP,
    check_network_access,
    checked_properties,
    size_gb,
)
from imageport.sandbox.azure.storage_resources import DISK_OPERATIONS, busy, find, show

Json = dict[str, Any]
TYPE = "Microsoft.Compute/disks"
SKUS = (
    "Standard_LRS", "Premium_LRS", "StandardSSD_LRS", "UltraSSD_LRS", "Premium_ZRS",
    "StandardSSD_ZRS", "PremiumV2_LRS",
)  # fmt: skip
LARGEST_GB = 32767
FOOTER_BYTES = 512
BODY: Members = {
    **TOP,
    "zones": [None],
    "properties": {
        **PROPERTIES, "tier": None, "burstingEnabled": None, "maxShares": None,
        "diskIOPSReadWrite": None, "diskMBpsReadWrite": None, "optimizedForFrequentAttach": None,
        "LastOwnershipUpdateTime": None, "purchasePlan": None,
    },
}  # fmt: skip
UPDATABLE = (
    "osType", "diskSizeGB", "encryption", "networkAccessPolicy", "diskAccessId", "tier",
    "burstingEnabled", "supportedCapabilities", "supportsHibernation", "publicNetworkAccess",
    "dataAccessAuthMode", "optimizedForFrequentAttach", "maxShares",
)  # fmt: skip


def put(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer PUT: a new disk, or the same one again with other settings."""
    body = request.json()
    check_members(body, BODY, "Disk")
    check_name(request.name, "disk.name")
    existing = emulator.resources.get(request.key)
    location = check_location(body, TYPE, existing)
    properties = body.get("properties") or {}
    if existing is not None:
        return _change(emulator, request, existing, body)
    creation = properties.get("creationData")
    if not creation:
        raise required("disk.creationData")
    make = _maker(emulator, request, properties, body)
    kept = checked_properties(emulator, request, _inherit(emulator, creation, properties))
    document: Json = {
        "id": request.scope,
        "name": request.name,
        "type": TYPE,
        "location": location,
        "tags": check_tags(body.get("tags")),
        "sku": _sku(body),
        "properties": {
            **kept,
            "creationData": dict(creation),
            "uniqueId": str(uuid.uuid4()),
            "timeCreated": datetime.now(UTC).isoformat(),
        },
    }
    zones = check_zones(body)
    if zones:
        document["zones"] = zones
    return create(emulator, document, make)


def create(emulator: Emulator, document: Json, make: Callable[[], None]) -> ArmAnswer:
    """Keep a new disk or snapshot and make its bytes; the answer is the operation."""
    properties = document["properties"]
    properties["provisioningState"] = "Creating"
    emulator.resources.put(document)
    source = str(properties["creationData"].get("sourceResourceId") or "").lower()
    emulator.copying[source] += 1

    def work() -> None:
        try:
            make()
        finally:
            with emulator.lock:
                emulator.copying[source] -= 1

    def finish() -> None:
        properties["provisioningState"] = "Succeeded"
        properties.pop("completionPercent", None)
        if document["type"] != TYPE:
            properties["completionPercent"] = 100.0
        emulator.resources.put(document)

    def failed() -> None:
        properties["provisioningState"] = "Failed"
        emulator.resources.put(document)

    operation = emulator.begin(DISK_OPERATIONS, finish, failed, work)
    return ArmAnswer(202, show(emulator, document), operation)


def patch(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer PATCH: tags, sku and the properties that may change."""
    body = request.json()
    known: Members = {
        "tags": None,
        "sku": BODY["sku"],
        "properties": {name: BODY["properties"][name] for name in UPDATABLE},
    }
    check_members(body, known, "DiskUpdate")
    return _change(emulator, request, find(emulator, request), body)


def _change(emulator: Emulator, request: ArmRequest, existing: Json, body: Json) -> ArmAnswer:
    properties = body.get("properties") or {}
    if existing["properties"]["provisioningState"] in {"Creating", "Updating"}:
        # The same PUT again, while the first is still at work, changes nothing.
        if _same_creation(existing, properties):
            return ArmAnswer(
                202, show(emulator, existing), emulator.begin(DISK_OPERATIONS, lambda: None)
            )
        raise busy(str(existing["name"]))
    if existing["properties"]["provisioningState"] == "Deleting":
        raise busy(str(existing["name"]))
    if not _same_creation(existing, properties):
        raise change_not_allowed("creationData")
    if body.get("zones") and list(body["zones"]) != existing.get("zones", []):
        raise change_not_allowed("zones")
    generation = properties.get("hyperVGeneration")
    if generation and generation != existing["properties"].get("hyperVGeneration"):
        raise change_not_allowed("hyperVGeneration")
    changed = {name: properties[name] for name in UPDATABLE if properties.get(name) is not None}
    grown = changed.pop("diskSizeGB", None)
    if grown is not None:
        _check_growth(emulator, request, int(grown))
    checked_properties(emulator, request, {**existing["properties"], **changed})
    merged = {**existing["properties"], **changed}
    check_network_access(merged)
    existing["properties"].update(merged)
    if body.get("sku"):
        existing["sku"] = _sku(body)
    if "tags" in body:
        existing["tags"] = check_tags(body["tags"])
    emulator.resources.put(existing)
    return ArmAnswer(202, show(emulator, existing), emulator.begin(DISK_OPERATIONS, lambda: None))


def _same_creation(existing: Json, properties: Json) -> bool:
    asked = properties.get("creationData")
    if not asked:
        return True
    kept = existing["properties"]["creationData"]
    return all(
        str(asked[name]).lower() == str(kept.get(name)).lower()
        for name in asked
        if asked[name] is not None
    )


def _check_growth(emulator: Emulator, request: ArmRequest, size: int) -> None:
    now = size_gb(emulator.store.size_bytes(request.key))
    if size < now:
        raise bad_parameter("diskSizeGB", f"Shrinking from {now} GB to {size} GB is not possible.")
    if size > now:
        raise not_allowed("The sandbox does not resize disks.")


def _inherit(emulator: Emulator, creation: Json, properties: Json) -> Json:
    """Return the properties of a body with what a copy has of its source."""
    source = emulator.resources.get(str(creation.get("sourceResourceId") or ""))
    if source is None:
        return dict(properties)
    known = {name: source["properties"][name] for name in INHERITED if name in source["properties"]}
    generation = known.get("hyperVGeneration")
    asked = properties.get("hyperVGeneration")
    if generation and asked and asked != generation:
        text = f"The source has Hypervisor Generation '{generation}', '{asked}' was asked for."
        raise bad_parameter("disk.hyperVGeneration", text)
    return {**known, **{name: value for name, value in properties.items() if value is not None}}


def _maker(
    emulator: Emulator, request: ArmRequest, properties: Json, body: Json
) -> Callable[[], None]:
    """Check what a disk is to be made of; returns what makes it."""
    creation = properties["creationData"]
    option = one_of(
        creation.get("createOption"), ("Empty", "Copy", "Upload"), "disk.creationData.createOption"
    )
    if option == "Upload":
        return _upload(emulator, request.key, properties, _sku(body)["name"])
    if creation.get("uploadSizeBytes") is not None:
        text = f"uploadSizeBytes is not allowed when createOption is '{option}'."
        raise bad_parameter("disk.creationData.uploadSizeBytes", text)
    if option == "Copy":
        return _copy(emulator, request, properties)
    if creation.get("sourceResourceId"):
        text = "sourceResourceId is not allowed when createOption is 'Empty'."
        raise bad_parameter("disk.creationData.sourceResourceId", text)
    size = whole_number(properties.get("diskSizeGB"), "diskSizeGB", 1, LARGEST_GB)
    return lambda: emulator.store.create_empty(request.key, size * GIB)


def _upload(emulator: Emulator, key: str, properties: Json, sku: str) -> Callable[[], None]:
    creation = properties["creationData"]
    if creation.get("sourceResourceId"):
        text = "sourceResourceId is not allowed when createOption is 'Upload'."
        raise bad_parameter("disk.creationData.sourceResourceId", text)
    if properties.get("diskSizeGB") is not None:
        text = "diskSizeGB is not allowed when createOption is 'Upload'."
        raise bad_parameter("disk.diskSizeGB", text)
    target = "disk.creationData.uploadSizeBytes"
    if creation.get("uploadSizeBytes") is None:
        raise required(target)
    size = whole_number(
        creation["uploadSizeBytes"], target, SMALLEST_UPLOAD_BYTES, LARGEST_UPLOAD_BYTES
    )
    if (size - FOOTER_BYTES) % MIB:
        text = f"The value '{size}' of '{target}' is not a whole number of MiB plus 512 bytes."
        raise bad_parameter(target, text)
    return lambda: emulator.store.create_upload(key, size, sku)


def check_source(emulator: Emulator, request: ArmRequest, creation: Json, target: str) -> str:
    """Return the id of what is to be copied; refuses one that is not there or not whole."""
    source_id = str(creation.get("sourceResourceId") or "")
    if not source_id:
        raise required(target)
    kind = source_id.split("/")[-2].lower() if source_id.count("/") > 2 else ""
    if kind not in {"disks", "snapshots"}:
        text = f"The value '{source_id}' of parameter '{target}' is neither a disk nor a snapshot."
        raise bad_parameter(target, text)
    emulator.check_linked(request, f"Microsoft.Compute/{kind}/beginGetAccess/action", source_id)
    source = emulator.resources.get(source_id)
    if source is None:
        raise ArmError(404, "NotFound", f"{kind[:-1].title()} {source_id} is not found.")
    properties = source["properties"]
    if properties["provisioningState"] != "Succeeded" or (
        float(properties.get("completionPercent", 100)) < 100
    ):
        raise not_allowed(
            f"The source {source['name']} cannot be copied: it is in provisioning state "
            f"'{properties['provisioningState']}' or its own copy is not complete."
        )
    try:
        state = emulator.store.state(source_id.lower())
    except DiskError as error:
        raise ArmError(error.status, error.code, error.message) from error
    if state in {"ReadyToUpload", "ActiveUpload"}:
        raise not_allowed(f"Cannot copy disk {source['name']}: it is in the '{state}' state.")
    return source_id.lower()


def _copy(emulator: Emulator, request: ArmRequest, properties: Json) -> Callable[[], None]:
    target = "disk.creationData.sourceResourceId"
    source = check_source(emulator, request, properties["creationData"], target)
    least = emulator.store.size_bytes(source)
    size = least
    if properties.get("diskSizeGB") is not None:
        asked = whole_number(properties["diskSizeGB"], "diskSizeGB", 1, LARGEST_GB)
        if asked < size_gb(least):
            text = f"The size of {asked} GB is smaller than the source's {size_gb(least)} GB."
            raise bad_parameter("disk.diskSizeGB", text)
        size = max(least, asked * GIB) if asked > size_gb(least) else least
    return lambda: emulator.store.create_copy(request.key, source, size)


def _sku(body: Json) -> Json:
    asked = (body.get("sku") or {}).get("name")
    name = one_of(asked, SKUS, "disk.sku.name", "Standard_LRS")
    return {"name": name, "tier": name.split("_")[0].removesuffix("SSD").removesuffix("V2")}
