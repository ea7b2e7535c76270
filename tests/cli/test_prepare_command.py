"""`imageport prepare` from a disk to a new one, without a copy between them.

The engine is a stand-in of one second (`tests.compose.site_stand_in`). Recipe of the source: a
40 MiB raw disk, GPT by sgdisk, 3 MiB of random bytes.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path

import pytest

from imageport.cli.main import main
from imageport.compose.site_engine import PYTHON
from imageport.model import MIB
from tests.compose.site_stand_in import build_stand_in

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="needs the distribution's Python")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("imageport.compose.site_engine.build_engine", build_stand_in)
    path = tmp_path / "gold.raw"
    with path.open("wb") as file:
        file.truncate(40 * MIB)
        file.seek(12 * MIB)
        file.write(random.Random(1).randbytes(3 * MIB))  # noqa: S311
    subprocess.run(["sgdisk", "-n1:2048:0", str(path)], check=True, capture_output=True)
    return path


def prepare(source: Path, *words: object) -> int:
    destination = source.with_name("new.vhdx")
    command = ["prepare", source, destination, "--target", "aws", "--work", source.parent, "--json"]
    return main([str(word) for word in (*command, *words)])


def test_the_new_disk_is_the_source_with_what_the_engine_wrote(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = source.read_bytes()
    report = source.with_name("report.json")
    assert prepare(source, "--report", report) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(report.read_text())
    assert source.read_bytes() == before
    wanted = source.with_name("wanted.raw")
    wanted.write_bytes(before)
    with wanted.open("r+b") as file:
        os.pwrite(file.fileno(), b"\7" * 512, 65536)
        os.pwrite(file.fileno(), bytes(65536), MIB)
    made = source.with_name("new.vhdx")
    compare = ["qemu-img", "compare", "-f", "raw", "-F", "vhdx", wanted, made]
    subprocess.run(compare, check=True, capture_output=True)
    assert made.stat().st_blocks * 512 < 8 * MIB
    names = {path.name for path in source.parent.iterdir()}
    assert names == {"gold.raw", "new.vhdx", "report.json", "wanted.raw"}


@pytest.mark.parametrize(
    ("mode", "code"), [("unready", "verdict-failed"), ("refused", "guest-refused")]
)
def test_what_is_refused_or_not_ready_is_reported_and_not_written(
    source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, mode: str,
    code: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("STAND_IN_MODE", mode)
    report = source.with_name("report.md")
    assert prepare(source, "--report", report) == 3
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code
    assert "**Refused**" in report.read_text() or "**Not ready:**" in report.read_text()
    assert {path.name for path in source.parent.iterdir()} == {"gold.raw", "report.md"}


def test_a_name_that_is_taken_is_refused_before_the_engine_starts(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source.with_name("new.vhdx").write_bytes(b"precious")
    report = source.with_name("report.json")
    assert prepare(source, "--report", report) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "name-taken"
    assert source.with_name("new.vhdx").read_bytes() == b"precious"
    assert not report.exists()


def test_a_report_that_has_no_folder_is_told_before_the_engine_starts(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(source, "--report", source.with_name("no-such") / "report.json") == 2
    assert "no such folder" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert [path.name for path in source.parent.iterdir()] == ["gold.raw"]


def test_a_plan_writes_nothing(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = source.read_bytes()
    assert prepare(source, "--plan") == 0
    assert json.loads(capsys.readouterr().out)["action"] == "plan"
    assert source.read_bytes() == before
    assert [path.name for path in source.parent.iterdir()] == ["gold.raw"]
