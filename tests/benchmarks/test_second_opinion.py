"""Preparing the same guest by imageport and by virt-v2v: what each changed and missed, and times.

``pytest -s tests/benchmarks/test_second_opinion.py`` prints the table that docs/second-opinion.md
holds. virt-v2v (Debian: virt-v2v, nbdkit) is a peer: where it is not installed this says so.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from imageport.sandbox.sample.build import build_raw_sample
from imageport.sandbox.sample.driver_package import write_package
from imageport.sandbox.sample.recipe import Variant
from tests.benchmarks.contest import say
from tests.benchmarks.second_opinion import (
    QUESTIONS,
    Prepared,
    read_prepared,
    sequence_numbers,
    version_of,
)

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting the guests' volumes needs root"),
]


@dataclass(frozen=True, slots=True)
class Run:
    """What one way cost, and how it ended."""

    seconds: float
    cpu_seconds: float
    code: int
    said: str


def measured(argv: list[str | Path], environment: dict[str, str]) -> Run:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        argv, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(time.monotonic() - started, cpu, done.returncode, done.stdout + done.stderr)


def by_imageport(guest: Path, work: Path) -> tuple[Run, Path]:
    payload = work / "payload"
    write_package("vioscsi", payload / "vioscsi")
    write_package("netkvm", payload / "netkvm")
    made, raw = work / "imageport.vhdx", work / "imageport.raw"
    argv = [sys.executable, "-m", "imageport", "prepare", guest, made, "--target", "gcp"]
    run = measured([*argv, "--payload", payload, "--report", work / "report.json"], {})
    if run.code == 0:
        subprocess.run(["qemu-img", "convert", "-O", "raw", made, raw], check=True)
    return run, raw


def by_virt_v2v(guest: Path, work: Path) -> tuple[Run, Path]:
    tools, virtio, out = work / "tools", work / "virtio", work / "out"
    for folder in (tools, out):
        folder.mkdir(parents=True)
    for name in ("rhsrvany.exe", "pnp_wait.exe"):  # what virt-v2v's first boot runs on
        (tools / name).write_bytes(b"MZ stand-in")
    write_package("vioscsi", virtio / "vioscsi/w10/amd64")
    _offer_block_driver(virtio)
    write_package("netkvm", virtio / "NetKVM/w10/amd64")
    environment = {
        "LIBGUESTFS_BACKEND": "direct",
        "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg",
        "VIRT_TOOLS_DATA_DIR": str(tools),
        "VIRTIO_WIN": str(virtio),
    }
    argv: list[str | Path] = ["virt-v2v", "-i", "disk", guest, "-o", "local", "-os", out]
    run = measured(argv, environment)
    return run, out / f"{guest.stem}-sda"


def _offer_block_driver(virtio: Path) -> None:
    """Offer viostor too, a copy of the other package: the one disk driver that 2.2 puts in."""
    folder = virtio / "viostor/w10/amd64"
    folder.mkdir(parents=True)
    for file in (virtio / "vioscsi/w10/amd64").iterdir():
        shutil.copyfile(file, folder / file.name.replace("vioscsi", "viostor"))


@pytest.fixture(scope="module")
def peer() -> str:
    if shutil.which("virt-v2v") is None or shutil.which("nbdkit") is None:
        pytest.skip("virt-v2v and nbdkit are not installed: nothing to compare with")
    return version_of("virt-v2v")


def test_the_same_guest_prepared_by_both(peer: str, tmp_path: Path) -> None:
    guest = build_raw_sample(tmp_path / "guest.raw", Variant.SMALL)
    before = read_prepared(guest, tmp_path / "before", None)
    ways: dict[str, Callable[[Path, Path], tuple[Run, Path]]] = {
        "imageport": by_imageport,
        "virt-v2v": by_virt_v2v,
    }
    runs: dict[str, Run] = {}
    results: dict[str, Prepared] = {"before": before}
    for name, way in ways.items():
        work = tmp_path / name
        work.mkdir()
        run, raw = way(guest, work)
        assert run.code == 0, run.said[-2000:]
        runs[name], results[name] = run, read_prepared(raw, work / "read", before)
        raw.unlink()
    say(f"{peer}, Windows 11 from VMware, virtio drivers offered to both")
    for question, answer in QUESTIONS:
        cells = [answer(results[name]) for name in ("before", *ways)]
        say(f"| {question} | {' | '.join(cells)} |")
    for name, run in runs.items():
        say(f"{name:<10} {run.seconds:6.1f} s   CPU {run.cpu_seconds:6.1f} s")
    ratio = runs["virt-v2v"].seconds / runs["imageport"].seconds
    say(f"virt-v2v takes {ratio:.2f} times as long\n")


def test_a_hive_whose_changes_still_lie_in_its_logs(peer: str, tmp_path: Path) -> None:
    guest = build_raw_sample(tmp_path / "guest.raw", Variant.DIRTY_HIVE)
    before = read_prepared(guest, tmp_path / "before", None)
    ours, _ = by_imageport(guest, tmp_path)
    theirs, raw = by_virt_v2v(guest, tmp_path)
    say(f"sequence numbers before: {sequence_numbers(before.hives['SYSTEM'])}")
    say(f"imageport exit code {ours.code}: {ours.said.strip().splitlines()[-1][:160]}")
    say(f"{peer} exit code {theirs.code}")
    if theirs.code == 0:
        after = read_prepared(raw, tmp_path / "after", before)
        say(f"sequence numbers after: {sequence_numbers(after.hives['SYSTEM'])}\n")
