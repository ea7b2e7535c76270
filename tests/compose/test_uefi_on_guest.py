"""BIOS disks made UEFI disks by the real engine, checked with programs that no one here wrote.

sgdisk, fsck.fat, ntfsfix and ntfsresize judge what was written; OVMF with empty variables starts
it; the guest player plays the one boot by rules of its own.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from imageport.compose.contract import (
    Action,
    EngineDisk,
    EngineJob,
    EngineOptions,
    EngineReport,
)
from imageport.compose.site_engine import run_site_engine
from imageport.compose.volumes.partition_table import BASIC_DATA_TYPE, ESP_TYPE
from imageport.sandbox.firmware import boot_firmware
from imageport.sandbox.guest_player.play import play
from imageport.sandbox.guest_player.programs import PlayerError
from imageport.sandbox.sample.build import build_raw_sample, cached_sample
from imageport.sandbox.sample.driver_package import write_ena_package
from imageport.sandbox.sample.ntfs_volume import make_ntfs_volume
from imageport.sandbox.sample.programs import run
from imageport.sandbox.sample.recipe import DISK_GUID, MBR_SIGNATURE, MIB, Partition, Variant
from imageport.sandbox.sample.windows_files import GuestFile, write_tar

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(1500)]

OPTIONS = EngineOptions(drivers=("ena",), convert_to_uefi=True)
OLD_IDENTITY = f"mbr:{MBR_SIGNATURE:08x}"


def a_job(action: Action, identity: str = OLD_IDENTITY) -> EngineJob:
    return EngineJob(action, EngineDisk("", identity), OPTIONS, run="test")


@dataclass(frozen=True, slots=True)
class Volumes:
    """The two partitions of a converted disk as files of their own, for tools without offsets."""

    esp: Path
    windows: Path
    esp_first_mib: int
    windows_mib: int


@dataclass(frozen=True, slots=True)
class Life:
    """One BIOS image after composing."""

    raw: Path
    composed: EngineReport
    volumes: Volumes


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("payload")
    write_ena_package(folder / "ena")
    return folder


def composed_life(folder: Path, variant: Variant, payload: Path) -> Life:
    raw = build_raw_sample(folder / "disk.raw", variant)
    report = run_site_engine(raw, a_job(Action.COMPOSE), payload=payload)
    assert report.ok, [item for item in report.verdict if not item.passed] or report.refusals
    return Life(raw, report, split(raw, folder))


def split(raw: Path, folder: Path) -> Volumes:
    found = json.loads(run(["sfdisk", "--json", raw]))["partitiontable"]["partitions"]
    parts = {part["type"].lower(): part for part in found}
    for kind, name in ((ESP_TYPE, "esp"), (BASIC_DATA_TYPE, "windows")):
        first, count = parts[kind]["start"] // 2048, parts[kind]["size"] // 2048
        run(["dd", f"if={raw}", f"of={folder / name}", "bs=1M", f"skip={first}", f"count={count}",
             "conv=sparse", "status=none"])  # fmt: skip
    esp, windows = parts[ESP_TYPE], parts[BASIC_DATA_TYPE]
    return Volumes(
        folder / "esp", folder / "windows", esp["start"] // 2048, windows["size"] // 2048
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, payload: Path) -> Iterator[Life]:
    """One partition over the whole disk: Windows shrinks, the EFI partition comes behind it."""
    life = composed_life(tmp_path_factory.mktemp("alone"), Variant.MBR_ALONE, payload)
    yield life
    life.raw.unlink()


@pytest.fixture(scope="module")
def reserved(tmp_path_factory: pytest.TempPathFactory, payload: Path) -> Iterator[Life]:
    """A System Reserved partition, which becomes the EFI partition."""
    life = composed_life(tmp_path_factory.mktemp("reserved"), Variant.MBR, payload)
    yield life
    life.raw.unlink()


def assert_foreign_tools_are_content(life: Life) -> None:
    assert "No problems found" in run(["sgdisk", "--verify", life.raw])
    run(["fsck.fat", "-n", life.volumes.esp])  # raises when anything is wrong
    run(["ntfsfix", "--no-action", life.volumes.windows])
    facts = run(["ntfsresize", "--info", "--no-progress-bar", life.volumes.windows])
    assert "Checking filesystem consistency" in facts


def assert_firmware_starts(life: Life, serial: Path) -> None:
    result = boot_firmware(life.raw, serial)
    assert "IMAGEPORT-SAMPLE: firmware started the fallback loader" in result.serial_text
    assert "IMAGEPORT-SAMPLE: boot store found" in result.serial_text
    assert result.powered_off


def test_windows_shrinks_and_firmware_starts_what_lies_behind_it(
    alone: Life, tmp_path: Path
) -> None:
    assert_foreign_tools_are_content(alone)
    assert_firmware_starts(alone, tmp_path / "serial.txt")
    assert alone.volumes.windows_mib == 8192 - 2 - 100
    assert alone.volumes.esp_first_mib == 1 + alone.volumes.windows_mib


def test_the_report_goes_by_the_new_identity_and_names_the_disks_changes(alone: Life) -> None:
    assert alone.composed.inspection.firmware == "uefi"
    identity = alone.composed.inspection.disk_guid
    printed = run(["sgdisk", "--print", alone.raw])
    assert f"Disk identifier (GUID): {identity.upper()}" in printed
    assert len(alone.composed.inspection.partitions) == 2
    disk = {one.path: one for one in alone.composed.changes if one.kind == "disk"}
    assert disk["partition table"].before.startswith(f"mbr {OLD_IDENTITY}; ")
    assert disk["partition table"].after.startswith(f"gpt {identity}; ")
    assert disk["Windows volume"].after == f"{alone.volumes.windows_mib * MIB} bytes"


def test_programs_of_the_image_lie_on_the_efi_partition(alone: Life, tmp_path: Path) -> None:
    kept = subprocess.run(
        ["ntfscat", alone.volumes.windows, "Windows/Boot/EFI/bootmgfw.efi"],
        check=True,
        capture_output=True,
    ).stdout
    for name in ("EFI/Boot/bootx64.efi", "EFI/Microsoft/Boot/bootmgfw.efi"):
        copy = tmp_path / "copy"
        run(["mcopy", "-n", "-o", "-i", alone.volumes.esp, f"::/{name}", copy])
        assert copy.read_bytes() == kept


def test_the_converted_image_boots_once_and_is_verified_and_converted_no_further(
    alone: Life, payload: Path, tmp_path: Path
) -> None:
    raw = tmp_path / "played.raw"
    run(["cp", "--sparse=always", alone.raw, raw])
    identity = alone.composed.inspection.disk_guid
    try:
        boot = play(raw, "")
    except PlayerError:
        pytest.skip("the guest player needs root on this machine")
    assert boot.outcome == "shutdown"
    assert "imageport-firstboot: done" in boot.console_text
    verified = run_site_engine(raw, a_job(Action.VERIFY, identity))
    assert verified.ok, [item for item in verified.verdict if not item.passed]
    again = run_site_engine(raw, a_job(Action.COMPOSE, identity), payload=payload)
    assert again.ok
    assert [one for one in again.changes if one.kind == "disk"] == []
    assert [one for one in again.changes if one.step == "convert_to_uefi"] == []
    assert again.inspection.disk_guid == identity


def test_a_system_reserved_partition_becomes_the_efi_partition(
    reserved: Life, tmp_path: Path
) -> None:
    assert_foreign_tools_are_content(reserved)
    assert_firmware_starts(reserved, tmp_path / "serial.txt")
    assert reserved.volumes.esp_first_mib == 1
    assert not [one for one in reserved.composed.changes if one.path == "Windows volume"]


def test_a_missing_fallback_loader_is_put_in_place_and_started(
    tmp_path: Path, payload: Path
) -> None:
    raw = build_raw_sample(tmp_path / "disk.raw", Variant.NO_ESP_LOADER)
    job = EngineJob(Action.COMPOSE, EngineDisk("", str(DISK_GUID)), EngineOptions(drivers=("ena",)))
    report = run_site_engine(raw, job, payload=payload)
    assert report.ok, [item for item in report.verdict if not item.passed] or report.refusals
    placed = [one.path for one in report.changes if one.step == "place_fallback_loader"]
    assert placed[-1] == "boot:\\EFI\\Boot\\bootx64.efi"
    result = boot_firmware(raw, tmp_path / "serial.txt")
    assert "firmware started the fallback loader" in result.serial_text


@pytest.mark.parametrize("variant", [Variant.MBR, Variant.MBR_ALONE])
def test_a_plan_says_the_same_and_leaves_every_byte(
    tmp_path: Path, payload: Path, request: pytest.FixtureRequest, variant: Variant
) -> None:
    raw = build_raw_sample(tmp_path / "disk.raw", variant)
    planned = run_site_engine(raw, a_job(Action.PLAN), payload=payload)
    assert planned.ok, planned.refusals
    assert planned.inspection.disk_guid == OLD_IDENTITY
    run(["qemu-img", "compare", "-f", "raw", "-F", "vhdx", raw, cached_sample(variant)])
    name = "reserved" if variant is Variant.MBR else "alone"
    life: Life = request.getfixturevalue(name)
    assert planned.changes == life.composed.changes


def disk_with(raw: Path, *lines: str) -> Path:
    """Partition an empty disk by sfdisk's own text."""
    with raw.open("wb") as file:
        file.truncate(128 * MIB)
    subprocess.run(
        ["/usr/sbin/sfdisk", "--quiet", raw], input="\n".join(lines), text=True, check=True
    )
    return raw


def put_volume(raw: Path, first_mib: int, volume: Path) -> None:
    run(["dd", f"if={volume}", f"of={raw}", "bs=1M", f"seek={first_mib}", "conv=notrunc,sparse",
         "status=none"])  # fmt: skip


def test_a_linux_disk_is_refused_by_what_its_partitions_hold(tmp_path: Path) -> None:
    raw = disk_with(tmp_path / "disk.raw", "label: dos", "1MiB,20MiB,83", "21MiB,40MiB,82")
    volume = tmp_path / "root.ext4"
    with volume.open("wb") as file:
        file.truncate(20 * MIB)
    run(["mkfs.ext4", "-q", volume])
    put_volume(raw, 1, volume)
    report = run_site_engine(raw, EngineJob(Action.INSPECT, EngineDisk("", "")))
    reasons = {one.code: one.reason for one in report.refusals}
    assert "Partition 1 holds ext4" in reasons["unknown_guest"]
    assert reasons["unknown_guest"].endswith("this looks like Linux.")


def test_two_windows_are_refused_with_both_partitions(tmp_path: Path) -> None:
    raw = disk_with(tmp_path / "disk.raw", "label: dos", "1MiB,60MiB,7,*", "64MiB,60MiB,7")
    contents, volume = tmp_path / "windows.tar", tmp_path / "windows.ntfs"
    write_tar(contents, iter([GuestFile("Windows/System32/config/SYSTEM", b"regf")]))
    make_ntfs_volume(volume, contents, Partition(1, "", "07", UUID(int=0), MIB, 60 * MIB))
    for first in (1, 64):
        put_volume(raw, first, volume)
    report = run_site_engine(raw, EngineJob(Action.INSPECT, EngineDisk("", "")))
    reasons = [one.reason for one in report.refusals if one.code == "unknown_guest"]
    assert reasons == ["Windows lies in partitions 1, 2."]


@pytest.mark.parametrize("variant", [Variant.SMALL, Variant.MBR_ALONE])
def test_a_dynamic_disk_is_refused_on_either_table(
    tmp_path: Path, payload: Path, variant: Variant
) -> None:
    raw = build_raw_sample(tmp_path / "disk.raw", variant)
    if variant is Variant.SMALL:
        run(["sgdisk", "--typecode=3:4200", raw])  # data partition of the Logical Disk Manager
    else:
        run(["sfdisk", "--part-type", raw, "1", "42"])
    report = run_site_engine(raw, a_job(Action.PLAN, identity=""), payload=payload)
    assert [one.code for one in report.refusals] == ["dynamic_disk"]
    assert "Convert the disk to basic" in report.refusals[0].hint
