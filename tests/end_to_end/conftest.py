"""Laboratories for long stories: one with a whole sample image, one with a small disk."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from imageport.sandbox.sample.build import build_sample
from imageport.sandbox.sample.recipe import Variant
from tests.end_to_end.lab_clouds import LAB_CLOUDS
from tests.end_to_end.laboratory import Laboratory, open_laboratory
from tests.end_to_end.story import cut_windows_volume, run

SMALL_DISK_MIB = 96
DATA_MIB = 48


@pytest.fixture(scope="module", params=sorted(LAB_CLOUDS))
def laboratory(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Laboratory]:
    def sample(path: Path) -> None:
        build_sample(path, Variant.SMALL)

    root = tmp_path_factory.mktemp(request.param)
    with open_laboratory(root, sample, request.param) as opened:
        yield opened


@pytest.fixture(
    scope="module",
    params=[
        "aws",
        pytest.param("azure", marks=pytest.mark.slow),
        pytest.param("gcp", marks=pytest.mark.slow),
    ],
)
def disk_laboratory(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Laboratory]:
    root = tmp_path_factory.mktemp(f"disks-{request.param}")
    with open_laboratory(root, make_small_disk, request.param) as opened:
        yield opened


@pytest.fixture(scope="module")
def windows_volume(
    laboratory: Laboratory, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The published Windows partition, cut out and mounted by ntfs-3g read-only."""
    folder = tmp_path_factory.mktemp(f"windows-{laboratory.cloud.name}")
    volume, mount = folder / "volume.raw", folder / "mount"
    raw: Path = laboratory.story["raw"]
    cut_windows_volume(raw, volume)
    laboratory.story["volume"] = volume
    mount.mkdir()
    run("ntfs-3g", "-o", "ro", volume, mount)
    yield mount
    run("umount", mount)


def make_small_disk(path: Path) -> None:
    """A VHDX by QEMU: a partition table, 48 MiB of data in 96 MiB, no guest."""
    raw = path.with_suffix(".raw")
    with raw.open("wb") as file:
        file.truncate(SMALL_DISK_MIB * 2**20)
    run("sgdisk", "--clear", "--new=1:2048:0", raw)
    run("qemu-img", "convert", "-O", "vhdx", "-o", "block_state_zero=off,block_size=8M", raw, path)
    raw.unlink()
    for mib in range(8, 8 + DATA_MIB):
        run("qemu-io", "-f", "vhdx", "-c", f"write -q -P {mib} {mib}M 1M", path)
