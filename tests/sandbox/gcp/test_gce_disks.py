"""Disks of the emulated Compute Engine."""

from __future__ import annotations

from typing import Any

import pytest

from imageport.model import GIB
from imageport.sandbox.gcp.account import ENGINE_IMAGE, KMS_KEY, PROJECT, ZONE
from tests.sandbox.gcp.gce_lab import GceLab, refused

TYPES = f"projects/{PROJECT}/zones/{ZONE}/diskTypes"


def test_an_empty_disk_is_sparse_and_of_its_size(gce: GceLab):
    path = gce.disk(
        size_gb=10, type_=f"{TYPES}/pd-ssd", disk_encryption_key={"kms_key_name": KMS_KEY}
    )
    found = gce.ask("Disks", "get", disk=path.rsplit("/", 1)[-1])
    assert (found.status, found.size_gb, list(found.users)) == ("READY", 10, [])
    assert found.type_.endswith("/diskTypes/pd-ssd")
    assert found.disk_encryption_key.kms_key_name == f"{KMS_KEY}/cryptoKeyVersions/1"
    file = gce.file("disks", found.name)
    assert file.stat().st_size == 10 * GIB
    assert file.stat().st_blocks * 512 < GIB // 100


REFUSED: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "name": ({"name": "9lives"}, 400, "invalid", "regex"),
    "type": ({"type_": f"{TYPES}/pd-none"}, 400, "invalid", "does not exist in zone"),
    "type of another zone": ({"type_": "zones/us-east1-b/diskTypes/pd-ssd"}, 400, "invalid", ZONE),
    "too small for its image": ({"source_image": ENGINE_IMAGE, "size_gb": 9}, 400, "invalid",
        "smaller than the image size (10 GB)"),
    "too small for its type": ({"type_": f"{TYPES}/hyperdisk-balanced", "size_gb": 3},
        400, "invalid", "from 4 to"),
    "too large": ({"size_gb": 70_000}, 400, "invalid", "65536"),
    "architecture": ({"architecture": "MIPS"}, 400, "invalid", "X86_64, ARM64"),
    "no image": ({"source_image": "global/images/none"}, 404, "notFound", "global/images/none"),
    "no family": ({"source_image": "global/images/family/none"}, 404, "notFound", "family/none"),
    "key": ({"disk_encryption_key": {"kms_key_name": "k"}}, 400, "invalid", "useToEncrypt"),
    "more than the sandbox can": ({"provisioned_iops": 5}, 400, "invalid", "provisionedIops"),
    "quota": ({"type_": f"{TYPES}/pd-ssd", "size_gb": 3000}, 403, "quotaExceeded",
        "Quota 'SSD_TOTAL_GB' exceeded.  Limit: 2048.0 in region"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_body_that_makes_no_disk_is_refused(gce: GceLab, case: str):
    facts, status, reason, text = REFUSED[case]
    body = {"name": gce.name("disk")} | facts
    with refused(status, reason, text):
        gce.ask("Disks", "insert", disk_resource=body)


def test_a_family_stands_for_its_newest_image(gce: GceLab):
    path = gce.disk(source_image="projects/debian-cloud/global/images/family/debian-12", size_gb=0)
    found = gce.ask("Disks", "get", disk=path.rsplit("/", 1)[-1])
    assert found.size_gb == 10
    assert found.source_image.endswith("debian-cloud/global/images/debian-12-bookworm-v20251111")


def test_a_disk_larger_than_its_image_is_made_with_a_warning(gce: GceLab):
    body = {"name": gce.name("disk"), "source_image": ENGINE_IMAGE, "size_gb": 20}
    done = gce.made("Disks", "insert", disk_resource=body)
    assert [item.code for item in done.warnings] == ["DISK_SIZE_LARGER_THAN_IMAGE_SIZE"]
    fitting = body | {"name": gce.name("disk"), "size_gb": 10}
    assert not gce.made("Disks", "insert", disk_resource=fitting).warnings


def test_labels_need_a_permission_of_their_own(gce: GceLab):
    gce.knobs.denied = ["compute.disks.setLabels"]
    body = {"name": gce.name("disk"), "size_gb": 1, "labels": {"team": "desktop"}}
    with refused(403, "forbidden", f"disks/{body['name']}"):
        gce.ask("Disks", "insert", disk_resource=body)


def test_a_name_is_taken_once(gce: GceLab):
    name = gce.disk().rsplit("/", 1)[-1]
    with refused(409, "alreadyExists", f"zones/{ZONE}/disks/{name}"):
        gce.ask("Disks", "insert", disk_resource={"name": name, "size_gb": 1})


def test_a_disk_that_a_machine_has_stays(gce: GceLab):
    path = gce.disk()
    name = path.rsplit("/", 1)[-1]
    machine = gce.machine(path)
    [user] = gce.ask("Disks", "get", disk=name).users
    assert user.endswith(f"/instances/{machine}")
    gce.made("Instances", "stop", instance=machine)
    with refused(400, "resourceInUseByAnotherResource", "is already being used by"):
        gce.ask("Disks", "delete", disk=name)
    gce.made("Instances", "delete", instance=machine)
    file = gce.file("disks", name)
    gce.made("Disks", "delete", disk=name)
    assert not file.exists()
    with refused(404, "notFound"):
        gce.ask("Disks", "delete", disk=name)


def test_labels_of_a_disk_need_the_newest_fingerprint(gce: GceLab):
    name = gce.disk(labels={"a": "1"}).rsplit("/", 1)[-1]
    fingerprint = gce.ask("Disks", "get", disk=name).label_fingerprint
    body = {"labels": {"b": "2"}, "label_fingerprint": fingerprint}
    gce.made("Disks", "set_labels", resource=name, zone_set_labels_request_resource=body)
    assert gce.ask("Disks", "get", disk=name).labels == {"b": "2"}
    for old in (fingerprint, ""):
        changed = body | {"label_fingerprint": old}
        with refused(412, "conditionNotMet"):
            gce.ask("Disks", "set_labels", resource=name, zone_set_labels_request_resource=changed)
