"""Snapshots of managed disks, and disks made from them."""

from __future__ import annotations

from typing import Any

import pytest

from imageport.sandbox.azure.account import LOCATION, RESOURCE_GROUP

MIB = 1 << 20
PAGE = b"imageport" + bytes(512 - 9)


def put(azure: Any, name: str, body: Any):
    return azure.compute.snapshots.begin_create_or_update(RESOURCE_GROUP, name, body)


def snapshot(azure: Any, name: str) -> dict[str, Any]:
    return dict(azure.compute.snapshots.get(RESOURCE_GROUP, name).as_dict())


def test_a_snapshot_keeps_the_moment_and_what_the_disk_was(azure: Any):
    capabilities = {"diskControllerTypes": "SCSI, NVMe"}
    disk = azure.disk({MIB: PAGE}, supportedCapabilities=capabilities)
    name = azure.snapshot(disk)
    found = snapshot(azure, name)["properties"]
    assert found["incremental"] is True
    assert found["completionPercent"] == 100
    assert (found["hyperVGeneration"], found["osType"]) == ("V2", "Windows")
    assert found["supportedCapabilities"] == capabilities
    assert (found["diskState"], found["diskSizeBytes"]) == ("Unattached", 64 * MIB)
    azure.compute.disks.begin_delete(RESOURCE_GROUP, disk).result()
    copy = azure.copy(name)
    with azure.path(copy).open("rb") as file:
        file.seek(MIB)
        assert file.read(512) == PAGE
    assert azure.compute.disks.get(RESOURCE_GROUP, copy).as_dict()["tags"] == {}


def test_snapshots_of_one_disk_are_a_family(azure: Any):
    disk = azure.disk()
    families = {
        snapshot(azure, azure.snapshot(disk))["properties"]["incrementalSnapshotFamilyId"]
        for _ in range(2)
    }
    other = snapshot(azure, azure.snapshot(azure.disk()))["properties"]
    assert len(families) == 1
    assert other["incrementalSnapshotFamilyId"] not in families


def test_a_disk_that_is_being_uploaded_is_not_copied(azure: Any, refused: Any):
    disk = azure.make_disk()
    for _ in range(2):
        code, _, status = refused(put, azure, "early", azure.snapshot_body(azure.disk_id(disk)))
        assert (code, status) == ("OperationNotAllowed", 409)
        azure.grant(disk)
    assert refused(azure.compute.snapshots.get, RESOURCE_GROUP, "early")[2] == 404


def test_a_snapshot_that_is_not_complete_makes_no_disk(azure: Any, refused: Any):
    disk = azure.disk()
    azure.service.turn(state_seconds=1.0)
    poller = put(azure, "slow", azure.snapshot_body(azure.disk_id(disk)))
    found = snapshot(azure, "slow")["properties"]
    assert found["provisioningState"] == "Creating"
    assert found["completionPercent"] == 0
    assert refused(azure.copy, "slow")[0] == "OperationNotAllowed"
    grant = azure.compute.snapshots.begin_grant_access
    wanted = {"access": "Read", "durationInSeconds": 600}
    assert refused(grant, RESOURCE_GROUP, "slow", wanted)[0] == "Conflict"
    poller.result()
    azure.service.turn(state_seconds=0.1)
    assert azure.copy("slow")


@pytest.mark.parametrize(
    ("creation", "code"),
    [
        ({"createOption": "Copy"}, "InvalidParameter"),
        ({"createOption": "Copy", "sourceResourceId": "/some/thing"}, "InvalidParameter"),
        ({"createOption": "Empty"}, "InvalidParameter"),
        ({"createOption": "Copy", "sourceResourceId": "/a/b/disks/none"}, "NotFound"),
    ],
)
def test_a_source_has_to_be_a_disk_or_snapshot(azure: Any, refused: Any, creation: Any, code: str):
    body = {"location": LOCATION, "properties": {"creationData": creation}}
    assert refused(put, azure, "nowhere", body)[0] == code


def test_the_same_put_again_takes_no_new_moment(azure: Any, refused: Any):
    first, second = azure.disk({MIB: PAGE}), azure.disk()
    name = azure.snapshot(first)
    before = snapshot(azure, name)["properties"]["uniqueId"]
    azure.snapshot(first, name)
    assert snapshot(azure, name)["properties"]["uniqueId"] == before
    code, _, _ = refused(put, azure, name, azure.snapshot_body(azure.disk_id(second)))
    assert code == "PropertyChangeNotAllowed"
    full = azure.snapshot_body(azure.disk_id(first), incremental=False)
    assert refused(put, azure, name, full)[0] == "PropertyChangeNotAllowed"


def test_a_snapshot_is_read_and_then_deleted(azure: Any, refused: Any):
    name = azure.snapshot(azure.disk())
    snapshots = azure.compute.snapshots
    wanted = {"access": "Read", "durationInSeconds": 600}
    granted = snapshots.begin_grant_access(RESOURCE_GROUP, name, wanted).result()
    assert "/md-" in granted.access_sas
    assert "/md-impexp-" not in granted.access_sas
    assert snapshot(azure, name)["properties"]["diskState"] == "ActiveSAS"
    assert refused(snapshots.begin_delete, RESOURCE_GROUP, name)[0] == "OperationNotAllowed"
    write = wanted | {"access": "Write"}
    assert refused(snapshots.begin_grant_access, RESOURCE_GROUP, name, write)[2] == 409
    snapshots.begin_revoke_access(RESOURCE_GROUP, name).result()
    snapshots.begin_delete(RESOURCE_GROUP, name).result()
    assert refused(snapshots.get, RESOURCE_GROUP, name)[:1] == ("ResourceNotFound",)


def test_a_copy_may_be_larger_and_never_smaller(azure: Any, refused: Any):
    creation = {"createOption": "Empty"}
    body = {"location": LOCATION, "properties": {"creationData": creation, "diskSizeGB": 2}}
    source = azure.make_disk(body=body)
    name = azure.snapshot(source)
    assert refused(azure.copy, name, diskSizeGB=1)[0] == "InvalidParameter"
    copy = azure.copy(name, diskSizeGB=3)
    assert azure.path(copy).stat().st_size == 3 << 30


def test_another_generation_than_the_sources_is_refused(azure: Any, refused: Any):
    name = azure.snapshot(azure.disk())
    code, message, _ = refused(azure.copy, name, hyperVGeneration="V1")
    assert code == "InvalidParameter"
    assert "V2" in message


def test_tags_of_a_snapshot_are_changed_by_patch(azure: Any):
    name = azure.snapshot(azure.disk())
    update = azure.compute.snapshots.begin_update
    update(RESOURCE_GROUP, name, {"tags": {"imageport:role": "parent"}}).result()
    assert snapshot(azure, name)["tags"] == {"imageport:role": "parent"}
    found = azure.compute.snapshots.list_by_resource_group(RESOURCE_GROUP)
    assert name in [item.name for item in found]
