"""The folder of a job: known to the ledger, listed for the sweep, deleted whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import requests

from imageport.clouds.gcp.job_folder import JobFolder, delete_job_folder, job_folders
from imageport.clouds.gcp.objects import Objects
from imageport.clouds.tags import TAG_RUN, TAG_SITE
from imageport.errors import CloudRefused, ResourceGone
from imageport.sandbox.gcp.account import BUCKET, KMS_KEY
from tests.clouds.cloud_contract import SITE
from tests.clouds.gcp_laboratory import GcpLab


def test_a_job_folder_has_one_entry_in_the_ledger_and_goes_whole(gcp_lab: GcpLab, tmp_path: Path):
    account = gcp_lab.account("run-1")
    folder = JobFolder(account, "engine-job", "disk", "job")
    folder.write("setup.json", b"{}")
    path = tmp_path / "engine"
    path.write_bytes(b"engine")
    sha256 = folder.write_file("engine.pyz", path)
    assert folder.read("engine.pyz") == b"engine"
    assert sha256 == hashlib.sha256(b"engine").hexdigest()
    assert folder.read("report.json") is None
    assert folder.id.startswith(f"gs://{BUCKET}/imageport/tmp/{SITE}/jobs/run-1/")
    (entry,) = gcp_lab.state.ledger.open_entries()
    assert (entry.kind, entry.resource_id) == ("object", folder.id)
    folder.delete()
    assert gcp_lab.objects() == []
    assert gcp_lab.state.ledger.open_entries() == []


def test_the_same_job_finds_its_folder_again(gcp_lab: GcpLab):
    first = JobFolder(gcp_lab.account("run-1"), "engine-job", "disk", "job")
    again = JobFolder(gcp_lab.account("run-1"), "engine-job", "disk", "job")
    other = JobFolder(gcp_lab.account("run-1"), "engine-job", "disk", "other job")
    assert first.prefix == again.prefix != other.prefix


def test_job_folders_are_listed_by_site_with_run_and_age(gcp_lab: GcpLab):
    account = gcp_lab.account("run-1")
    folder = JobFolder(account, "engine-job", "disk")
    folder.write("setup.json", b"{}")
    paris = gcp_lab.account("run-9", site="paris")
    JobFolder(paris, "engine-job", "disk").write("setup.json", b"{}")
    (found,) = job_folders(account, SITE)
    assert found.id == folder.id
    assert (found.tags[TAG_SITE], found.tags[TAG_RUN]) == (SITE, "run-1")
    delete_job_folder(account, found.id)
    assert job_folders(account, SITE) == []
    assert len(job_folders(account, "paris")) == 1


@pytest.mark.parametrize(
    "place",
    [
        f"gs://{BUCKET}/imageport/{SITE}/seg/",
        f"gs://{BUCKET}/imageport/tmp/{SITE}/jobs/",
        f"gs://{BUCKET}/imageport/tmp/{SITE}/jobs/run-1/",
        f"gs://{BUCKET}/imageport/tmp/paris/jobs/run-1/abc/",
        f"gs://other/imageport/tmp/{SITE}/jobs/run-1/abc/",
        "",
    ],
)
def test_nothing_but_a_job_folder_of_the_site_is_deleted(gcp_lab: GcpLab, place: str):
    objects = Objects(gcp_lab.account("run-1"))
    objects.put(f"imageport/tmp/{SITE}/jobs/run-1/abc/x", b"")
    objects.put("imageport/tmp/paris/jobs/run-1/abc/x", b"")
    with pytest.raises(ResourceGone, match="no job folder of this site"):
        delete_job_folder(gcp_lab.account("run-1"), place)
    assert len(gcp_lab.objects()) == 2


def test_what_a_machine_writes_is_not_read_beyond_what_it_may_be(gcp_lab: GcpLab):
    folder = JobFolder(gcp_lab.account("run-1"), "engine-job", "disk")
    folder.write("report.json", bytes(5000))
    with pytest.raises(CloudRefused, match="found more than 4999 bytes"):
        folder.read("report.json", 4999)


def test_urls_of_a_folder_open_its_objects_with_the_key_of_the_settings(gcp_lab: GcpLab):
    folder = JobFolder(gcp_lab.account("run-1", kms_key=KMS_KEY), "engine-job", "disk")
    url = folder.write_url("report.json", 60)
    answer = requests.put(url, json.dumps({"ok": True}), headers=folder.put_headers, timeout=10)
    assert answer.status_code == 200
    assert folder.read("report.json") == b'{"ok": true}'
    read = requests.get(folder.read_url("report.json", 60), timeout=10)
    assert read.json() == {"ok": True}
    facts = Objects(gcp_lab.account("look")).stat(folder.prefix + "report.json")
    assert facts is not None
    assert facts.kms_key.startswith(KMS_KEY)


def test_faults_of_the_bucket_do_not_keep_a_job_from_being_written(gcp_lab: GcpLab):
    gcp_lab.service.turn(fault_rate=0.3, seed=3)
    folder = JobFolder(gcp_lab.account("run-1"), "engine-job", "disk")
    for number in range(5):
        folder.write(f"object-{number}", b"x")
        assert folder.read(f"object-{number}") == b"x"
    folder.delete()
    gcp_lab.service.turn(fault_rate=0.0)
    assert gcp_lab.objects() == []
