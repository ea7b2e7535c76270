# References: Azure REST API, Snapshots - Create Or Update, Update (2026-03-02); "Create an
# incremental snapshot for managed disks".
"""Snapshots of managed disks: the bytes of a moment, full or incremental."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from imageport.sandbox.azure import managed_disks
from imageport.sandbox.azure.arm_body import (
    Members,
    check_location,
    check_members,
    check_name,
    check_tags,
    one_of,
)
from imageport.sandbox.azure.arm_errors import change_not_allowed, required
from imageport.sandbox.azure.arm_messages import ArmAnswer, ArmRequest
from imageport.sandbox.azure.emulator import Emulator
from imageport.sandbox.azure.storage_bodies import (
    INHERITED,
    PROPERTIES,
    TOP,
    check_network_access,
    checked_properties,
)
from imageport.sandbox.azure.storage_resources import DISK_OPERATIONS, busy, find, show

Json = dict[str, Any]
TYPE = "Microsoft.Compute/snapshots"
SKUS = ("Standard_LRS", "Premium_LRS", "Standard_ZRS")
BODY: Members = {
    **TOP,
    "properties": {
        **PROPERTIES, "incremental": None, "incrementalSnapshotFamilyId": None,
        "copyCompletionError": None, "snapshotAccessState": None,
    },
}  # fmt: skip
UPDATABLE = (
    "osType", "encryption", "networkAccessPolicy", "diskAccessId", "supportedCapabilities",
    "supportsHibernation", "publicNetworkAccess", "dataAccessAuthMode",
)  # fmt: skip


def put(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer PUT: a new snapshot, or the same one again; its bytes are never taken anew."""
    body = request.json()
    check_members(body, BODY, "Snapshot")
    check_name(request.name, "snapshot.name")
    existing = emulator.resources.get(request.key)
    location = check_location(body, TYPE, existing)
    if existing is not None:
        return _change(emulator, request, existing, body)
    properties = body.get("properties") or {}
    creation = properties.get("creationData")
    if not creation:
        raise required("snapshot.creationData")
    one_of(creation.get("createOption"), ("Copy",), "snapshot.creationData.createOption")
    target = "snapshot.creationData.sourceResourceId"
    source_id = managed_disks.check_source(emulator, request, creation, target)
    source = emulator.resources.get(source_id) or {}
    known = {name: source["properties"][name] for name in INHERITED if name in source["properties"]}
    kept = checked_properties(emulator, request, {**known, **properties})
    incremental = bool(properties.get("incremental"))
    document: Json = {
        "id": request.scope,
        "name": request.name,
        "type": TYPE,
        "location": location,
        "tags": check_tags(body.get("tags")),
        "sku": _sku(body),
        "properties": {
            **kept,
            "creationData": {
                **creation, "sourceUniqueId": source["properties"]["uniqueId"],
            },
            "incremental": incremental,
            "completionPercent": 0.0,
            "uniqueId": str(uuid.uuid4()),
            "timeCreated": datetime.now(UTC).isoformat(),
        },
    }  # fmt: skip
    if incremental:
        family = uuid.uuid5(uuid.NAMESPACE_URL, str(source["properties"]["uniqueId"]))
        document["properties"]["incrementalSnapshotFamilyId"] = str(family)
    return managed_disks.create(
        emulator, document, lambda: emulator.store.snapshot(request.key, source_id)
    )


def patch(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer PATCH: tags and the properties that may change."""
    body = request.json()
    known: Members = {
        "tags": None,
        "sku": BODY["sku"],
        "properties": {name: BODY["properties"][name] for name in UPDATABLE},
    }
    check_members(body, known, "SnapshotUpdate")
    return _change(emulator, request, find(emulator, request), body)


def _change(emulator: Emulator, request: ArmRequest, existing: Json, body: Json) -> ArmAnswer:
    properties = body.get("properties") or {}
    asked = properties.get("creationData") or {}
    kept = existing["properties"]["creationData"]
    if existing["properties"]["provisioningState"] == "Deleting":
        raise busy(str(existing["name"]))
    for name, value in asked.items():
        if value is not None and str(value).lower() != str(kept.get(name)).lower():
            raise change_not_allowed(f"creationData.{name}")
    incremental = properties.get("incremental")
    if incremental is not None and bool(incremental) != existing["properties"]["incremental"]:
        raise change_not_allowed("incremental")
    changed = {name: properties[name] for name in UPDATABLE if properties.get(name) is not None}
    merged = {**existing["properties"], **changed}
    checked_properties(emulator, request, merged)
    check_network_access(merged)
    # In place: an operation may still be about to end in it.
    existing["properties"].update(merged)
    if "tags" in body:
        existing["tags"] = check_tags(body["tags"])
    emulator.resources.put(existing)
    return ArmAnswer(202, show(emulator, existing), emulator.begin(DISK_OPERATIONS, lambda: None))


def _sku(body: Json) -> Json:
    asked = (body.get("sku") or {}).get("name")
    name = one_of(asked, SKUS, "snapshot.sku.name", "Standard_LRS")
    return {"name": name, "tier": name.split("_")[0]}
