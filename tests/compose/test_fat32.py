"""The EFI partition's empty file system, by the programs that check, list and fill FAT."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from imageport.compose.volumes.fat32 import fat32_writes
from imageport.errors import BadDisk
from imageport.sandbox.sample.programs import run

MIB = 1024 * 1024
SERIAL = 0xC38BB8A8


def volume_of(path: Path, size_mib: int, first_sector: int = 2048) -> Path:
    with path.open("wb") as file:
        file.write(b"\xff" * 8 * MIB)  # what lay there before must not show
        file.truncate(size_mib * MIB)
        for write in fat32_writes(size_mib * MIB, first_sector, SERIAL, "SYSTEM"):
            file.seek(write.offset_bytes)
            file.write(write.data)
    return path


@pytest.mark.parametrize(
    ("size_mib", "cluster_bytes"), [(34, 512), (100, 512), (260, 512), (549, 4096), (9000, 8192)]
)
def test_fsck_and_blkid_take_it(tmp_path: Path, size_mib: int, cluster_bytes: int) -> None:
    volume = volume_of(tmp_path / "esp", size_mib)
    told = run(["fsck.fat", "-n", "-v", volume])
    assert "2 FATs, 32 bit entries" in told
    assert f"{cluster_bytes} bytes per cluster" in told
    assert re.search(r"0 files|1 files", told)
    assert "2048 hidden sectors" in told
    known = run(["blkid", "-p", "-o", "export", volume])
    assert "VERSION=FAT32" in known
    assert "UUID=C38B-B8A8" in known
    assert "LABEL=SYSTEM" in known


def test_mtools_fill_it_to_the_end_and_read_it_back(tmp_path: Path) -> None:
    volume = volume_of(tmp_path / "esp", 34)
    content = bytes(range(256)) * 4096
    (tmp_path / "file").write_bytes(content)
    for number in range(33):
        run(["mcopy", "-i", volume, tmp_path / "file", f"::/{number}"])
    run(["fsck.fat", "-n", volume])
    run(["mcopy", "-n", "-i", volume, "::/32", tmp_path / "back"])
    assert (tmp_path / "back").read_bytes() == content


def test_it_depends_on_nothing_but_its_arguments(tmp_path: Path) -> None:
    first, again = (volume_of(tmp_path / name, 100) for name in ("a", "b"))
    assert first.read_bytes() == again.read_bytes()


def test_a_volume_that_would_be_fat16_is_refused() -> None:
    with pytest.raises(BadDisk, match="Bad FAT32 volume: found 6"):
        fat32_writes(32 * MIB, 2048, SERIAL, "SYSTEM")


def test_a_volume_with_more_sectors_than_can_be_counted_is_refused() -> None:
    with pytest.raises(BadDisk, match="needed 4294967295 at most"):
        fat32_writes(512 << 32, 2048, SERIAL, "SYSTEM")


def test_no_write_is_larger_than_a_message_to_the_appliance() -> None:
    assert max(len(one.data) for one in fat32_writes(260 * MIB, 0, 0, "X")) <= MIB
