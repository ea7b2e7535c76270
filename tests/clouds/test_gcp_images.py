"""Images: made of archives and disks, waited for, kept apart from those of others, deleted."""

from __future__ import annotations

from typing import Any

import pytest

from imageport.clouds.gcp.images import (
    GUEST_OS_FEATURES,
    ImageFacts,
    delete_image,
    describe_image,
    insert_disk_image,
    insert_raw_image,
    wait_ready,
)
from imageport.clouds.gcp.names import image_id, object_id, resource_name
from imageport.clouds.gcp.objects import Objects
from imageport.clouds.intents import Intent
from imageport.clouds.tags import TAG_ROLE, TAG_TOKEN
from imageport.errors import CloudError, CloudRefused, PermissionMissing, ResourceGone
from imageport.model import GIB
from imageport.sandbox.gcp.account import KMS_KEY, PROJECT, REGION
from tests.clouds.cloud_contract import GUID, uploaded
from tests.clouds.cloud_contract import block as block_of
from tests.clouds.gcp_laboratory import GcpLab


@pytest.fixture
def reference(gcp_lab: GcpLab) -> str:
    return uploaded(gcp_lab.cloud("run-1"), {0: block_of(0), 5: block_of(5)})


def intent_of(lab: GcpLab, run: str = "run-1", **changes: Any) -> Intent:
    return lab.account(run, **changes).intend("snapshot", "prepared", "facts", name="gold")


def described(lab: GcpLab, reference: str) -> ImageFacts:
    facts = describe_image(lab.account("look"), reference)
    assert facts is not None
    return facts


def test_an_image_of_a_disk_has_all_that_machines_need(gcp_lab: GcpLab, reference: str):
    account = gcp_lab.account("run-1", kms_key=KMS_KEY, labels={"team": "desktop"})
    disk = gcp_lab.cloud("run-1").make_disk(reference, GUID)
    intent = account.intend("snapshot", "prepared", disk.id, name="gold")
    name = resource_name(intent)
    for _again in range(2):
        insert_disk_image(account, name, intent, disk.id, words="gold, prepared")
    facts = wait_ready(account, image_id(account.settings, name))
    assert facts.ready
    assert facts.size_bytes == GIB
    assert facts.kms_key.startswith(KMS_KEY)
    assert facts.storage_locations == (REGION,)
    assert facts.tags[TAG_TOKEN] == intent.token
    assert facts.tags[TAG_ROLE] == "prepared"
    found = gcp_lab.clients.images.get(project=PROJECT, image=name)
    assert {item.type_ for item in found.guest_os_features} >= set(GUEST_OS_FEATURES)
    assert found.labels["team"] == "desktop"
    assert "gold, prepared" in found.description


@pytest.mark.slow
def test_lost_answers_make_one_image(gcp_lab: GcpLab, reference: str):
    disk = gcp_lab.cloud("run-1").make_disk(reference, GUID)
    intent = intent_of(gcp_lab)
    before = len(gcp_lab.images())
    gcp_lab.service.turn(lost_answers=1)
    insert_disk_image(gcp_lab.account("run-1"), resource_name(intent), intent, disk.id)
    assert len(gcp_lab.images()) == before + 1


def test_a_name_that_somebody_else_took_is_refused(gcp_lab: GcpLab, reference: str):
    disk = gcp_lab.cloud("run-1").make_disk(reference, GUID)
    theirs = gcp_lab.account("run-1").intend("snapshot", "prepared", "theirs")
    insert_disk_image(gcp_lab.account("run-1"), "imageport-gold", theirs, disk.id)
    ours = gcp_lab.account("run-1").intend("snapshot", "prepared", "ours")
    with pytest.raises(CloudRefused, match="the name is taken by one that is not of this run"):
        insert_disk_image(gcp_lab.account("run-1"), "imageport-gold", ours, disk.id)


def test_what_is_no_archive_of_a_disk_is_refused_and_leaves_no_image(gcp_lab: GcpLab):
    account = gcp_lab.account("run-1")
    key = "imageport/tmp/frankfurt/archives/imageport-wrong/disk.tar.gz"
    Objects(account).put(key, b"no archive")
    intent = intent_of(gcp_lab)
    with pytest.raises(CloudRefused, match="INVALID_IMAGE_FILE"):
        insert_raw_image(account, "imageport-wrong", intent, object_id(account.settings, key))
    facts = describe_image(account, image_id(account.settings, "imageport-wrong"))
    assert facts is None or facts.failed


@pytest.mark.slow
def test_an_object_that_is_not_there_is_said(gcp_lab: GcpLab):
    account = gcp_lab.account("run-1")
    source = object_id(account.settings, "nothing.tar.gz")
    with pytest.raises(CloudError, match=r"nothing\.tar\.gz"):
        insert_raw_image(account, "imageport-none", intent_of(gcp_lab), source)


def test_a_gone_image_is_none_and_waiting_for_it_ends(gcp_lab: GcpLab, reference: str):
    account = gcp_lab.account("run-1")
    delete_image(account, reference)
    delete_image(account, reference)
    assert describe_image(account, reference) is None
    with pytest.raises(ResourceGone, match="found nothing, needed READY"):
        wait_ready(account, reference)


@pytest.mark.slow
def test_throttling_and_failures_of_the_service_are_waited_out(gcp_lab: GcpLab, reference: str):
    gcp_lab.service.turn(fault_rate=0.3, seed=4)
    assert described(gcp_lab, reference).ready
    delete_image(gcp_lab.account("run-1"), reference)
    gcp_lab.service.turn(fault_rate=0.0)
    assert describe_image(gcp_lab.account("run-1"), reference) is None


@pytest.mark.slow
def test_the_missing_permission_is_named(gcp_lab: GcpLab, reference: str):
    gcp_lab.service.turn(denied=["compute.images.delete"])
    with pytest.raises(PermissionMissing, match=r"lack compute\.images\.delete"):
        delete_image(gcp_lab.account("run-1"), reference)
    assert described(gcp_lab, reference).ready


def test_an_image_of_another_project_is_refused_and_not_forgotten(gcp_lab: GcpLab, reference: str):
    cloud = gcp_lab.cloud("run-1")
    elsewhere = reference.replace(PROJECT, "somebody-else")
    with pytest.raises(CloudRefused, match="lies in project somebody-else"):
        cloud.exists(elsewhere)
    assert cloud.exists(reference)


@pytest.mark.parametrize(
    ("status", "ready", "failed"),
    [
        ("READY", True, False),
        ("PENDING", False, False),
        ("FAILED", False, True),
        ("DELETING", False, True),
    ],
)
def test_only_a_ready_image_counts(status: str, ready: bool, failed: bool):
    facts = ImageFacts("projects/p/global/images/i", status, GIB, "", ())
    assert (facts.ready, facts.failed) == (ready, failed)
