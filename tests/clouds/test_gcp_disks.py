"""Disks of a run, and the labels that tell how long anything lives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from imageport.clouds.gcp import expiry
from imageport.clouds.gcp.disks import (
    attached_to,
    delete_disk,
    describe_disk,
    make_disk,
    wait_free,
)
from imageport.clouds.gcp.expiry import write_expiry
from imageport.clouds.gcp.names import LABEL_EXPIRES, LABEL_SITE, parse_id, zonal_id
from imageport.clouds.gcp.operations import finished
from imageport.clouds.tags import TAG_EXPIRES
from imageport.errors import CloudError, CloudUnavailable, ResourceGone
from imageport.model import GIB
from imageport.sandbox.gcp.account import KMS_KEY, PROJECT, ZONE
from tests.clouds.cloud_contract import (
    BLOCKS,
    GUID,
    Killed,
    LedgerOfAKilledRun,
    plan_of,
    uploaded,
)
from tests.clouds.cloud_contract import block as block_of
from tests.clouds.gcp_laboratory import GcpLab

LATER = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)


@pytest.fixture
def reference(gcp_lab: GcpLab) -> str:
    return uploaded(gcp_lab.cloud("run-1"), {0: block_of(0)})


def google_says(lab: GcpLab, disk_id: str) -> Any:
    return lab.clients.disks.get(project=PROJECT, zone=ZONE, disk=parse_id(disk_id, "disks").name)


def test_a_working_disk_is_made_once_from_an_image(gcp_lab: GcpLab, reference: str):
    account = gcp_lab.account("run-1", kms_key=KMS_KEY, disk_type="pd-ssd")
    disk = make_disk(account, reference, GUID)
    assert (disk.size_bytes, disk.disk_guid) == (GIB, GUID)
    assert make_disk(gcp_lab.account("run-1"), reference, GUID) == disk
    found = google_says(gcp_lab, disk.id)
    assert found.type_.endswith("/diskTypes/pd-ssd")
    assert found.disk_encryption_key.kms_key_name.startswith(KMS_KEY)
    assert {item.type_ for item in found.guest_os_features} >= {"WINDOWS", "GVNIC"}
    assert found.labels[LABEL_SITE] == "frankfurt"
    facts = describe_disk(account, disk.id)
    assert facts is not None
    assert facts.source_image == reference
    assert attached_to(account, disk.id) == ()
    wait_free(account, disk.id, 1.0)
    delete_disk(account, disk.id)
    delete_disk(account, disk.id)
    assert describe_disk(account, disk.id) is None
    assert make_disk(gcp_lab.account("run-1"), reference, GUID).id != disk.id


@pytest.mark.slow
def test_a_disk_made_by_a_killed_call_is_found(gcp_lab: GcpLab, reference: str):
    ledger = LedgerOfAKilledRun(gcp_lab.state.folder)
    with pytest.raises(Killed):
        make_disk(gcp_lab.account("run-1", ledger=ledger), reference, GUID)
    [left] = gcp_lab.disks()
    assert make_disk(gcp_lab.account("run-1"), reference, GUID).id == left
    assert gcp_lab.disks() == [left]


def test_lost_answers_and_failed_operations_leave_one_disk(gcp_lab: GcpLab, reference: str):
    gcp_lab.service.turn(lost_answers=1)
    make_disk(gcp_lab.account("run-1"), reference, GUID)
    gcp_lab.service.turn(failed_operations=1)
    make_disk(gcp_lab.account("run-2"), reference, GUID)
    assert len(gcp_lab.disks()) == 2


@pytest.mark.slow
def test_a_deletion_whose_operation_fails_is_asked_for_again(gcp_lab: GcpLab, reference: str):
    disk = make_disk(gcp_lab.account("run-1"), reference, GUID)
    gcp_lab.service.turn(failed_operations=1)
    delete_disk(gcp_lab.account("run-1"), disk.id)
    assert gcp_lab.disks() == []


@pytest.mark.slow
def test_a_disk_of_no_image_says_so(gcp_lab: GcpLab, reference: str):
    gone = f"{reference[:-3]}000"
    with pytest.raises(CloudError, match=gone.rsplit("/", 1)[-1]):
        make_disk(gcp_lab.account("run-1"), gone, GUID)
    assert gcp_lab.disks() == []


def test_a_new_expiry_keeps_every_other_label(gcp_lab: GcpLab, reference: str):
    account = gcp_lab.account("run-1", labels={"team": "desktop"})
    disk = make_disk(account, reference, GUID)
    before = dict(google_says(gcp_lab, disk.id).labels)
    write_expiry(account, disk.id, LATER)
    after = dict(google_says(gcp_lab, disk.id).labels)
    assert after == before | {LABEL_EXPIRES: str(int(LATER.timestamp()))}
    facts = describe_disk(account, disk.id)
    assert facts is not None
    assert datetime.fromisoformat(facts.tags[TAG_EXPIRES]) == LATER


def test_labels_that_somebody_writes_in_between_are_kept(
    gcp_lab: GcpLab, reference: str, monkeypatch: pytest.MonkeyPatch
):
    account = gcp_lab.account("run-1")
    disk = make_disk(account, reference, GUID)
    calls = expiry._calls

    def overtaken(*args: Any) -> Any:
        read, write = calls(*args)
        seen = []

        def slow_read() -> Any:
            found = read()
            if not seen:
                seen.append(found)
                labels = {
                    "labels": dict(found.labels) | {"theirs": "yes"},
                    "label_fingerprint": found.label_fingerprint,
                }
                operation = write(labels)
                finished(account, operation, "compute.disks.setLabels", disk.id)
            return found

        return slow_read, write

    monkeypatch.setattr(expiry, "_calls", overtaken)
    write_expiry(account, disk.id, LATER)
    labels = google_says(gcp_lab, disk.id).labels
    assert labels["theirs"] == "yes"
    assert labels[LABEL_EXPIRES] == str(int(LATER.timestamp()))


def test_a_long_run_keeps_what_it_made_from_the_sweep(gcp_lab: GcpLab, reference: str):
    account = gcp_lab.account("run-1")
    disk = make_disk(account, reference, GUID)
    upload = gcp_lab.cloud("run-1").upload_target("other")
    upload.begin(plan_of(BLOCKS), "t-9")
    before = {item.id: item.tags for item in gcp_lab.cloud("look").list_ours("frankfurt")}
    account.expires_seconds = 48 * 3600.0
    account.renew()
    after = {item.id: item.tags for item in gcp_lab.cloud("look").list_ours("frankfurt")}
    assert set(after) == set(before) >= {disk.id, reference}
    for name, tags in after.items():
        assert tags[TAG_EXPIRES] > before[name][TAG_EXPIRES]
        assert {**tags, TAG_EXPIRES: ""} == {**before[name], TAG_EXPIRES: ""}
    upload.close()


def test_what_is_gone_or_has_no_labels_is_no_reason_to_stop(gcp_lab: GcpLab):
    account = gcp_lab.account("run-1")
    gone = zonal_id(account.settings, "disks", "imageport-gone")
    with pytest.raises(ResourceGone):
        write_expiry(account, gone, LATER)
    write_expiry(account, f"projects/{PROJECT}/global/firewalls/imageport-x", LATER)
    intent = account.intend("disk", "work", "gone")
    account.record(intent, gone)
    account.renew()


def test_waiting_for_a_disk_that_stays_attached_ends(
    gcp_lab: GcpLab, reference: str, monkeypatch: pytest.MonkeyPatch
):
    disk = make_disk(gcp_lab.account("run-1"), reference, GUID)
    monkeypatch.setattr("imageport.clouds.gcp.disks.attached_to", lambda *_: ("somebody",))
    with pytest.raises(CloudUnavailable, match="not there after 0 s"):
        wait_free(gcp_lab.account("run-1"), disk.id, 0.1)
