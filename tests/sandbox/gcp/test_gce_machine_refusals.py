"""What no machine of the emulated Compute Engine is made of, and that nothing is left then."""

from __future__ import annotations

from typing import Any

import pytest

from imageport.sandbox.gcp.account import ENGINE_IMAGE, SERVICE_ACCOUNT, SUBNET, ZONE
from tests.sandbox.gcp.gce_lab import MACHINE_TYPES, GceLab, refused

BOOT = {"boot": True, "auto_delete": True, "initialize_params": {"source_image": ENGINE_IMAGE}}
TYPES = f"zones/{ZONE}/diskTypes"
Case = tuple[dict[str, Any], int, str, str]


def disks(*more: dict[str, Any], boot: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"disks": [BOOT if boot is None else boot, *more]}


def params(**facts: Any) -> dict[str, Any]:
    return BOOT | {"initialize_params": {"source_image": ENGINE_IMAGE, **facts}}


def interface(**facts: Any) -> dict[str, Any]:
    return {"network_interfaces": [{"subnetwork": SUBNET, **facts}]}


def limited(**facts: Any) -> dict[str, Any]:
    return {"scheduling": facts}


def typed(name: str) -> dict[str, Any]:
    return {"machine_type": f"{MACHINE_TYPES}/{name}"}


REFUSED: dict[str, Case] = {
    "name": ({"name": "Upper"}, 400, "invalid", "regex"),
    "no machine type": ({"machine_type": ""}, 400, "required", "machineType"),
    "unknown machine type": (typed("n2-huge"), 400, "invalid", "does not exist in zone"),
    "machine type of another zone": ({"machine_type": "zones/us-east1-b/machineTypes/e2-medium"},
        400, "invalid", "has to be in zones/"),
    "machine type by its bare name": ({"machine_type": "e2-medium"}, 400, "invalid", "malformed"),
    "no disks": ({"disks": []}, 400, "invalid", "Boot disk must be the first"),
    "boot disk second": ({"disks": [{"source": "DISK"}, BOOT]}, 400, "invalid", "must be the"),
    "two boot disks": (disks({"source": "DISK", "boot": True}), 400, "invalid", "Only one boot"),
    "a disk that is not there": (disks({"source": f"zones/{ZONE}/disks/none"}),
        400, "invalid", "cannot be found"),
    "a disk twice": (disks({"source": "DISK"}, {"source": "DISK"}), 400, "invalid", "once"),
    "a new disk of another's name": (disks(
        {"initialize_params": {"source_image": ENGINE_IMAGE, "disk_name": "same"}},
        boot=params(disk_name="same")), 400, "invalid", "once"),
    "new disks beyond a quota together": (disks(*[
        {"initialize_params": {"disk_size_gb": 1500, "disk_type": f"{TYPES}/pd-standard"}}] * 3),
        403, "quotaExceeded", "DISKS_TOTAL_GB"),
    "a device name twice": (disks({"source": "DISK", "device_name": "persistent-disk-0"}),
        400, "invalid", "unique"),
    "a device name that is none": (disks({"source": "DISK", "device_name": "A b"}),
        400, "invalid", "regex"),
    "a mode that is none": (disks({"source": "DISK", "mode": "MAYBE"}), 400, "invalid", "mode"),
    "a boot disk to read": (disks(boot={"source": "DISK", "boot": True, "mode": "READ_ONLY"}),
        400, "invalid", "mode"),
    "another interface": (disks({"source": "DISK", "interface": "NVME"}), 400, "invalid", "SCSI"),
    "source and parameters": (disks(boot=BOOT | {"source": "DISK"}), 400, "invalid", "exclude"),
    "no such image": (disks(boot=params(source_image="global/images/none")),
        404, "notFound", "images/none"),
    "an image too large": (disks(boot=params(disk_size_gb=5)), 400, "invalid", "smaller than"),
    "a disk type it cannot have": (disks(boot=params(disk_type=f"{TYPES}/hyperdisk-balanced")),
        400, "badRequest", "not compatible"),
    "a disk type that its series lost": (
        typed("n4-standard-2") | disks(boot=params(disk_type=f"{TYPES}/pd-balanced")),
        400, "badRequest", "not compatible"),
    "no interface": ({"network_interfaces": []}, 400, "invalid", "At least one"),
    "no subnet": ({"network_interfaces": [{}]}, 400, "invalid", "custom subnet mode"),
    "unknown subnet": (interface(subnetwork=f"{SUBNET}-none"), 400, "invalid", "cannot be found"),
    "adapter": (interface(nic_type="MAGIC"), 400, "invalid", "nicType"),
    "an adapter that its series lost": (
        typed("c3-standard-4") | interface(nic_type="VIRTIO_NET")
        | disks(boot=params(disk_type=f"{TYPES}/pd-ssd")), 400, "badRequest", "not compatible"),
    "gVNIC without a driver": (
        interface(nic_type="GVNIC") | disks(boot={"source": "BARE", "boot": True}),
        400, "invalid", "does not support gVNIC"),
    "secure boot without UEFI": (
        {"shielded_instance_config": {"enable_secure_boot": True}}
        | disks(boot={"source": "BARE", "boot": True}), 400, "invalid", "UEFI-compatible"),
    "another architecture": (
        typed("t2a-standard-1") | disks(boot=params(disk_type=f"{TYPES}/pd-ssd")),
        400, "invalid", "architecture"),
    "tag": ({"tags": {"items": ["A_b"]}}, 400, "invalid", "network tag"),
    "metadata twice": ({"metadata": {"items": [{"key": "a", "value": "1"}] * 2}},
        400, "invalid", "unique"),
    "a metadata key that is none": ({"metadata": {"items": [{"key": "a b", "value": "1"}]}},
        400, "invalid", "regex"),
    "metadata too large": ({"metadata": {"items": [{"key": "a", "value": "x" * 262145}]}},
        400, "invalid", "262144"),
    "a run too short": (limited(max_run_duration={"seconds": 29}), 400, "invalid", "from 30"),
    "an end without a limit": (limited(instance_termination_action="STOP"), 400, "invalid", "Only"),
    "an unknown end": (
        limited(max_run_duration={"seconds": 60}, instance_termination_action="EXPLODE"),
        400, "invalid", "Unknown action"),
    "labels": ({"labels": {"UP": "x"}}, 400, "invalid", "labels"),
    "more than the sandbox can": ({"min_cpu_platform": "x"}, 400, "invalid", "minCpuPlatform"),
}  # fmt: skip


def filled(body: Any, paths: dict[str, str]) -> Any:
    """Put the paths of disks that exist in the place of their words."""
    if isinstance(body, dict):
        return {key: filled(value, paths) for key, value in body.items()}
    if isinstance(body, list):
        return [filled(item, paths) for item in body]
    return paths.get(body, body) if isinstance(body, str) else body


@pytest.fixture(scope="module")
def paths(gce_service: GceLab) -> dict[str, str]:
    return {"DISK": gce_service.disk(), "BARE": gce_service.disk(guest_os_features=[])}


@pytest.mark.parametrize("case", REFUSED)
def test_a_body_that_makes_no_machine_is_refused_whole(
    gce: GceLab, paths: dict[str, str], case: str
):
    facts, status, reason, text = REFUSED[case]
    body = filled(gce.machine_body() | facts, paths)
    before = sorted(item.name for item in gce.ask("Disks", "list"))
    with refused(status, reason, text):
        gce.ask("Instances", "insert", instance_resource=body)
    assert sorted(item.name for item in gce.ask("Disks", "list")) == before
    assert body["name"] not in [item.name for item in gce.ask("Instances", "list")]


def test_a_disk_is_written_by_one_machine_and_read_by_many(gce: GceLab):
    shared, taken = gce.disk(), gce.disk()
    first = gce.machine(disks=[BOOT, {"source": taken}, {"source": shared, "mode": "READ_ONLY"}])
    body = gce.machine_body(disks=[BOOT, {"source": shared, "mode": "READ_ONLY"}])
    gce.made("Instances", "insert", instance_resource=body)
    for disk in ({"source": taken, "mode": "READ_ONLY"}, {"source": shared}, {"source": taken}):
        again = gce.machine_body(disks=[BOOT, disk])
        with refused(400, "resourceInUseByAnotherResource", f"instances/{first}"):
            gce.ask("Instances", "insert", instance_resource=again)


PERMISSIONS: dict[str, tuple[dict[str, Any], str]] = {
    "compute.instances.create": ({}, "instances/"),
    "compute.disks.create": ({}, "disks/"),
    "compute.images.useReadOnly": ({}, ENGINE_IMAGE),
    "compute.subnetworks.use": ({}, SUBNET),
    "compute.subnetworks.useExternalIp": (interface(access_configs=[{"name": "x"}]), SUBNET),
    "compute.disks.use": (disks({"source": "DISK"}), "disks/"),
    "compute.disks.useReadOnly": (disks({"source": "DISK", "mode": "READ_ONLY"}), "disks/"),
    "compute.instances.setLabels": ({"labels": {"a": "b"}}, "instances/"),
    "compute.instances.setTags": ({"tags": {"items": ["a"]}}, "instances/"),
    "compute.instances.setMetadata": (
        {"metadata": {"items": [{"key": "a", "value": "b"}]}}, "instances/"),
    "iam.serviceAccounts.actAs": (
        {"service_accounts": [{"email": SERVICE_ACCOUNT}]}, SERVICE_ACCOUNT),
}  # fmt: skip


@pytest.mark.parametrize("permission", PERMISSIONS)
def test_everything_that_a_machine_uses_needs_its_permission(
    gce: GceLab, paths: dict[str, str], permission: str
):
    facts, subject = PERMISSIONS[permission]
    body = filled(gce.machine_body() | facts, paths)
    gce.knobs.denied = [permission]
    with refused(403, "forbidden", f"Required '{permission}' permission for '") as caught:
        gce.ask("Instances", "insert", instance_resource=body)
    assert subject in str(caught.value)
    assert permission in gce.gcs.emulator.calls.document()["permissions"]


SHORTAGES: dict[str, tuple[dict[str, Any], str, int]] = {
    "room": ({"missing_machine_types": ["n2-standard-2"]}, "ZONE_RESOURCE_POOL_EXHAUSTED", 503),
    "vCPUs": ({"quotas": {"N2_CPUS": 1.0}}, "QUOTA_EXCEEDED", 403),
    "machines": ({"quotas": {"INSTANCES": 0.0}}, "QUOTA_EXCEEDED", 403),
}


@pytest.mark.parametrize("case", SHORTAGES)
def test_what_there_is_no_room_for_fails_as_an_operation_and_leaves_nothing(
    gce: GceLab, paths: dict[str, str], case: str
):
    knobs, code, status = SHORTAGES[case]
    gce.knobs.turn(knobs)
    body = gce.machine_body(disks=[BOOT, {"source": paths["DISK"], "auto_delete": True}])
    done = gce.ask("Instances", "insert", instance_resource=body)
    assert ([item.code for item in done.error.errors], done.http_error_status_code) == (
        [code], status,
    )  # fmt: skip
    with refused(404, "notFound"):
        gce.ask("Instances", "get", instance=body["name"])
    with refused(404, "notFound"):
        gce.ask("Disks", "get", disk=body["name"])
    # One that was there before stays, whatever was asked of it.
    assert list(gce.ask("Disks", "get", disk=paths["DISK"].rsplit("/", 1)[-1]).users) == []


def test_a_name_is_taken_before_its_disks_are(gce: GceLab):
    body = gce.machine_body(gce.disk())
    gce.made("Instances", "insert", instance_resource=body)
    with refused(409, "alreadyExists", f"instances/{body['name']}"):
        gce.ask("Instances", "insert", instance_resource=body)
