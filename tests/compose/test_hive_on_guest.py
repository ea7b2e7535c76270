"""A whole disk whose SYSTEM lies behind its logs: composed, the hive on it rewritten in place."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from imageport.compose.contract import Action, EngineDisk, EngineJob, EngineOptions
from imageport.compose.site_engine import run_site_engine
from imageport.sandbox.sample.build import build_raw_sample
from imageport.sandbox.sample.driver_package import write_ena_package
from imageport.sandbox.sample.recipe import DISK_GUID, WINDOWS, Variant

# In the long form: folders prove the same but for the file system, and each launch costs a minute.
pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(1500)]


def test_a_disk_with_a_hive_behind_its_logs_is_composed(tmp_path: Path) -> None:
    raw = build_raw_sample(tmp_path / "disk.raw", Variant.HIVE_BEHIND)
    write_ena_package(tmp_path / "payload/ena")
    options = EngineOptions(drivers=("ena",))
    job = EngineJob(Action.COMPOSE, EngineDisk("", str(DISK_GUID)), options, run="test")
    report = run_site_engine(raw, job, payload=tmp_path / "payload")
    assert report.refusals == ()
    assert report.ok, [item for item in report.verdict if not item.passed]
    (replay,) = [change for change in report.changes if change.step == "replay_hive_logs"]
    assert replay.path == "\\Windows\\System32\\config\\SYSTEM"
    assert "2 entries of .LOG1 and .LOG2" in replay.after
    volume = tmp_path / "windows.ntfs"
    with raw.open("rb") as reader, volume.open("wb") as writer:
        reader.seek(WINDOWS.first)
        subprocess.run(
            ["dd", f"count={WINDOWS.size}", "iflag=count_bytes", "bs=4M", "conv=sparse"],
            stdin=reader,
            stdout=writer,
            stderr=subprocess.DEVNULL,
            check=True,
        )
    hive = tmp_path / "SYSTEM"
    place = "Windows/System32/config/SYSTEM"
    hive.write_bytes(
        subprocess.run(["ntfscat", volume, place], check=True, capture_output=True).stdout
    )
    shown = subprocess.run(
        ["hivexget", hive, "\\Imageport", "Name"], check=True, capture_output=True, text=True
    )
    assert shown.stdout.strip() == "from the log"
