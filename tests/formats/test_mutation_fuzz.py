"""Whatever a disk's files hold, only our errors come out, within 512 MiB and 10 s.

Each case damages a sound disk of `fuzz_seeds` as `fuzz_mutations` does; `fuzz_cases` runs it in
another process and says how a failure is played again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.formats import fuzz_cases
from tests.formats.fuzz_seeds import SEEDS

ROOT = Path(__file__).parents[2]
SHORT_CASES = 40
LONG_CASES = 1500
PARTS = 2


def run_cases(first: int, last: int, *kinds: str) -> dict[str, Any]:
    """Return what became of the cases of each kind; a process that dies is a finding, too."""
    argv = [sys.executable, "-m", "tests.formats.fuzz_cases", str(first), str(last), *kinds]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def short_run() -> dict[str, Any]:
    return run_cases(0, SHORT_CASES)


@pytest.mark.parametrize("kind", SEEDS)
def test_a_damaged_disk_gives_one_of_our_errors_or_a_whole_disk(
    short_run: dict[str, Any], kind: str
):
    assert not short_run[kind]["failures"], "\n".join(short_run[kind]["failures"])


def test_damage_reaches_behind_the_door_and_is_noticed(short_run: dict[str, Any]):
    accepted = sum(found["accepted"] for found in short_run.values())
    assert len(SEEDS) < accepted < len(SEEDS) * SHORT_CASES * 0.9


def test_what_a_reader_lets_out_is_told_with_the_case_that_plays_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sound: list[bool] = []

    def once_sound(_kind: str, files: dict[str, bytearray]) -> bool:
        if sound:
            return bool(files["disk.img"][2**70])
        sound.append(True)
        return True

    monkeypatch.setattr(fuzz_cases, "survive", once_sound)
    found = fuzz_cases.run_kind("raw", range(7, 9), tmp_path)
    assert len(found["failures"]) == 2
    assert found["failures"][0].startswith("case raw 7: ")
    assert "IndexError" in found["failures"][0]


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("kind", SEEDS)
def test_thousands_of_damaged_disks(kind: str, part: int):
    first = SHORT_CASES + part * LONG_CASES
    found = run_cases(first, first + LONG_CASES, kind)[kind]
    assert not found["failures"], "\n".join(found["failures"])
