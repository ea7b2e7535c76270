"""The program that reads a prepared disk: run as its machine runs it, against the bucket."""

from __future__ import annotations

import io
import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from imageport.cloud import CloudDisk
from imageport.clouds import vm_bootstrap
from imageport.clouds.engine_setup import LOG, REPORT
from imageport.clouds.gcp import segment_machine, segment_writer
from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.deflated_block import deflate, inflate_block
from imageport.clouds.gcp.engine_vm import DEVICES
from imageport.clouds.gcp.job_folder import JobFolder
from imageport.clouds.gcp.objects import Objects
from imageport.clouds.gcp.segment_machine import SegmentRun
from imageport.clouds.gcp.segment_writer import disk_identity
from imageport.clouds.gcp.segments import prepared_folder, read_block
from imageport.errors import VerificationFailed
from imageport.model import BLOCK_BYTES, ZERO_BLOCK
from imageport.transfer.manifest import Manifest
from tests.clouds.cloud_contract import GUID, block, digest
from tests.clouds.gcp_laboratory import GcpLab

COUNT = 40
IMAGE = "imageport-prepared-1"
DISK = "projects/imageport-lab/zones/europe-west3-a/disks/work"
CONTENT = {0: block(0), 3: block(3), 4: block(3), 7: block(7), COUNT - 1: block(39)}


class Machine:
    """A machine without a hypervisor: its script as a process, its disk as a file."""

    def __init__(self, lab: GcpLab, root: Path) -> None:
        self.lab = lab
        self.root = root
        self.account: GcpAccount = lab.account("run-1")
        self.folder = JobFolder(self.account, "segments-job", DISK, IMAGE)
        self.run = SegmentRun(CloudDisk(DISK, COUNT * BLOCK_BYTES, GUID), IMAGE)
        self.place = prepared_folder(self.account.settings, IMAGE)
        self.device = root / "dev" / DEVICES[0]
        self.device.parent.mkdir(parents=True)
        self.grant = segment_machine._Grant(self.account, self.folder, self.place)
        self.grant.renew()
        self.write_disk(CONTENT)

    def write_disk(self, blocks: dict[int, bytes]) -> None:
        with self.device.open("wb") as file:
            file.truncate(COUNT * BLOCK_BYTES)
            for index, data in blocks.items():
                file.seek(index * BLOCK_BYTES)
                file.write(data)

    def prepare(self, known: frozenset[bytes] = frozenset(), **changes: str) -> Path:
        """Write the job and return the script; ``changes`` are constants of the program."""
        script = segment_machine._write_setup(self.account, self.run, self.folder, known)
        for name, value in changes.items():
            old = f"\n{name} = "
            assert script.count(old) == 1
            script = script.replace(old, f"{old}{value}  # was ")
        path = self.root / "startup-script"
        path.write_text(script)
        return path

    def start(self, script: Path) -> subprocess.Popen[str]:
        """Run a script as the machine does at its first boot."""
        programs = self.root / "programs"
        programs.mkdir(exist_ok=True)
        shutdown = programs / "shutdown"
        shutdown.write_text(f'#!/bin/sh\necho "$@" >> {self.root}/asked\n')
        shutdown.chmod(0o755)
        environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "IMAGEPORT_DEVICE_ROOT": str(self.root),
            "TMPDIR": str(self.root),
        }
        return subprocess.Popen(
            [vm_bootstrap.PYTHON, str(script)], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def work(self, known: frozenset[bytes] = frozenset(), **changes: str) -> str:
        """Run the whole script; returns what is on the console."""
        return self.ended(self.start(self.prepare(known, **changes)))

    def ended(self, process: subprocess.Popen[str]) -> str:
        console, _ = process.communicate(timeout=60)
        self.lab.service.turn(fault_rate=0.0)  # what is looked at now is not asked with retries
        assert (self.root / "asked").read_text().splitlines()[-1] == "-h now"
        self.require_no_secret(console)
        return console

    def require_no_secret(self, console: str) -> None:
        token = json.loads(self.folder.read(segment_machine.GRANT) or b"{}")["token"]
        log = (self.folder.read(LOG) or b"").decode()
        for secret in (token, "X-Goog-Signature", "Bearer"):
            assert secret not in console + log

    def manifest(self, known: frozenset[bytes] = frozenset()) -> Manifest:
        report = self.folder.read(REPORT)
        assert report is not None
        return segment_machine._manifest(self.account, self.run, self.folder, report, known)

    def written(self) -> list[str]:
        return [key.removeprefix(self.place) for key in self.lab.objects(self.place)]


@pytest.fixture
def machine(gcp_lab: GcpLab, tmp_path: Path) -> Iterator[Machine]:
    return Machine(gcp_lab, tmp_path)


def is_whole(machine: Machine, content: dict[int, bytes]) -> bool:
    """Every block of the disk is in the manifest and, unless known, in the bucket."""
    manifest = machine.manifest()
    objects = Objects(machine.account)
    for index, data in content.items():
        name = digest(data)
        assert manifest.digest(index) == name
        key = machine.place + name.hex()
        assert read_block(objects, key, name, "x") == data
        assert objects.get(key).endswith(b"\x00\x00\xff\xff")
    zeros = [index for index in range(COUNT) if index not in content]
    assert all(manifest.digest(index) == digest(ZERO_BLOCK) for index in zeros)
    assert not any(manifest.is_written(index) for index in zeros)
    return True


def test_every_block_is_written_once_and_reported_in_order(machine: Machine):
    console = machine.work()
    assert is_whole(machine, CONTENT)
    assert sorted(machine.written()) == sorted({digest(data).hex() for data in CONTENT.values()})
    assert "imageport: all 40 blocks read, 4 written" in console
    facts = Objects(machine.account).stat(machine.place + digest(block(3)).hex())
    assert facts is not None
    assert set(facts.metadata) == {"crc32"}


def test_blocks_that_the_image_before_has_are_not_written_again(machine: Machine):
    known = frozenset(digest(data) for data in (block(0), block(3)))
    machine.work(known)
    assert sorted(machine.written()) == sorted(digest(block(n)).hex() for n in (7, 39))
    manifest = machine.manifest(known)
    assert manifest.digest(4) == digest(block(3))
    with pytest.raises(ValueError, match="2 of 4 new blocks are not in the bucket"):
        machine.manifest()


@pytest.mark.parametrize("preconditions_first", [True, False])
def test_blocks_that_a_killed_machine_wrote_are_left_as_they_are(
    machine: Machine, preconditions_first: bool
):
    machine.lab.service.turn(preconditions_first=preconditions_first)
    machine.write_disk({0: block(0)})
    machine.work()
    machine.write_disk(CONTENT)
    machine.folder._objects.delete(machine.folder.prefix + REPORT)
    machine.work()
    assert is_whole(machine, CONTENT)


def test_faults_throttling_and_lost_answers_are_waited_out(machine: Machine):
    script = machine.prepare()
    hurried = script.read_text().replace("(1, 2, 4, 8, 0)", "[0.05] * 20")
    script.write_text(hurried.replace("time.sleep(random.uniform(0, pause))", "time.sleep(0.05)"))
    machine.lab.service.turn(fault_rate=0.25, seed=4)
    process = machine.start(script)
    machine.ended(process)
    assert is_whole(machine, CONTENT)


def test_a_token_that_ran_out_is_renewed_by_the_waiting_worker(machine: Machine):
    machine.lab.service.turn(token_seconds=1.0)
    machine.grant.renew()
    old = machine.folder.read(segment_machine.GRANT)
    machine.lab.service.turn(token_seconds=3600.0)
    time.sleep(1.1)
    # It waits longer for the token than it tries a block.
    process = machine.start(machine.prepare(GRANT_PAUSE="0.2", PUT_SECONDS="1.0"))
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=2.5)
    assert machine.written() == []
    machine.grant.renew()
    assert machine.folder.read(segment_machine.GRANT) != old
    machine.ended(process)
    assert is_whole(machine, CONTENT)


def test_a_token_that_nobody_renews_ends_the_machine_with_its_reason(machine: Machine):
    machine.lab.service.turn(token_seconds=0.5)
    machine.grant.renew()
    machine.lab.service.turn(token_seconds=3600.0)
    time.sleep(0.6)
    machine.work(GRANT_SECONDS="0.5", GRANT_PAUSE="0.2")
    assert machine.folder.read(REPORT) is None
    assert b"no new token after" in (machine.folder.read(LOG) or b"")


def test_writers_do_not_wait_for_a_token_one_after_another(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(segment_writer, "GRANT_SECONDS", 0.1)
    monkeypatch.setattr(segment_writer, "GRANT_PAUSE", 0.01)
    asked: list[float] = []
    grant = segment_writer.Grant("http://127.0.0.1:9/grant")
    monkeypatch.setattr(grant, "_fetched", lambda: asked.append(time.monotonic()) or "")
    with pytest.raises(TimeoutError):
        grant.token()
    assert len(asked) > 1
    asked.clear()
    with pytest.raises(TimeoutError):
        grant.token()
    assert len(asked) == 1


def test_a_permission_that_is_missing_ends_the_machine_at_once(machine: Machine):
    script = machine.prepare()
    # Neither may the machine deliver its log: it tries that for as long as it takes a break.
    script.write_text(script.read_text().replace("(1, 2, 4, 8, 0)", "(0, 0)"))
    machine.lab.service.turn(denied=["storage.objects.create"])
    console = machine.ended(machine.start(script))
    assert "HTTP 403 AccessDenied" in console
    machine.lab.service.turn(denied=[])
    assert machine.written() == []


def head(guid: bytes = b"", signature: bytes = b"") -> bytes:
    """Return the first sectors of a disk: protective MBR and GPT header, or an MBR."""
    sectors = bytearray(block(0))
    sectors[440:512] = bytes(72)
    sectors[440:444] = signature or bytes(4)
    sectors[450] = 0xEE if guid else 0x07
    sectors[510:512] = b"\x55\xaa"
    if guid:
        sectors[512:520] = b"EFI PART"
        sectors[568:584] = guid
    return bytes(sectors)


@pytest.mark.parametrize(
    ("first", "identity"),
    [
        (head(uuid.UUID(GUID).bytes_le), GUID),
        (head(signature=b"\x44\x33\x22\x11"), "mbr:11223344"),
        (block(0), ""),
        (b"", ""),
    ],
)
def test_a_disk_has_the_identity_that_the_rest_of_the_project_gives_it(first: bytes, identity: str):
    assert disk_identity(io.BytesIO(first)) == identity


def test_another_disk_than_the_jobs_is_refused_before_a_block_is_written(machine: Machine):
    machine.write_disk(CONTENT | {0: head(uuid.UUID(int=5).bytes_le)})
    machine.work()
    assert machine.written() == []
    assert machine.folder.read(REPORT) is None
    assert b"the job is for '5b6c1f0e-" in (machine.folder.read(LOG) or b"")
    machine.write_disk(CONTENT | {0: head(uuid.UUID(GUID).bytes_le)})
    machine.work()
    assert machine.manifest().digest(7) == digest(block(7))


def test_a_disk_of_another_size_is_no_result(machine: Machine):
    machine.work()
    machine.run = SegmentRun(CloudDisk(DISK, (COUNT + 1) * BLOCK_BYTES, GUID), IMAGE)
    with pytest.raises(ValueError, match="it read 20971520 bytes, the disk has 21495808"):
        machine.manifest()


@pytest.mark.parametrize("told", [b"[" * 100_000, b'{"size_bytes": "' + b"9" * 10_000 + b'"}'])
def test_a_report_that_is_none_ends_nothing_but_the_job(machine: Machine, told: bytes):
    with pytest.raises((ValueError, RecursionError)) as caught:
        segment_machine._manifest(machine.account, machine.run, machine.folder, told, frozenset())
    assert len(str(caught.value)) < 200


def test_digests_that_were_exchanged_are_no_result(machine: Machine):
    machine.work()
    machine.folder.write(segment_machine.DIGESTS, b"other")
    with pytest.raises(ValueError, match="its digests are not those that it delivered"):
        machine.manifest()


def test_a_block_that_somebody_else_put_there_is_found_by_who_reads(machine: Machine):
    name = digest(block(7))
    objects = Objects(machine.account)
    objects.put(machine.place + name.hex(), deflate(block(8)))
    machine.work()
    assert machine.manifest().digest(7) == name
    with pytest.raises(VerificationFailed, match="found other data than its SHA-256 says"):
        read_block(objects, machine.place + name.hex(), name, "block 7")


def test_what_the_program_deflates_is_a_segment_like_any_other():
    for data in (block(1), ZERO_BLOCK, os.urandom(BLOCK_BYTES)):
        assert inflate_block(segment_writer.deflate(data), "x") == data
