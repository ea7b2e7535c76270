"""The second upload of an image sends what changed, on every cloud, and the result is exact."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import BLOCK_BYTES, MIB, ExtentState
from imageport.state.records import Generation
from imageport.workflow.facts import source_facts
from imageport.workflow.upload import stats_of, upload
from tests.end_to_end.conftest import run
from tests.end_to_end.lab_clouds import LAB_CLOUDS
from tests.end_to_end.laboratory import Laboratory, open_laboratory

pytestmark = pytest.mark.timeout(600)

DISK_MIB, DATA_MIB = 96, 50
CHANGED = 31 * MIB
"""Where half a MiB changes: one block of 100, one per cent of the data."""


def make_disk(path: Path, disk_mib: int = DISK_MIB, data_mib: int = DATA_MIB) -> None:
    """A VHDX by QEMU: a partition table and data that compress to nothing less."""
    raw = path.with_suffix(".raw")
    with raw.open("wb") as file:
        file.truncate(disk_mib * MIB)
    run("sgdisk", "--clear", "--new=1:2048:0", raw)
    with raw.open("r+b") as file:
        file.seek(MIB)
        for _ in range(data_mib):
            file.write(os.urandom(MIB))
    run("qemu-img", "convert", "-O", "vhdx", "-o", "block_size=8M", raw, path)
    raw.unlink()


@pytest.fixture(scope="module", params=sorted(LAB_CLOUDS))
def laboratory(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Laboratory]:
    root = tmp_path_factory.mktemp(f"delta-{request.param}")
    with open_laboratory(root, make_disk, request.param) as opened:
        yield opened


def uploaded(laboratory: Laboratory, name: str) -> Generation:
    store = laboratory.store("source-store")
    key = source_facts(store, "gold").source_key
    return upload(laboratory.place(name), store, "gold", source_key=key)


def write_raw(disk: VirtualDisk, path: Path) -> None:
    with path.open("wb") as out:
        out.truncate(disk.size_bytes)
        for extent in disk.extents():
            if extent.state is ExtentState.DATA:
                for offset, piece in disk.read_many([(extent.offset_bytes, extent.length_bytes)]):
                    out.seek(offset)
                    out.write(piece)


def test_one_per_cent_changed_sends_at_most_one_point_two(
    laboratory: Laboratory, tmp_path: Path
) -> None:
    source = laboratory.share("source-store") / "gold.vhdx"
    first = uploaded(laboratory, "first")
    data_bytes = stats_of(first).bytes_sent
    assert data_bytes >= DATA_MIB * MIB
    run("qemu-io", "-f", "vhdx", "-c", f"write -q -P 77 {CHANGED} {BLOCK_BYTES}", source)
    second = uploaded(laboratory, "second")
    assert second.parent_id == first.id
    stats = stats_of(second)
    assert 0 < stats.bytes_sent <= 0.012 * data_bytes
    copy = tmp_path / "second.raw"
    reference = second.handle["snapshot_id"]
    with laboratory.place("check").cloud.open_snapshot(reference) as disk:
        write_raw(disk, copy)
    run("qemu-img", "compare", "-f", "raw", "-F", "vhdx", copy, source)


def test_an_image_that_shrank_or_lost_data_shows_nothing_of_its_parent(
    laboratory: Laboratory, tmp_path: Path
) -> None:
    source = laboratory.share("source-store") / "gold.vhdx"
    zeroed = f"write -q -z {8 * MIB} {16 * MIB}"
    run("qemu-io", "-f", "vhdx", "-c", zeroed, source)
    third = uploaded(laboratory, "third")
    copy = tmp_path / "third.raw"
    with laboratory.place("check").cloud.open_snapshot(third.handle["snapshot_id"]) as disk:
        write_raw(disk, copy)
    with copy.open("rb") as file:
        file.seek(8 * MIB)
        assert not any(file.read(16 * MIB))
    run("qemu-img", "compare", "-f", "raw", "-F", "vhdx", copy, source)
