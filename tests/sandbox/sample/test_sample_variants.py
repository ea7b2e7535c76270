"""Each image that must be refused shows its fault to tools that are not ours."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from imageport.sandbox.sample.programs import run
from imageport.sandbox.sample.recipe import ESP, Variant

Make = Callable[[Variant], Path]


def test_a_hibernated_image_is_not_mounted_for_writing(volume_of: Make, tmp_path: Path):
    mount = tmp_path / "mount"
    mount.mkdir()
    done = subprocess.run(
        ["ntfs-3g", volume_of(Variant.HIBERNATED), mount],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        run(["umount", mount])
    assert "hibernated" in done.stderr


def test_a_dirty_volume_says_so(volume_of: Make):
    text = run(["ntfsinfo", "-m", "-f", volume_of(Variant.DIRTY_NTFS)])
    assert "0x0001 DIRTY" in text


def test_a_bitlocker_volume_is_recognised(volume_of: Make):
    assert 'TYPE="BitLocker"' in run(["blkid", "-p", volume_of(Variant.BITLOCKER)])


def test_a_dirty_hive_has_unequal_sequence_numbers_and_no_log(volume_of: Make):
    volume = volume_of(Variant.DIRTY_HIVE)
    names = run(["ntfsls", "-p", "/Windows/System32/config", volume])
    assert "SYSTEM.LOG" not in names
    hive = volume.with_suffix(".hive")
    with hive.open("wb") as file:
        subprocess.run(
            ["ntfscat", volume, "/Windows/System32/config/SYSTEM"], stdout=file, check=True
        )
    first, second = struct.unpack_from("<II", hive.read_bytes(), 4)
    assert first == second + 1
    assert run(["hivexget", hive, "Select", "Current"]).strip() == "1"


def test_an_mbr_disk_has_one_active_ntfs_partition_and_no_esp(raw_of: Make):
    table = json.loads(run(["sfdisk", "--json", raw_of(Variant.MBR)]))["partitiontable"]
    assert table["label"] == "dos"
    assert [(part["type"], part["bootable"]) for part in table["partitions"]] == [("7", True)]


def test_an_image_without_pvs_has_neither_its_files_nor_its_services(volume_of: Make):
    volume = volume_of(Variant.NO_PVS)
    assert "bnistack6.sys" not in run(["ntfsls", "-p", "/Windows/System32/drivers", volume])
    assert "Provisioning Services" not in run(["ntfsls", "-p", "/Program Files/Citrix", volume])


@pytest.mark.parametrize(("variant", "there"), [("small", True), ("no_esp_loader", False)])
def test_the_fallback_loader_is_missing_only_where_it_must(raw_of: Make, variant: str, there: bool):
    names = run(
        ["mdir", "-b", "-/", "-i", f"{raw_of(Variant(variant))}@@{ESP.first}", "::/EFI"]
    ).lower()
    assert ("boot/bootx64.efi" in names.replace("microsoft/boot/", "")) is there
    assert "microsoft/boot/bootmgfw.efi" in names
    assert "microsoft/boot/bcd" in names
