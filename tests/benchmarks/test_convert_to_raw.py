"""Every format that is read, to a raw file, against `qemu-img convert`.

Two images: one of 2 GiB with 1 GiB of data, half of it random and half text, and one of 64 GiB with
96 MiB of data in it. Both tools read the same file, made by qemu-img, from a warm page cache, write
to the same file system (in memory where there is room) and flush. Each runs three times, in turns;
the best counts. Our time is that of the work: what it takes to start Python is told beside it.

Figures are printed; only bytes are asserted, because time belongs to the machine.
``pytest tests/benchmarks -m benchmark -s -k convert`` shows them.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from imageport.model import GIB, MIB
from tests.benchmarks.contest import say

SCRIPT = Path(__file__).with_name("convert_contender.py")
MEMORY = Path("/dev/shm")  # noqa: S108 - a file system in memory, not a place for secrets
NEEDED_BYTES = 5 * GIB
RUNS = 3


class Form(NamedTuple):
    """A format as qemu-img writes it; ``reads`` is how qemu-img is told to read it."""

    title: str
    writes: str
    options: str = ""
    flags: tuple[str, ...] = ()

    @property
    def reads(self) -> str:
        return self.writes


Figures = dict[str, float]

FORMS = (
    Form("raw", "raw"),
    Form("VHDX", "vhdx", "block_size=32M,block_state_zero=off"),
    Form("VHD fixed", "vpc", "subformat=fixed,force_size=on"),
    Form("VHD dynamic", "vpc", "subformat=dynamic,force_size=on"),
    Form("VMDK sparse", "vmdk", "subformat=monolithicSparse"),
    Form("VMDK split", "vmdk", "subformat=twoGbMaxExtentSparse"),
    Form("VMDK flat", "vmdk", "subformat=monolithicFlat"),
    Form("VMDK stream", "vmdk", "subformat=streamOptimized"),
    Form("qcow2", "qcow2"),
    Form("qcow2 zlib", "qcow2", flags=("-c",)),
)


def text(dice: random.Random, length: int) -> bytes:
    """Words that compress as log files and programs do."""
    words = [dice.randbytes(dice.randint(2, 5)).hex().encode() for _ in range(4000)]
    found = b" ".join(dice.choices(words, k=length // 6))
    return found[:length].ljust(length)


def make_full(path: Path) -> None:
    dice = random.Random(2)  # noqa: S311 - contents
    with path.open("wb") as file:
        file.truncate(2 * GIB)
        file.write(bytes(510) + b"\x55\xaa")
        for place in range(0, 2 * GIB, 32 * MIB):
            file.seek(place + 4 * MIB)
            file.write(dice.randbytes(8 * MIB))
            file.write(text(dice, 8 * MIB))


def make_sparse(path: Path) -> None:
    dice = random.Random(3)  # noqa: S311 - contents
    with path.open("wb") as file:
        file.truncate(64 * GIB)
        file.write(bytes(510) + b"\x55\xaa")
        for number, place in enumerate(sorted(dice.sample(range(1, 64 * 1024), 96))):
            file.seek(place * MIB)
            file.write(text(dice, MIB) if number % 2 else dice.randbytes(MIB))


IMAGES = {"full": make_full, "sparse": make_sparse}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= NEEDED_BYTES:
        with tempfile.TemporaryDirectory(dir=MEMORY) as name:
            yield Path(name)
    else:
        yield tmp_path_factory.mktemp("convert")


@pytest.fixture(scope="module", params=IMAGES)
def image(request: pytest.FixtureRequest, folder: Path) -> Iterator[Path]:
    path = folder / f"{request.param}.raw"
    IMAGES[request.param](path)
    kind = "in memory" if MEMORY in path.parents else "on disk"
    allocated = path.stat().st_blocks * 512 / MIB
    say(f"{path.stem}: {path.stat().st_size / GIB:.0f} GiB, {allocated:.0f} MiB of data, {kind}")
    say(
        f"{'':<12} {'qemu-img':>9} {'imageport':>9} {'ratio':>6}  "
        f"{'CPU':>9} {'CPU':>9} {'ratio':>6}  {'started':>9} {'peak':>9}"
    )
    yield path
    path.unlink()
    say("")


def made_by_qemu(image: Path, form: Form) -> Path:
    """Return the disk to read; further files of it lie beside it."""
    if form.writes == "raw":
        return image
    place = image.with_suffix(".source")
    place.mkdir()
    options = ["-o", form.options] if form.options else []
    argv = ["qemu-img", "convert", "-f", "raw", "-O", form.writes, *form.flags, *options]
    subprocess.run([*argv, image, place / "disk.img"], check=True, capture_output=True)
    return place / "disk.img"


def theirs(form: Form, source: Path, destination: Path) -> Figures:
    argv = ["qemu-img", "convert", "-t", "writeback", "-f", form.reads, "-O", "raw"]
    started = time.monotonic()
    with subprocess.Popen([*argv, source, destination]) as child:
        _pid, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    seconds = time.monotonic() - started
    return {"seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime}


def ours(source: Path, destination: Path) -> Figures:
    argv = [sys.executable, str(SCRIPT), str(source), str(destination)]
    started = time.monotonic()
    done = subprocess.run(argv, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    found: Figures = json.loads(done.stdout)
    return found | {"wall": time.monotonic() - started}


def tell(form: Form, them: Figures, us: Figures) -> None:
    seconds, cpu = ((them[name], us[name]) for name in ("seconds", "cpu_seconds"))
    say(
        f"{form.title:<12} {seconds[0]:7.2f} s {seconds[1]:7.2f} s {seconds[0] / seconds[1]:6.2f}  "
        f"{cpu[0]:7.2f} s {cpu[1]:7.2f} s {cpu[0] / cpu[1]:6.2f}  "
        f"{us['wall']:7.2f} s {us['peak_mib']:5.0f} MiB"
    )


@pytest.mark.benchmark
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.title.replace(" ", "-"))
def test_a_disk_becomes_raw_with_no_byte_more_than_qemu_writes(image: Path, form: Form):
    source = made_by_qemu(image, form)
    one, other = image.with_suffix(".theirs"), image.with_suffix(".ours")
    them: list[Figures] = []
    us: list[Figures] = []
    try:
        for run in range(RUNS):
            for path in (one, other):
                path.unlink(missing_ok=True)
            them.append(theirs(form, source, one))
            us.append(ours(source, other))
            if not run:
                same = ["qemu-img", "compare", "-f", "raw", "-F", "raw", one, other]
                subprocess.run(same, check=True, capture_output=True)
        tell(form, *(min(all_, key=lambda found: found["seconds"]) for all_ in (them, us)))
        # A format keeps whole grains or blocks, of which qemu-img leaves out the zeros.
        assert other.stat().st_blocks <= one.stat().st_blocks * 1.5 + 64 * MIB // 512
        assert other.stat().st_size == image.stat().st_size
    finally:
        for path in (one, other):
            path.unlink(missing_ok=True)
        if source != image:
            shutil.rmtree(source.parent)
