"""Both workflows to all three clouds at once, from one read; each result held against QEMU.

What needs a guest is left to the stories: engine and guest are small programs here that write where
the test looks. Machines, disks, snapshots, object stores and shares are those of the stories.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from imageport.clouds import engine_setup
from imageport.compose.build_engine import BuiltEngine
from imageport.formats.opening import open_disk
from imageport.model import MIB, ExtentState, TransferStats
from imageport.state.records import Generation
from imageport.workflow.choices import PrepareChoices
from imageport.workflow.facts import source_facts
from imageport.workflow.place import Workplace
from imageport.workflow.prepare import prepare
from imageport.workflow.publish import publish
from tests.clouds.stand_in_engine import build_of
from tests.end_to_end.conftest import make_small_disk
from tests.end_to_end.lab_clouds import LAB_CLOUDS, running
from tests.end_to_end.laboratory import Laboratory
from tests.end_to_end.master_laboratory import open_master_laboratory
from tests.end_to_end.story import run
from tests.workflow.many_uploads import FanOut, upload_to_many

pytestmark = pytest.mark.timeout(600)

VDISK = "silver"
COMPOSED_AT, BOOTED_AT = 60 * MIB, 70 * MIB
"""Behind the data, where the disk has a hole."""
ENGINE = f"""
import json, sys
from pathlib import Path
job = json.loads(Path(sys.argv[1]).read_text())
if job["action"] == "compose":
    with open(job["disk"]["path"], "r+b") as disk:
        disk.seek({COMPOSED_AT})
        disk.write(b"composed")
Path(sys.argv[2]).write_text(json.dumps(
    {{"schema": 1, "action": job["action"], "ok": True, "engine_id": "stand-in"}}
))
"""
GUEST = f"""
import json, sys
from pathlib import Path
with open(sys.argv[1], "r+b") as disk:
    disk.seek({BOOTED_AT})
    disk.write(b"booted")
Path(sys.argv[2]).write_text(json.dumps({{"outcome": "shutdown"}}))
"""


@dataclass
class Matrix:
    """One source site with a vCenter, and an account in every cloud."""

    labs: dict[str, Laboratory]
    """By cloud; they share stores and state."""
    sources: dict[str, tuple[str, str, Path]]
    """Workflow → share and name of its image, and the disk as it was made, raw."""

    def places(self, run_name: str) -> list[Workplace]:
        return [lab.place(run_name) for lab in self.labs.values()]

    def prepared(self, run_name: str, uploaded: Generation, lab: Laboratory) -> Generation:
        choices = PrepareChoices(engine=lab.choices().engine, boot_deadline_seconds=120.0)
        return prepare(lab.place(run_name), uploaded.id, choices)

    def published(self, run_name: str, prepared: Generation, lab: Laboratory, name: str) -> Path:
        store = lab.store("target-store")
        found = publish(lab.place(run_name), prepared.id, store, name)
        lab.story[name] = TransferStats(**found.stats)
        return lab.share("target-store") / found.file_name


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    root = tmp_path_factory.mktemp("matrix")
    guest = root / "guest.py"
    guest.write_text(GUEST)
    with ExitStack() as stack:
        first = stack.enter_context(open_master_laboratory(root / "site", make_small_disk))
        first.export("run-0")
        labs: dict[str, Laboratory] = {"aws": first}
        for name in sorted(LAB_CLOUDS.keys() - {"aws"}):
            account, service = stack.enter_context(running(name, root))
            labs[name] = replace(first, cloud=account, service=service, story={}, seconds={})
        for lab in labs.values():
            lab.service.turn(boot_command=[sys.executable, str(guest)])
        vdisk = first.share("source-store") / f"{VDISK}.vhdx"
        make_small_disk(vdisk)
        raw = root / "vdisk.raw"
        run("qemu-img", "convert", "-f", "vhdx", "-O", "raw", vdisk, raw)
        sources = {
            "pvs-to-pvs": ("source-store", VDISK, raw),
            "mcs-to-pvs": ("exports", "gold", first.flat_file),
        }
        yield Matrix(labs, sources)


@pytest.fixture(autouse=True)
def _engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(path: Path) -> BuiltEngine:
        return build_of(ENGINE, path)

    monkeypatch.setattr(engine_setup, "build_engine", build)


def uploaded_everywhere(matrix: Matrix, workflow: str, run_name: str) -> FanOut:
    share, vdisk, _ = matrix.sources[workflow]
    store = matrix.labs["aws"].store(share)
    key = source_facts(store, vdisk).source_key
    return upload_to_many(matrix.places(run_name), store, vdisk, source_key=key)


def allocated(matrix: Matrix, workflow: str) -> int:
    """Return what one upload reads: all that the VHDX has allocated."""
    share, vdisk, _ = matrix.sources[workflow]
    store = matrix.labs["aws"].store(share)
    with open_disk(store.folder.open_read(f"{vdisk}.vhdx"), store.folder) as disk:
        found = (item for item in disk.extents() if item.state is ExtentState.DATA)
        return sum(item.length_bytes for item in found)


# The short form takes the longer way alone: what was exported is from there on a vDisk as any.
@pytest.mark.parametrize(
    "workflow", [pytest.param("pvs-to-pvs", marks=pytest.mark.slow), "mcs-to-pvs"]
)
def test_one_read_brings_an_image_to_all_clouds_and_into_the_store_as_it_was_made(
    matrix: Matrix, workflow: str, tmp_path: Path
) -> None:
    found = uploaded_everywhere(matrix, workflow, f"run-{workflow}")
    assert [outcome.error for outcome in found.outcomes] == [None] * len(matrix.labs)
    assert 0 < found.bytes_read <= 1.05 * allocated(matrix, workflow)

    def carry_on(number: int) -> Path:
        lab = list(matrix.labs.values())[number]
        made = found.outcomes[number].made
        assert made is not None
        prepared = matrix.prepared(f"run-{workflow}", made.generation, lab)
        name = f"{workflow}-{lab.cloud.name}"
        return matrix.published(f"run-{workflow}", prepared, lab, name)

    with ThreadPoolExecutor(len(matrix.labs)) as pool:
        published = list(pool.map(carry_on, range(len(matrix.labs))))
    expected = _as_it_has_to_be(matrix.sources[workflow][2], tmp_path)
    for path in published:
        run("qemu-img", "check", "-f", "vhdx", path)
        run("qemu-img", "compare", "-f", "raw", "-F", "vhdx", expected, path)


def test_all_clouds_have_it_so_nothing_is_read_again(matrix: Matrix) -> None:
    again = uploaded_everywhere(matrix, "mcs-to-pvs", "run-again")
    assert [outcome.error for outcome in again.outcomes] == [None] * len(matrix.labs)
    assert again.bytes_read == 0


def test_a_cloud_that_refuses_stops_no_other(matrix: Matrix) -> None:
    vdisk = matrix.labs["aws"].share("source-store") / f"{VDISK}.vhdx"
    run("qemu-io", "-f", "vhdx", "-c", f"write -q -P 99 {9 * MIB} {MIB}", vdisk)  # new content
    azure = matrix.labs["azure"].service
    azure.turn(denied=["Microsoft.Compute/disks/write"])
    try:
        found = uploaded_everywhere(matrix, "pvs-to-pvs", "run-refused")
    finally:
        azure.turn(denied=[])
    by_cloud = dict(zip(matrix.labs, found.outcomes, strict=True))
    assert by_cloud["azure"].error is not None
    assert "[permission-missing]" in by_cloud["azure"].words
    for name in matrix.labs.keys() - {"azure"}:
        made = by_cloud[name].made
        assert made is not None, by_cloud[name].words
        assert matrix.labs[name].place("check").cloud.exists(made.generation.handle["snapshot_id"])
    assert found.bytes_read <= 1.05 * allocated(matrix, "pvs-to-pvs")


def _as_it_has_to_be(source: Path, folder: Path) -> Path:
    """Return the source with what engine and guest wrote."""
    expected = folder / "expected.raw"
    run("cp", "--sparse=always", source, expected)
    with expected.open("r+b") as disk:
        for place, text in ((COMPOSED_AT, b"composed"), (BOOTED_AT, b"booted")):
            os.pwrite(disk.fileno(), text, place)
    return expected
