"""The machine that reads a prepared disk: made, watched, taken up, and not believed too much."""

from __future__ import annotations

import uuid
from typing import Any, cast

import pytest

from imageport.cloud import CloudDisk
from imageport.clouds import engine_setup
from imageport.clouds.gcp import engine_vm, segment_machine, segment_writer
from imageport.clouds.gcp.disks import describe_disk
from imageport.clouds.gcp.job_folder import job_root
from imageport.clouds.gcp.segment_index import ImageIndex, index_of
from imageport.clouds.gcp.segment_machine import SegmentRun, write_segments
from imageport.clouds.gcp.segments import prepared_folder
from imageport.errors import EngineFailed, ImageportError, PermissionMissing
from imageport.transfer.manifest import Manifest
from tests.clouds.cloud_contract import BLOCKS, GUID, digest, disk_of, uploaded
from tests.clouds.gcp_laboratory import GcpLab
from tests.clouds.machine_lab import DiesAt, killed
from tests.clouds.test_gcp_segment_writer import head

IMAGE = "imageport-prepared-1"


def source_of(lab: GcpLab) -> ImageIndex:
    (reference,) = lab.images()
    return index_of(lab.account("look"), reference)


def write(lab: GcpLab, disk: CloudDisk, source: ImageIndex | None = None) -> Manifest:
    return write_segments(lab.account("run-1"), disk, IMAGE, source)


def written(lab: GcpLab) -> list[str]:
    folder = prepared_folder(lab.settings(), IMAGE)
    return sorted(key.removeprefix(folder) for key in lab.objects(folder))


def nothing_is_left(lab: GcpLab, disk: CloudDisk) -> bool:
    """Neither machine nor rules nor job; the disk is free."""
    facts = describe_disk(lab.account("look"), disk.id)
    return (
        facts is not None
        and not facts.machines
        and lab.machines() == []
        and lab.rules() == []
        and lab.objects(job_root(lab.settings())) == []
    )


def test_a_machine_without_an_identity_writes_what_is_new_of_a_disk(
    gcp_lab: GcpLab, monkeypatch: pytest.MonkeyPatch
):
    seen: list[Any] = []
    watch = engine_vm.JobMachine.watch

    def look(machine: engine_vm.JobMachine, run: Any) -> Any:
        seen.append(gcp_lab.clients.instances.get(
            project=gcp_lab.settings().project,
            zone=gcp_lab.settings().zone,
            instance=machine.id.rsplit("/", maxsplit=1)[-1],
        ))  # fmt: skip
        return watch(machine, run)

    monkeypatch.setattr(engine_vm.JobMachine, "watch", look)
    disk = disk_of(gcp_lab.cloud("run-1"))
    manifest = write(gcp_lab, disk)
    new = {digest(data) for index, data in BLOCKS.items() if index != 4}
    assert written(gcp_lab) == sorted(name.hex() for name in new)
    assert manifest.size_bytes == disk.size_bytes
    assert all(manifest.digest(index) == digest(data) for index, data in BLOCKS.items())
    assert nothing_is_left(gcp_lab, disk)
    (machine,) = seen
    assert not machine.service_accounts
    assert [item.mode for item in machine.disks] == ["READ_WRITE", "READ_ONLY"]


@pytest.mark.slow
def test_what_the_image_before_has_is_not_written_again(gcp_lab: GcpLab):
    disk = disk_of(gcp_lab.cloud("run-1"))
    source = source_of(gcp_lab)
    manifest = write(gcp_lab, disk, source)
    assert written(gcp_lab) == []
    assert dict(manifest.digests.items()) == dict(source.blocks())


def test_a_worker_that_was_killed_takes_up_the_running_machine(gcp_lab: GcpLab):
    disk = disk_of(gcp_lab.cloud("run-1"))
    before = gcp_lab.started()
    dying = gcp_lab.account("run-1", ledger=DiesAt(gcp_lab, gcp_lab.boot_ids[-1]))
    with killed():
        write_segments(dying, disk, IMAGE, None)
    assert write(gcp_lab, disk).digest(0) == digest(BLOCKS[0])
    assert len(gcp_lab.started() - before) == 1
    assert nothing_is_left(gcp_lab, disk)


def foreign_disk(lab: GcpLab) -> CloudDisk:
    """Return a disk whose own GUID is another than the job's."""
    cloud = lab.cloud("run-1")
    reference = uploaded(cloud, BLOCKS | {0: head(uuid.UUID(int=5).bytes_le)})
    return cast("CloudDisk", cloud.make_disk(reference, GUID))


@pytest.mark.slow
def test_another_disk_than_the_jobs_is_refused_with_the_machines_log(gcp_lab: GcpLab):
    disk = foreign_disk(gcp_lab)
    with pytest.raises(EngineFailed, match=r"ended without a report|the machine is gone") as caught:
        write(gcp_lab, disk)
    assert f"the job is for '{GUID}'" in caught.value.fields["log"]
    assert written(gcp_lab) == []
    assert nothing_is_left(gcp_lab, disk)


def test_a_report_that_never_comes_ends_at_the_deadline(
    gcp_lab: GcpLab, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(segment_machine, "LEAST_SECONDS", 1.0)
    monkeypatch.setattr(segment_machine, "SLOWEST_BYTES_PER_SECOND", 2**40)
    monkeypatch.setattr(engine_setup, "GRACE_SECONDS", 1.0)
    monkeypatch.setattr(segment_machine, "DEVICES", ("disk/by-id/google-never",))
    disk = disk_of(gcp_lab.cloud("run-1"))
    with pytest.raises(EngineFailed, match=r"Cannot read .* no report after 1 s"):
        write(gcp_lab, disk)
    assert nothing_is_left(gcp_lab, disk)
    assert not any(item["busy"] for item in gcp_lab.service.machines())


def test_a_token_is_renewed_at_half_of_its_life(gcp_lab: GcpLab):
    account = gcp_lab.account("run-1")
    folder = engine_vm.JobFolder(account, "segments-job", "disk")
    grant = segment_machine._Grant(account, folder, "t/out/")
    gcp_lab.service.turn(token_seconds=0.2)
    grant.renew()
    first = folder.read(segment_machine.GRANT)
    gcp_lab.service.turn(token_seconds=3600.0)
    grant._renew_at = 0.0
    grant.live()
    second = folder.read(segment_machine.GRANT)
    assert first != second
    grant.live()
    assert folder.read(segment_machine.GRANT) == second


def test_a_token_that_may_not_be_signed_for_ends_it_before_a_machine_is_made(gcp_lab: GcpLab):
    disk = disk_of(gcp_lab.cloud("run-1"))
    before = gcp_lab.started()
    gcp_lab.service.turn(denied=["storage.objects.create"])
    with pytest.raises(PermissionMissing, match=r"lack storage\.objects\.create"):
        write(gcp_lab, disk)
    gcp_lab.service.turn(denied=[])
    assert gcp_lab.started() == before
    assert nothing_is_left(gcp_lab, disk)


def test_reading_is_given_time_by_the_size_of_the_disk():
    small = SegmentRun(CloudDisk("x", 2**30, GUID), IMAGE)
    large = SegmentRun(CloudDisk("x", 2**40, GUID), IMAGE)
    assert 1800 < small.deadline_seconds < 2400
    assert large.deadline_seconds > 300_000
    assert large.machine_seconds == large.deadline_seconds + engine_setup.GRACE_SECONDS


@pytest.mark.slow
def test_no_token_and_no_signed_url_reaches_an_error_or_a_log(
    gcp_lab: GcpLab, debug_log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    tokens: list[str] = []
    make = segment_machine.creating_token

    def remembered(*args: Any) -> Any:
        token = make(*args)
        tokens.append(token.value)
        return token

    monkeypatch.setattr(segment_machine, "creating_token", remembered)
    write(gcp_lab, disk_of(gcp_lab.cloud("run-1")))
    texts = []
    try:
        write(gcp_lab, foreign_disk(gcp_lab))
    except ImageportError as error:
        texts.append(f"{error!s}{error!r}{error.as_dict()}")
    texts += [debug_log.text, repr([vars(record) for record in debug_log.records])]
    everything = "".join(texts)
    assert "the job is for" in everything
    assert "google.cloud.compute_v1" in everything
    assert len(tokens) == 2
    for secret in (*tokens, "X-Goog-Signature", "Bearer "):
        assert secret not in everything


def test_the_program_names_nothing_that_its_machine_has_not():
    text = engine_setup.user_data("https://x", "0" * 64, 7, segment_writer.write_segments_of_disk)
    assert "imageport.clouds" not in text.partition('"""')[2].rpartition('"""')[2]
    assert "from imageport" not in text
    job = "JOB = ('https://x', '" + "0" * 64 + "', 7, write_segments_of_disk)"
    assert text.endswith(f"\n{job}\nrun_job(*JOB)\n")
    compile(text, "startup-script", "exec")
    assert len(text) < 200_000
