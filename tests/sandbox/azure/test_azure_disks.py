"""Managed disks, driven by Microsoft's own client."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobClient

from imageport.sandbox.azure.account import (
    DISK_ACCESS_ID,
    DISK_ENCRYPTION_SET_ID,
    LOCATION,
    RESOURCE_GROUP,
)

MIB = 1 << 20
DISK = 64 * MIB
PAGE = b"imageport" + bytes(512 - 9)

PLATFORM_KEY_WITH_SET = {
    "type": "EncryptionAtRestWithPlatformKey",
    "diskEncryptionSetId": DISK_ENCRYPTION_SET_ID,
}


def put(azure: Any, name: str, body: Any):
    return azure.compute.disks.begin_create_or_update(RESOURCE_GROUP, name, body)


def properties(azure: Any, name: str) -> dict[str, Any]:
    return dict(azure.compute.disks.get(RESOURCE_GROUP, name).as_dict()["properties"])


def upload(size: Any, **creation: Any):
    return {"creationData": {"createOption": "Upload", "uploadSizeBytes": size} | creation}


def test_an_upload_goes_through_all_states(azure: Any):
    name = azure.make_disk()
    found = properties(azure, name)
    assert found["diskState"] == "ReadyToUpload"
    assert (found["diskSizeBytes"], found["diskSizeGB"]) == (DISK, 1)
    url = azure.grant(name)
    assert f"{azure.service.endpoint}/md-impexp-" in url
    assert azure.state(name) == "ActiveUpload"
    azure.upload(url, {MIB: PAGE})
    azure.revoke(name)
    assert azure.state(name) == "Unattached"
    with azure.path(name).open("rb") as file:
        file.seek(MIB)
        assert file.read(512) == PAGE
    with pytest.raises(HttpResponseError) as caught, BlobClient.from_blob_url(url) as blob:
        blob.upload_page(PAGE, offset=0, length=512)
    assert caught.value.status_code == 403


def test_an_upload_without_a_footer_fails_when_access_is_revoked(azure: Any, refused: Any):
    name = azure.make_disk()
    azure.grant(name)
    code, message, _ = refused(azure.revoke, name)
    assert code == "InvalidVhd"
    assert "conectix" in message
    azure.compute.disks.begin_delete(RESOURCE_GROUP, name).result()


@pytest.mark.parametrize(
    ("change", "target"),
    [
        (upload(20971519 + 512), "uploadSizeBytes"),
        (upload(DISK), "uploadSizeBytes"),
        (upload(None), "uploadSizeBytes"),
        (upload("67109376"), "uploadSizeBytes"),
        (upload(DISK + 512, sourceResourceId="/x/disks/y"), "sourceResourceId"),
        (upload(DISK + 512) | {"diskSizeGB": 1}, "diskSizeGB"),
        ({"creationData": {"createOption": "Restore"}}, "createOption"),
        ({"creationData": {"createOption": "Empty"}}, "diskSizeGB"),
        ({"creationData": {"createOption": "Empty"}, "diskSizeGB": 32768}, "diskSizeGB"),
        ({"creationData": {"createOption": "Copy"}}, "sourceResourceId"),
        ({"osType": "Plan9"}, "osType"),
        ({"hyperVGeneration": "V3"}, "hyperVGeneration"),
        ({"hyperVGeneration": "V1", "securityProfile": {"securityType": "TrustedLaunch"}}, "secur"),
        ({"supportedCapabilities": {"diskControllerTypes": "IDE"}}, "diskControllerTypes"),
        ({"networkAccessPolicy": "AllowPrivate"}, "diskAccessId"),
        ({"diskAccessId": DISK_ACCESS_ID}, "diskAccessId"),
        ({"encryption": {"type": "EncryptionAtRestWithCustomerKey"}}, "diskEncryptionSetId"),
        ({"encryption": PLATFORM_KEY_WITH_SET}, "encryption.type"),
    ],
)
def test_values_that_do_not_fit_are_refused(azure: Any, refused: Any, change: Any, target: str):
    name = f"bad-{uuid.uuid4().hex[:12]}"
    code, message, status = refused(put, azure, name, azure.disk_body(**change))
    assert (code, status) == ("InvalidParameter", 400)
    assert target in message
    assert refused(azure.compute.disks.get, RESOURCE_GROUP, name)[0] == "ResourceNotFound"


@pytest.mark.parametrize("name", ["a" * 81, "-front", "back-", "back.", "with space", "ümlaut"])
def test_names_that_break_the_rules_are_refused(azure: Any, refused: Any, name: str):
    assert refused(put, azure, name, azure.disk_body())[:1] == ("InvalidParameter",)


def test_a_name_of_eighty_characters_is_accepted(azure: Any):
    name = "d" * 79 + "_"
    assert azure.make_disk(name) == name
    azure.compute.disks.begin_delete(RESOURCE_GROUP, name).result()


def test_encryption_set_and_private_access_are_kept(azure: Any):
    encryption = {
        "type": "EncryptionAtRestWithCustomerKey",
        "diskEncryptionSetId": DISK_ENCRYPTION_SET_ID,
    }
    private = {"networkAccessPolicy": "AllowPrivate", "diskAccessId": DISK_ACCESS_ID}
    name = azure.make_disk(body=azure.disk_body(encryption=encryption, **private))
    found = properties(azure, name)
    assert found["encryption"] == encryption
    assert found["networkAccessPolicy"] == "AllowPrivate"
    assert found["diskAccessId"] == DISK_ACCESS_ID


def test_what_an_encryption_set_refers_to_has_to_exist(azure: Any, refused: Any):
    wrong = {
        "type": "EncryptionAtRestWithCustomerKey",
        "diskEncryptionSetId": f"{DISK_ENCRYPTION_SET_ID}x",
    }
    assert refused(put, azure, "des", azure.disk_body(encryption=wrong))[0] == "NotFound"
    azure.service.turn(denied=["Microsoft.Compute/diskEncryptionSets/read"])
    right = wrong | {"diskEncryptionSetId": DISK_ENCRYPTION_SET_ID}
    code, _, _ = refused(put, azure, "des", azure.disk_body(encryption=right))
    assert code == "LinkedAuthorizationFailed"


def test_no_access_is_granted_to_a_disk_that_denies_all(azure: Any, refused: Any):
    name = azure.make_disk(body=azure.disk_body(networkAccessPolicy="DenyAll"))
    assert refused(azure.grant, name)[0] == "OperationNotAllowed"


def test_the_same_put_again_is_the_same_disk(azure: Any, refused: Any):
    name = azure.make_disk()
    before = properties(azure, name)["uniqueId"]
    azure.make_disk(name)
    assert properties(azure, name)["uniqueId"] == before
    other = azure.disk_body(**upload(128 * MIB + 512))
    code, _, status = refused(put, azure, name, other)
    assert (code, status) == ("PropertyChangeNotAllowed", 409)


def test_a_disk_is_not_deleted_while_somebody_has_access(azure: Any, refused: Any):
    name = azure.disk()
    azure.grant(name, "Read")
    assert azure.state(name) == "ActiveSAS"
    delete = azure.compute.disks.begin_delete
    code, message, status = refused(delete, RESOURCE_GROUP, name)
    assert (code, status) == ("OperationNotAllowed", 409)
    assert "active shared access signature" in message
    azure.revoke(name)
    delete(RESOURCE_GROUP, name).result()
    assert not any(
        item.name == name for item in azure.compute.disks.list_by_resource_group(RESOURCE_GROUP)
    )


def test_deleting_what_is_not_there_is_no_error(azure: Any):
    path = azure.disk_id("never-was")
    assert azure.ask("DELETE", path, version="2026-03-02")[0] == 204
    azure.compute.disks.begin_delete(RESOURCE_GROUP, "never-was").result()


def test_access_is_granted_in_the_right_states_only(azure: Any, refused: Any):
    waiting = azure.make_disk()
    assert refused(azure.grant, waiting, "Read")[0] == "OperationNotAllowed"
    whole = azure.disk()
    assert refused(azure.grant, whole, "Write")[0] == "OperationNotAllowed"
    assert azure.grant(whole, "Read") == azure.grant(whole, "Read")
    azure.revoke(whole)
    azure.revoke(whole)  # nothing to end is no error


@pytest.mark.parametrize(
    "wanted",
    [
        {"access": "Read"},
        {"access": "Read", "durationInSeconds": 0},
        {"access": "Append", "durationInSeconds": 600},
        {"access": "Read", "durationInSeconds": 600, "fileFormat": "VHDX"},
    ],
)
def test_a_grant_that_makes_no_sense_is_refused(azure: Any, refused: Any, wanted: Any):
    name = azure.make_disk()
    call = azure.compute.disks.begin_grant_access
    assert refused(call, RESOURCE_GROUP, name, wanted)[:1] == ("InvalidParameter",)


def test_a_stuck_upload_is_revoked_at_last(azure: Any, refused: Any):
    name = azure.make_disk()
    azure.upload(azure.grant(name), {})
    azure.service.turn(stuck_upload=2)
    for _ in range(2):
        code, _, status = refused(azure.revoke, name)
        assert (code, status) == ("OperationNotAllowed", 409)
    azure.revoke(name)
    assert azure.state(name) == "Unattached"


def test_tags_and_access_policy_are_changed_by_patch(azure: Any, refused: Any):
    name = azure.make_disk()
    update = azure.compute.disks.begin_update
    shown = update(RESOURCE_GROUP, name, {"tags": {"imageport:expires": "later"}}).result()
    assert shown.as_dict()["tags"] == {"imageport:expires": "later"}
    change = {"properties": {"networkAccessPolicy": "DenyAll"}}
    update(RESOURCE_GROUP, name, change).result()
    assert properties(azure, name)["networkAccessPolicy"] == "DenyAll"
    assert azure.state(name) == "ReadyToUpload"
    raw = azure.ask(
        "PATCH", azure.disk_id(name), {"properties": {"creationData": {}}}, version="2026-03-02"
    )
    assert raw[1]["error"]["code"] == "BadRequest"
    missing = refused(update, RESOURCE_GROUP, "never-was", {"tags": {}})
    assert missing[0] == "ResourceNotFound"


def test_an_empty_disk_reads_as_zeros_and_costs_nothing(azure: Any):
    creation = {"createOption": "Empty"}
    body = {"location": LOCATION, "properties": {"creationData": creation, "diskSizeGB": 4}}
    name = azure.make_disk(body=body | {"zones": ["1"]})
    assert azure.path(name).stat().st_size == 4 << 30
    assert azure.path(name).stat().st_blocks == 0
    shown = azure.compute.disks.get(RESOURCE_GROUP, name).as_dict()
    assert (shown["zones"], shown["sku"]["name"]) == (["1"], "Standard_LRS")


def test_a_zone_that_does_not_exist_is_refused(azure: Any, refused: Any):
    body = azure.disk_body() | {"zones": ["4"]}
    assert refused(put, azure, "zone", body)[0] == "InvalidAvailabilityZone"


def test_a_list_comes_in_pages(own_azure: Any):
    azure = own_azure(state_seconds=0.0)
    names = [f"page-{number:03}" for number in range(53)]
    for name in names:
        azure.ask("PUT", azure.disk_id(name), azure.disk_body(), version="2026-03-02")
    found = [item.name for item in azure.compute.disks.list_by_resource_group(RESOURCE_GROUP)]
    assert found == names
    first = azure.ask("GET", azure.disk_id("").rstrip("/"), version="2026-03-02")[1]
    assert len(first["value"]) == 50
    assert "nextLink" in first
