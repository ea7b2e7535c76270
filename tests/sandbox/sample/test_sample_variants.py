"""Each image that must be refused shows its fault to tools that are not ours."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from imageport.sandbox.sample.programs import run
from imageport.sandbox.sample.recipe import (
    ESP,
    MBR_SIGNATURE,
    MIB,
    SYSTEM_RESERVED,
    WINDOWS_ALONE,
    WINDOWS_BESIDE_IT,
    Partition,
    Variant,
    windows_partition,
)

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


@pytest.mark.parametrize(
    ("variant", "partitions"),
    [
        (Variant.MBR, [(SYSTEM_RESERVED, True), (WINDOWS_BESIDE_IT, False)]),
        (Variant.MBR_ALONE, [(WINDOWS_ALONE, True)]),
    ],
)
def test_an_mbr_disk_starts_from_its_first_partition(
    raw_of: Make, variant: Variant, partitions: list[tuple[Partition, bool]]
):
    table = json.loads(run(["sfdisk", "--json", raw_of(variant)]))["partitiontable"]
    assert (table["label"], table["id"]) == ("dos", f"{MBR_SIGNATURE:#x}")
    assert [
        (part["type"], part["start"] * 512, part["size"] * 512, part.get("bootable", False))
        for part in table["partitions"]
    ] == [("7", part.first, part.size, active) for part, active in partitions]


@pytest.mark.parametrize("variant", [Variant.MBR, Variant.MBR_ALONE])
def test_the_active_partition_of_an_mbr_disk_holds_manager_and_boot_store(
    raw_of: Make, variant: Variant
):
    raw = raw_of(variant)
    active = SYSTEM_RESERVED if variant is Variant.MBR else WINDOWS_ALONE
    volume = raw.with_suffix(".ntfs")
    run(["dd", f"if={raw}", f"of={volume}", "bs=1M", f"skip={active.first // MIB}",
         f"count={active.size // MIB}", "conv=sparse", "status=none"])  # fmt: skip
    assert "bootmgr" in run(["ntfsls", volume])
    store = raw.with_suffix(".bcd")
    with store.open("wb") as file:
        subprocess.run(["ntfscat", volume, "/Boot/BCD"], stdout=file, check=True)
    manager = "\\Objects\\{9dea862c-5cdd-4e70-acc1-f32b344d4795}"
    entry = run(["hivexget", store, f"{manager}\\Elements\\23000003", "Element"]).strip()
    for key, needed in (
        (f"{manager}\\Elements\\11000001", active),
        (f"\\Objects\\{entry}\\Elements\\21000001", windows_partition(variant)),
    ):
        shown = run(["hivexregedit", "--export", store, key])
        element = bytes.fromhex(shown.rpartition(":")[2].strip().replace(",", ""))
        assert struct.unpack_from("<Q16xI", element, 32)[0] == needed.first
        assert struct.unpack_from("<II", element, 52) == (1, MBR_SIGNATURE)
    loader = run(["hivexget", store, f"\\Objects\\{entry}\\Elements\\12000002", "Element"])
    assert loader.strip().endswith("winload.exe")


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
