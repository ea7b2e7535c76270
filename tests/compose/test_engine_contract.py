"""Job and report as JSON, the zipapp as a file, and the engine as a process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pytest

from imageport.compose.build_engine import HOST_SIDE, build_engine, engine_sources
from imageport.compose.contract import (
    Action,
    Change,
    EngineDisk,
    EngineJob,
    EngineOptions,
    EngineReport,
    Refusal,
    VerdictItem,
    job_from_json,
)
from imageport.compose.site_engine import PYTHON, run_site_engine
from imageport.errors import EngineFailed, InputError, TransferCancelled
from imageport.formats.raw import RawDisk
from imageport.progress import Event
from imageport.storage.memory import MemoryFolder

needs_distribution = pytest.mark.skipif(
    not PYTHON.exists(), reason="this machine has no distribution Python"
)


def a_job(path: str = "x", action: Action = Action.INSPECT) -> EngineJob:
    options = EngineOptions(list_of_ddcs=("a", "b"), recommended=("cloud_time_server",))
    return EngineJob(action, EngineDisk(path, ""), options, run="r1", payload_sha256="00")


def test_a_job_reads_back_as_it_was() -> None:
    assert job_from_json(a_job().to_json()) == a_job()


def test_a_report_reads_back_as_it_was() -> None:
    report = EngineReport(
        Action.VERIFY,
        ok=False,
        refusals=(Refusal("a", "b", "c"),),
        changes=(Change("s", "required", "registry", "p", "n", "1", "2"),),
        verdict=(VerdictItem("v", passed=True, evidence="e"),),
        first_boot={"state": "done"},
        seconds=1.5,
    )
    assert EngineReport.from_json(report.to_json()) == report


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema"),
        ({"options": {"cloud": "aws", "rdp": True}}, r"unknown keys \['rdp'\]"),
        ({"options": {"first_boot_attempts": "3"}}, "first_boot_attempts"),
        ({"action": "format"}, "format"),
        ({"action": []}, "needed inspect or plan"),
        ({"disk": []}, "disk"),
        ({"options": {"drivers": [1]}}, "no text"),
        ({"k" * 5000: 1}, rf"unknown keys \['{'k' * 80}'\]"),
    ],
)
def test_a_job_that_is_not_understood_is_refused_with_its_key(
    change: dict[str, object], message: str
) -> None:
    document = json.loads(a_job().to_json()) | change
    with pytest.raises((ValueError, TypeError), match=message):
        job_from_json(json.dumps(document))


def test_a_report_whose_facts_are_no_texts_is_refused() -> None:
    document = json.loads(EngineReport(Action.VERIFY, ok=True).to_json())
    with pytest.raises(InputError, match=r"report\.first_boot: found a value that is no text"):
        EngineReport.from_json(json.dumps(document | {"first_boot": {"state": ["done"]}}))


def test_the_engine_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    one, other = build_engine(tmp_path / "a.pyz"), build_engine(tmp_path / "sub/b.pyz")
    assert (one.sha256, one.engine_id) == (other.sha256, other.engine_id)
    assert one.path.read_bytes() == other.path.read_bytes()
    assert one.path.stat().st_mode & 0o111


def test_the_engine_holds_its_own_modules_and_no_others(tmp_path: Path) -> None:
    built = build_engine(tmp_path / "engine.pyz")
    with zipfile.ZipFile(built.path) as archive:
        names = archive.namelist()
        assert archive.read("imageport/compose/engine_id.txt").decode() == built.engine_id
    assert names == sorted(names)
    assert not [name for name in names if Path(name).name in HOST_SIDE]
    outside = {name for name in names if not name.startswith("imageport/compose/")}
    assert outside == {"__main__.py", "imageport/__init__.py", "imageport/errors.py"}
    assert "imageport/compose/steps/order.py" in engine_sources()
    assert "imageport/compose/first_boot/texts/firstboot.cmd" in engine_sources()


def test_the_engine_needs_nothing_but_the_standard_library(tmp_path: Path) -> None:
    built = build_engine(tmp_path / "engine.pyz")
    # -I -S: no environment, no site-packages; only what is in the file.
    done = subprocess.run(
        [sys.executable, "-I", "-S", built.path, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "JOB.json" in done.stdout


def test_an_unreadable_job_ends_with_2_and_no_report(tmp_path: Path) -> None:
    built = build_engine(tmp_path / "engine.pyz")
    (tmp_path / "job.json").write_text('{"schema": 1, "action": "inspect", "what": 1}')
    done = subprocess.run(
        [sys.executable, built.path, tmp_path / "job.json", tmp_path / "report.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "unknown keys" in done.stderr
    assert not (tmp_path / "report.json").exists()


def test_a_python_without_guestfs_is_named_in_the_report(tmp_path: Path) -> None:
    built = build_engine(tmp_path / "engine.pyz")
    (tmp_path / "job.json").write_text(a_job("/dev/null").to_json())
    done = subprocess.run(
        [sys.executable, "-I", "-S", built.path, tmp_path / "job.json", tmp_path / "report.json"],
        capture_output=True,
        check=False,
    )
    report = EngineReport.from_json((tmp_path / "report.json").read_bytes())
    assert done.returncode == 0
    assert not report.ok
    assert report.engine_id == built.engine_id
    assert "guestfs" in report.error or "libguestfs" in report.error


@needs_distribution
def test_a_disk_that_is_not_there_fails_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match=r"missing\.raw"):
        run_site_engine(tmp_path / "missing.raw", a_job())


@needs_distribution
def test_the_deadline_ends_the_engine_with_its_log(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(1024 * 1024))
    started = time.monotonic()
    with pytest.raises(EngineFailed, match="no end in 1 s") as caught:
        run_site_engine(disk, a_job(), deadline_seconds=1)
    assert time.monotonic() - started < 30
    assert "log" in caught.value.fields
    assert not _running(disk)


@needs_distribution
def test_an_engine_that_is_killed_leaves_no_copy_of_the_guest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, temporary = tmp_path / "disk.raw", tmp_path / "tmp"
    disk.write_bytes(bytes(1024 * 1024))
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("LIBGUESTFS_CACHEDIR", "/var/tmp")  # noqa: S108 - its own default
    seen: set[str] = set()

    def has_begun() -> bool:
        seen.update(item.name for item in temporary.rglob("imageport-engine-*"))
        return bool(seen)

    with pytest.raises(TransferCancelled):
        run_site_engine(disk, a_job(), cancelled=has_begun)
    assert list(temporary.iterdir()) == []


@needs_distribution
def test_cancelling_ends_the_engine_and_leaves_no_process(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(1024 * 1024))
    events: list[Event] = []
    with pytest.raises(TransferCancelled):
        run_site_engine(disk, a_job(), events=events.append, cancelled=lambda: True)
    assert events
    assert not _running(disk)


def test_a_read_only_disk_is_never_composed() -> None:
    folder = MemoryFolder()
    with folder.create("d.raw") as file:
        file.write_at(0, bytes(4096))
    disk = RawDisk(folder.open_read("d.raw"))
    with disk, pytest.raises(InputError, match="read-only disk"):
        run_site_engine(disk, a_job(action=Action.COMPOSE))


def _running(disk: Path) -> list[str]:
    """Return the command lines of processes that still name the disk's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                )
            except OSError:
                continue
            if str(disk) in line:
                found.append(line)
    return found
