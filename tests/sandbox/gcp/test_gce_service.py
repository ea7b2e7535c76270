"""The emulated Compute Engine as a service: who may ask, operations, faults, a restart."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
from google.cloud import compute_v1

from imageport.sandbox.gcp.access_boundary import AccessBoundary
from imageport.sandbox.gcp.account import (
    BUCKET,
    ENGINE_IMAGE,
    KMS_KEY,
    NETWORK,
    PROJECT,
    REGION,
    SUBNET,
    ZONE,
)
from tests.sandbox.gcp.gce_lab import PLACES, GceLab, refused

IMAGES = f"/compute/v1/projects/{PROJECT}/global/images"


def test_only_tokens_of_the_account_are_let_in(gce: GceLab):
    gcs = gce.gcs
    for header, status in (
        ("", 401), ("Bearer ya29.none", 401), ("Basic x", 401),
        (gcs.bearer("https://www.googleapis.com/auth/devstorage.read_write"), 403),
        (gcs.bearer("https://www.googleapis.com/auth/compute.readonly"), 200),
        (gcs.bearer("https://www.googleapis.com/auth/compute"), 200),
    ):  # fmt: skip
        assert gcs.ask("GET", IMAGES, b"", {"Authorization": header}).status == status
    reads = {"Authorization": gcs.bearer("https://www.googleapis.com/auth/compute.readonly")}
    assert gcs.ask("POST", IMAGES, b"{}", reads).status == 403


def test_a_token_for_a_bucket_alone_opens_nothing_here(gce: GceLab):
    rule = {
        "availableResource": f"//storage.googleapis.com/projects/_/buckets/{BUCKET}",
        "availablePermissions": ["inRole:roles/storage.objectCreator"],
    }
    token = gce.gcs.bearer().removeprefix("Bearer ")
    caller = gce.gcs.emulator.tokens.find(token)
    options = {"accessBoundary": {"accessBoundaryRules": [rule]}}
    boundary = AccessBoundary.read(options)
    narrow = gce.gcs.emulator.tokens.issue(caller.email, caller.scopes, 60, boundary)
    answer = gce.gcs.ask("GET", IMAGES, b"", {"Authorization": f"Bearer {narrow}"})
    assert (answer.status, answer.reason) == (403, "forbidden")


def begin(lab: GceLab, **given: Any) -> Any:
    body = {"name": lab.name("disk"), "size_gb": 1}
    return lab.client("Disks").insert_unary(PLACES["zone"] | {"disk_resource": body} | given)


def test_an_operation_runs_and_is_done_later(gce: GceLab):
    gce.knobs.state_seconds = 0.3
    operation = begin(gce)
    running = compute_v1.Operation.Status.RUNNING
    assert (operation.status, operation.progress, operation.operation_type) == (
        running,
        0,
        "insert",
    )
    name = operation.target_link.rsplit("/", 1)[-1]
    assert gce.ask("Disks", "get", disk=name).status == "CREATING"
    with refused(400, "resourceNotReady"):
        gce.ask("Disks", "delete", disk=name)
    done = gce.wait(operation)
    assert (done.status, done.progress) == (compute_v1.Operation.Status.DONE, 100)
    assert (done.name, done.id, done.target_id) == (
        operation.name, operation.id, operation.target_id,
    )  # fmt: skip
    assert operation.name in [item.name for item in gce.ask("ZoneOperations", "list")]
    with refused(404, "notFound"):
        gce.ask("ZoneOperations", "get", operation="operation-none")


def test_a_request_id_makes_a_request_once(gce: GceLab):
    asked = {
        "disk_resource": {"name": gce.name("disk"), "size_gb": 1}, "request_id": str(uuid.uuid4()),
    }  # fmt: skip
    first = begin(gce, **asked)
    assert begin(gce, **asked).name == first.name
    gce.wait(first)
    assert begin(gce, **asked).name == first.name
    with refused(400, "invalid", "was used for another request"):
        begin(gce, request_id=asked["request_id"])
    with refused(400, "invalid", "UUID"):
        begin(gce, request_id="again")


def test_a_change_with_a_request_id_is_made_once_however_its_subject_is_by_then(gce: GceLab):
    machine = gce.machine(gce.disk())
    found = gce.ask("Instances", "get", instance=machine)
    labels = {"labels": {"a": "b"}, "label_fingerprint": found.label_fingerprint}
    given = PLACES["zone"] | {
        "instance": machine, "request_id": str(uuid.uuid4()),
        "instances_set_labels_request_resource": labels,
    }  # fmt: skip
    calls = gce.client("Instances")
    first = calls.set_labels_unary(given, retry=None)
    # The fingerprint is an old one by now: the same request is no conflict.
    assert calls.set_labels_unary(given, retry=None).name == first.name
    named = PLACES["zone"] | {"instance": machine}
    with refused(400, "invalid", "was used for another request"):
        calls.stop_unary(named | {"request_id": given["request_id"]}, retry=None)
    for call in (calls.stop_unary, calls.delete_unary):
        asked = named | {"request_id": str(uuid.uuid4())}
        once = call(asked, retry=None)
        gce.wait(once)
        assert call(asked, retry=None).name == once.name


def test_lost_answers_and_failed_operations_are_what_they_say(gce: GceLab):
    gce.knobs.lost_answers = 1
    body = {"name": gce.name("disk"), "size_gb": 1}
    with refused(503, "backendError"):
        gce.ask("Disks", "insert", disk_resource=body)
    with refused(409, "alreadyExists"):
        gce.ask("Disks", "insert", disk_resource=body)
    for operation in gce.ask("ZoneOperations", "list"):
        gce.wait(operation)
    gce.knobs.failed_operations = 1
    body = {"name": gce.name("disk"), "size_gb": 1}
    done = gce.ask("Disks", "insert", disk_resource=body)
    assert [item.code for item in done.error.errors] == ["INTERNAL_ERROR"]
    assert done.http_error_status_code == 500
    gce.made("Disks", "insert", disk_resource=body)
    gce.knobs.failed_operations = 1
    assert gce.ask("Disks", "delete", disk=body["name"]).error.errors
    assert gce.ask("Disks", "get", disk=body["name"]).status == "READY"


def test_requests_fail_or_are_too_many_by_a_knob(gce: GceLab):
    gce.knobs.fault_rate = 1.0
    with refused(503, "backendError"):
        gce.ask("Images", "get", "global", image="imageport-engine")
    gce.knobs.fault_rate = 0.0
    gce.knobs.compute_requests_per_second = 1.0
    with refused(403, "rateLimitExceeded"):
        for _ in range(3):
            gce.ask("Images", "get", "global", image="imageport-engine")


@pytest.mark.parametrize(
    ("kind", "method", "place", "given", "permission"),
    [
        ("Images", "delete", "global", {"image": "x"}, "compute.images.delete"),
        ("Images", "list", "global", {}, "compute.images.list"),
        ("Disks", "get", "zone", {"disk": "x"}, "compute.disks.get"),
        ("Instances", "stop", "zone", {"instance": "x"}, "compute.instances.stop"),
        ("ZoneOperations", "get", "zone", {"operation": "x"}, "compute.zoneOperations.get"),
        ("Regions", "get", "region", {}, "compute.regions.get"),
    ],
)
def test_a_missing_permission_is_named_and_every_one_recorded(
    gce: GceLab, kind: str, method: str, place: str, given: dict[str, str], permission: str
):
    gce.knobs.denied = [permission]
    with refused(403, "forbidden", f"Required '{permission}' permission for 'projects/{PROJECT}"):
        gce.ask(kind, method, place, **given)
    assert permission in gce.gcs.emulator.calls.document()["permissions"]


def test_the_place_tells_what_it_offers_and_what_is_used(gce: GceLab):
    region = gce.ask("Regions", "get", "region")
    assert [item.rsplit("/", 1)[-1] for item in region.zones] == [f"{REGION}-{x}" for x in "abc"]
    gce.knobs.quotas = {"N2_CPUS": 8.0}
    before = {item.metric: item for item in gce.ask("Regions", "get", "region").quotas}
    machine = gce.machine()
    after = {item.metric: item for item in gce.ask("Regions", "get", "region").quotas}
    assert after["N2_CPUS"].limit == 8.0
    assert after["N2_CPUS"].usage == before["N2_CPUS"].usage + 2
    assert after["DISKS_TOTAL_GB"].usage == before["DISKS_TOTAL_GB"].usage + 10
    gce.made("Instances", "delete", instance=machine)
    project = gce.ask("Projects", "get", "global")
    assert {item.metric for item in project.quotas} >= {"IMAGES", "FIREWALLS"}
    kind = gce.ask("MachineTypes", "get", machine_type="n2-standard-2")
    assert (kind.guest_cpus, kind.architecture) == (2, "X86_64")
    assert gce.ask("DiskTypes", "get", disk_type="pd-balanced").name == "pd-balanced"
    assert gce.ask("Zones", "get").status == "UP"
    assert gce.ask("Networks", "get", "global", network="lab").self_link.endswith(NETWORK)
    subnet = gce.ask("Subnetworks", "get", "region", subnetwork="machines")
    assert (subnet.private_ip_google_access, subnet.network.endswith(NETWORK)) == (True, True)
    for kind_, given in (
        ("MachineTypes", {"machine_type": "x"}),
        ("DiskTypes", {"disk_type": "x"}),
    ):
        with refused(404, "notFound"):
            gce.ask(kind_, "get", **given)
    with refused(400, "invalid", "zone"):
        gce.client("Disks").list(project=PROJECT, zone="mars-a", retry=None)


def test_what_exists_is_as_a_knob_says(gce: GceLab):
    gce.knobs.resources = {
        SUBNET: {"privateIpGoogleAccess": False},
        f"projects/{PROJECT}/zones/{ZONE}": {"status": "DOWN"},
        KMS_KEY: {"purpose": "MAC"},
    }
    subnet = gce.ask("Subnetworks", "get", "region", subnetwork="machines")
    assert not subnet.private_ip_google_access
    assert gce.ask("Zones", "get").status == "DOWN"
    assert gce.gcs.ask("GET", f"/v1/{KMS_KEY}").json()["purpose"] == "MAC"


def test_permissions_are_tested_without_having_them(gce: GceLab):
    gce.knobs.denied = ["compute.disks.create"]
    wanted = ["compute.disks.create", "compute.disks.get"]
    body = str({"permissions": wanted}).replace("'", '"').encode()
    path = f"/v1/projects/{PROJECT}:testIamPermissions"
    assert gce.gcs.ask("POST", path, body).json() == {"permissions": wanted[1:]}
    assert gce.gcs.ask("POST", path.replace(PROJECT, "other-lab"), body).status == 403
    assert gce.gcs.ask("POST", path, b'{"permissions": ["no"]}').status == 400
    request = {"test_permissions_request_resource": {"permissions": wanted}}
    image = gce.ask(
        "Images", "test_iam_permissions", "global", resource="imageport-engine", **request
    )
    assert list(image.permissions) == wanted[1:]
    subnet = gce.ask(
        "Subnetworks", "test_iam_permissions", "region", resource="machines", **request
    )
    assert list(subnet.permissions) == wanted[1:]


def test_the_one_key_is_known(gce: GceLab):
    assert gce.gcs.ask("GET", f"/v1/{KMS_KEY}").json()["primary"]["state"] == "ENABLED"
    assert gce.gcs.ask("GET", f"/v1/{KMS_KEY}-none").status == 404
    gce.knobs.denied = ["cloudkms.cryptoKeys.get"]
    assert gce.gcs.ask("GET", f"/v1/{KMS_KEY}").status == 403


def test_disks_images_and_rules_outlive_the_process_and_machines_do_not(
    tmp_path: Path, gcp_keys: Path
):
    first = GceLab(tmp_path / "root", gcp_keys)
    disk = first.disk()
    name = disk.rsplit("/", 1)[-1]
    first.machine(disk)
    rule = first.rule("out", "a")
    body = first.image_body(source_disk=disk)
    first.ask("Images", "insert", "global", image_resource=body, force_create=True)
    first.knobs.state_seconds = 600.0
    half = begin(first).target_link.rsplit("/", 1)[-1]
    first.close()
    second = GceLab(tmp_path / "root", gcp_keys)
    try:
        assert list(second.ask("Instances", "list")) == []
        assert list(second.ask("Disks", "get", disk=name).users) == []
        assert second.ask("Images", "get", "global", image=body["name"]).status == "READY"
        assert second.ask("Firewalls", "get", "global", firewall=rule).name == rule
        with refused(404, "notFound"):
            second.ask("Disks", "get", disk=half)
        second.machine(disk)
        engine = ENGINE_IMAGE.rsplit("/", 1)[-1]
        listed = [item.name for item in second.ask("Images", "list", "global")]
        assert sorted(listed) == sorted([engine, body["name"]])
        files = {item.name for item in second.compute.folder.iterdir()}
        assert len([item for item in files if item.startswith("disk-")]) == 1
    finally:
        second.close()
