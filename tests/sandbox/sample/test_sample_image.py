"""The sample as tools that are not ours see it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from imageport.sandbox.sample.build import build_sample
from imageport.sandbox.sample.disk_image import data_ranges
from imageport.sandbox.sample.programs import run
from imageport.sandbox.sample.recipe import (
    DISK_BYTES,
    DISK_GUID,
    WINDOWS_GUID,
    Variant,
    recipe_id,
)

BLOCK = 32 * 1024 * 1024


def test_it_is_a_sound_dynamic_vhdx_with_the_blocks_of_a_pvs_disk(small_vhdx: Path):
    run(["qemu-img", "check", small_vhdx])
    facts = json.loads(run(["qemu-img", "info", "--output=json", small_vhdx]))
    assert facts["format"] == "vhdx"
    assert facts["virtual-size"] == DISK_BYTES
    raw = small_vhdx.read_bytes()[: 4 * 1024 * 1024]
    # [MS-VHDX] 2.6.2.1 File Parameters: block size, then flags (not fixed, no parent).
    assert BLOCK.to_bytes(4, "little") + bytes(4) in raw


def test_it_has_blocks_of_written_zeros_and_blocks_never_written(
    small_vhdx: Path, raw_of: Callable[[Variant], Path]
):
    allocated = small_vhdx.stat().st_size // BLOCK
    written = {at // BLOCK for at, _ in data_ranges(raw_of(Variant.SMALL))}
    assert len(written) < allocated < DISK_BYTES // BLOCK // 4


def test_its_partitions_are_those_that_the_boot_store_names(
    raw_of: Callable[[Variant], Path],
):
    table = json.loads(run(["sfdisk", "--json", raw_of(Variant.SMALL)]))["partitiontable"]
    assert table["label"] == "gpt"
    assert table["id"].lower() == str(DISK_GUID)
    assert [part["name"] for part in table["partitions"]] == [
        "EFI system partition",
        "Microsoft reserved partition",
        "Basic data partition",
    ]
    assert table["partitions"][2]["uuid"].lower() == str(WINDOWS_GUID)


def test_its_ntfs_is_clean_and_its_hives_are_closed_to_users(
    volume_of: Callable[[Variant], Path],
):
    volume = volume_of(Variant.SMALL)
    assert "0x0000" in _line(run(["ntfsinfo", "-m", volume]), "Volume Flags")
    shown = run(["ntfssecaudit", volume, "/Windows/System32/config/SYSTEM"])
    assert "mode 0700" in shown
    assert "mode 0755" in run(["ntfssecaudit", volume, "/Windows/System32/drivers"])


def test_it_is_taken_from_the_cache_when_the_recipe_is_the_same(tmp_path: Path, small_vhdx: Path):
    copy = build_sample(tmp_path / "copy.vhdx", Variant.SMALL)
    run(["cmp", copy, small_vhdx])
    assert copy.stat().st_blocks * 512 < copy.stat().st_size


def test_two_processes_that_need_it_at_once_build_it_once(tmp_path: Path):
    samples = tmp_path / "cache/samples"
    samples.mkdir(parents=True)
    (samples / "small-0.vhdx").write_bytes(b"of a recipe of long ago")
    os.utime(samples / "small-0.vhdx", (0, 0))
    environment = os.environ | {"IMAGEPORT_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "imageport.sandbox.sample.build"]
    running = [
        subprocess.Popen([*command, str(tmp_path / f"{n}.vhdx"), "bitlocker"], env=environment)
        for n in range(2)
    ]
    assert [process.wait(120) for process in running] == [0, 0]
    run(["cmp", tmp_path / "0.vhdx", tmp_path / "1.vhdx"])  # its GUIDs are random at each build
    kept = sorted(path.suffix for path in samples.iterdir())
    assert kept == [".lock", ".vhdx"]


def test_each_variant_is_another_recipe():
    assert len({recipe_id(variant) for variant in Variant}) == len(Variant)


@pytest.mark.slow
@pytest.mark.guest
def test_guest_inspection_takes_it_for_64_bit_windows(small_vhdx: Path):
    environment = os.environ | {
        "LIBGUESTFS_BACKEND": "direct",
        "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg",
    }
    text = subprocess.run(
        ["virt-inspector", "-a", small_vhdx],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    # libguestfs before 1.50 calls every Windows 11 "win10"; ProductName says 10 on real ones too.
    assert "<osinfo>win1" in text
    assert "<arch>x86_64</arch>" in text
    assert "<product_variant>Client</product_variant>" in text
    assert "Citrix Provisioning Target Device x64" in text
    assert "VMware Tools" in text


def _line(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.strip().startswith(start))
