"""From BIOS to UEFI on a guest of folders: boot files, boot store, drive letters, the loader."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from imageport.compose.boot_device import (
    boot_partition,
    partition_device,
    with_moved_partitions,
)
from imageport.compose.boot_store import BOOT_MANAGER, Element, element_device, element_text
from imageport.compose.cloud_target import TARGETS
from imageport.compose.contract import (
    Action,
    Change,
    EngineDisk,
    EngineJob,
    EngineOptions,
    Refusal,
    VerdictItem,
)
from imageport.compose.hives.hive import Hive
from imageport.compose.hives.registry import open_registry
from imageport.compose.hives.registry_value import Kind, Value
from imageport.compose.inspection import inspect
from imageport.compose.pending_volumes import keep_hives
from imageport.compose.recorder import Recorder
from imageport.compose.refusals import disk_refusals
from imageport.compose.step import Context, Facts, Step
from imageport.compose.steps.boot.convert_to_uefi import ConvertToUefi, boot_files_bytes
from imageport.compose.steps.boot.place_fallback_loader import PlaceFallbackLoader
from imageport.compose.uefi_disk import inspection_after
from imageport.compose.verdict.evidence import Evidence
from imageport.compose.verdict.judge import judge
from imageport.compose.volumes.efi_program import efi_program_problem
from imageport.compose.volumes.guest_files import PendingFiles
from imageport.compose.volumes.new_volume import NewVolume
from imageport.compose.volumes.partition_table import SECTOR_BYTES, PartitionTable
from imageport.compose.volumes.uefi_layout import MbrDisk, UefiLayout, UefiPlan, plan_uefi_layout
from imageport.errors import EngineFailed
from imageport.sandbox.sample import recipe
from imageport.sandbox.sample.guest_kind import Firmware, GuestKind

MEMORY_TEST = "{b2721d73-1db4-4c62-bf78-c548a880142d}"
LOADER = "{4c8f1a27-b5d0-11ee-9a63-0050569c17e4}"
RESUME = "{4c8f1a26-b5d0-11ee-9a63-0050569c17e4}"
RAM_DISK = "{572bcd55-ffa7-11d9-aae0-0007e994107d}"
STORE = "EFI/Microsoft/Boot/BCD"
OPTIONS = EngineOptions(convert_to_uefi=True)
FIRMWARE_ITEMS = ("boot_loader", "boot_store", "firmware")


@pytest.fixture
def bios(new_guest: Callable[..., Any]) -> Any:
    return new_guest(GuestKind(firmware=Firmware.BIOS))


def plan_of(guest: Any, *, reuse: bool) -> UefiPlan:
    windows = guest.table.partitions[-1]
    size = boot_files_bytes(guest.windows)
    disk = MbrDisk(guest.table, recipe.DISK_BYTES, SECTOR_BYTES, windows, size, reuse)
    return plan_uefi_layout(disk)


@dataclass(frozen=True, slots=True)
class Converted:
    """What one conversion recorded, and the volumes as they will be."""

    layout: UefiLayout
    changes: list[Change]
    windows: PendingFiles
    esp: PendingFiles

    def rows(self, kind: str) -> list[Change]:
        return [one for one in self.changes if one.kind == kind]

    def store(self, folder: Path) -> Hive:
        copy = folder / "BCD.after"
        self.esp.download(STORE, copy)
        return Hive(copy)


def convert(
    guest: Any, *, reuse: bool = True, before: Callable[[Recorder], None] | None = None
) -> Converted:
    """Run the two steps; ``before`` changes the hives first, as an image would have them."""
    layout = plan_of(guest, reuse=reuse).layout
    assert layout is not None
    with ExitStack() as stack:
        registry = guest.registry(stack, writable=True)
        windows = PendingFiles(guest.windows)
        esp = PendingFiles(NewVolume(layout.esp.length_bytes))
        if before is not None:
            before(Recorder(registry, windows, PendingFiles(guest.esp)))
        found = inspection_after(inspect(registry, guest.windows, guest.table), layout)
        context = Context(OPTIONS, TARGETS["aws"], found, registry, windows, esp)
        context.uefi = UefiPlan(layout)
        for step in (ConvertToUefi(), PlaceFallbackLoader()):
            if step.reason(context):
                context.recorder.begin(step.name, step.tier)
                step.run(context)
        changes = list(context.recorder.changes)
        keep_hives(registry, changes, windows, esp)
        return Converted(layout, changes, windows, esp)


def judged(guest: Any, done: Converted, folder: Path) -> dict[str, VerdictItem]:
    job = EngineJob(Action.COMPOSE, EngineDisk("", ""), OPTIONS)
    copies = folder / "judged"
    copies.mkdir()
    with open_registry(done.windows, copies, writable=False, boot_files=done.esp) as registry:
        found = inspection_after(inspect(registry, done.windows, guest.table), done.layout)
        windows = done.layout.windows
        evidence = Evidence(registry, done.windows, done.esp, done.layout.after, found, windows)
        return {item.name: item for item in judge(evidence, job, TARGETS["aws"])}


@pytest.mark.parametrize("reuse", [True, False])
def test_the_verdict_takes_what_was_converted(bios: Any, tmp_path: Path, reuse: bool) -> None:
    done = convert(bios, reuse=reuse)
    items = judged(bios, done, tmp_path)
    assert [name for name in FIRMWARE_ITEMS if not items[name].passed] == []
    assert "winload.efi" in items["boot_store"].evidence


def test_every_boot_file_of_windows_comes_along(bios: Any) -> None:
    done = convert(bios)
    for folder, target in (("EFI", ""), ("Fonts", "/Fonts"), ("Resources", "/Resources")):
        for path in bios.windows.below(f"Windows/Boot/{folder}"):
            copy = f"EFI/Microsoft/Boot{target}" + path.removeprefix(f"Windows/Boot/{folder}")
            size = bios.windows.size_bytes(path)
            assert done.esp.read(copy, size + 1) == bios.windows.read(path, size)
    manager = bios.windows.read("Windows/Boot/EFI/bootmgfw.efi", 1_000_000)
    assert done.esp.read("EFI/Boot/bootx64.efi", 1_000_000) == manager
    assert efi_program_problem(manager) == ""


@pytest.mark.parametrize(
    ("entry", "element", "before", "after"),
    [
        (BOOT_MANAGER, Element.APPLICATION_PATH, "", "\\EFI\\Microsoft\\Boot\\bootmgfw.efi"),
        (BOOT_MANAGER, Element.DEFAULT_ENTRY, LOADER, LOADER),
        (LOADER, Element.APPLICATION_PATH, "\\Windows\\system32\\winload.exe",
         "\\Windows\\system32\\winload.efi"),
        (LOADER, Element.SYSTEM_ROOT, "\\Windows", "\\Windows"),
        (RESUME, Element.APPLICATION_PATH, "\\Windows\\system32\\winresume.exe",
         "\\Windows\\system32\\winresume.efi"),
        (MEMORY_TEST, Element.APPLICATION_PATH, "\\boot\\memtest.exe",
         "\\EFI\\Microsoft\\Boot\\memtest.efi"),
    ],
)  # fmt: skip
def test_programs_are_named_anew_and_settings_stay(
    bios: Any, tmp_path: Path, entry: str, element: str, before: str, after: str
) -> None:
    with Hive(bios.esp.root / "Boot/BCD") as store:
        assert element_text(store, entry, element) == before
    with convert(bios).store(tmp_path) as store:
        assert element_text(store, entry, element) == after


@pytest.mark.parametrize("reuse", [True, False])
def test_devices_lead_to_the_partitions_of_the_new_table(
    bios: Any, tmp_path: Path, reuse: bool
) -> None:
    done = convert(bios, reuse=reuse)
    esp = boot_partition(done.layout.after, done.layout.esp)
    windows = boot_partition(done.layout.after, done.layout.windows)
    with done.store(tmp_path) as store:
        for entry, number, where in (
            (BOOT_MANAGER, Element.APPLICATION_DEVICE, esp),
            (MEMORY_TEST, Element.APPLICATION_DEVICE, esp),
            (LOADER, Element.APPLICATION_DEVICE, windows),
            (LOADER, Element.OS_DEVICE, windows),
            (RESUME, Element.APPLICATION_DEVICE, windows),
        ):
            assert element_device(store, entry, number) == where, entry


def test_windows_where_the_boot_manager_started_is_named_when_that_moves(
    bios: Any, tmp_path: Path
) -> None:
    (_, windows) = bios.table.partitions
    alone = replace(windows, number=1, is_active=True)
    bios.table = replace(bios.table, partitions=(alone,))
    started_from = Value(Kind.BINARY, bytes(16) + struct.pack("<IIII", 5, 0, 72, 0) + bytes(56))

    def say_boot(recorder: Recorder) -> None:
        for entry, number in ((LOADER, Element.APPLICATION_DEVICE), (LOADER, Element.OS_DEVICE)):
            path = f"Objects\\{entry}\\Elements\\{number}"
            recorder.set_value("BCD", path, "Element", started_from)

    done = convert(bios, reuse=False, before=say_boot)
    where = boot_partition(done.layout.after, done.layout.windows)
    with done.store(tmp_path) as store:
        assert element_device(store, LOADER, Element.APPLICATION_DEVICE) == where
        assert element_device(store, LOADER, Element.OS_DEVICE) == where
    item = judged(bios, done, tmp_path)["boot_store"]
    assert item.passed, item.evidence


def test_the_store_that_bios_used_is_kept_beside_the_new_one(bios: Any) -> None:
    old = (bios.esp.root / "Boot/BCD").read_bytes()
    done = convert(bios)
    assert done.esp.read(STORE + ".imageport-backup", len(old) + 1) == old


def test_a_ram_disk_of_the_recovery_environment_finds_its_partition(
    bios: Any, tmp_path: Path
) -> None:
    old = boot_partition(bios.table, bios.table.partitions[-1])
    path = f"Objects\\{RAM_DISK}\\Elements\\31000003"
    nested = bytes(40) + partition_device(old)[16:] + "\\Recovery\\boot.sdi\0".encode("utf-16-le")

    def add_ram_disk(recorder: Recorder) -> None:
        recorder.set_value("BCD", path, "Element", Value(Kind.BINARY, nested))

    done = convert(bios, before=add_ram_disk)
    new = boot_partition(done.layout.after, done.layout.windows)
    with done.store(tmp_path) as store:
        value = store.value(path, "Element")
    assert value is not None
    assert value.data == with_moved_partitions(nested, {old: new}) != nested


def mounted(offset: int, signature: int = recipe.MBR_SIGNATURE) -> Value:
    return Value(Kind.BINARY, struct.pack("<IQ", signature, offset))


SYSTEM_AT, WINDOWS_AT = recipe.SYSTEM_RESERVED.first, recipe.WINDOWS_BESIDE_IT.first
OTHER_DISK = mounted(WINDOWS_AT, 0x1234ABCD)
CD_DRIVE = Value(Kind.BINARY, "\\??\\IDE#CdRom".encode("utf-16-le"))


@pytest.mark.parametrize(
    ("name", "value", "reuse", "becomes"),
    [
        ("\\DosDevices\\C:", mounted(WINDOWS_AT), True, "windows"),
        ("\\??\\Volume{7c1e0a51-0000-0000-0000-100000000000}", mounted(SYSTEM_AT), True, "esp"),
        ("\\DosDevices\\S:", mounted(SYSTEM_AT), True, ""),
        ("\\DosDevices\\S:", mounted(SYSTEM_AT), False, "old system"),
        ("\\DosDevices\\D:", OTHER_DISK, True, OTHER_DISK),
        ("\\DosDevices\\E:", CD_DRIVE, True, CD_DRIVE),
    ],
    ids=["drive C:", "a volume name", "a letter of what becomes the EFI partition",
         "a letter of what stays", "another disk", "no disk"],
)  # fmt: skip
def test_drive_letters_follow_their_partitions(
    bios: Any, tmp_path: Path, name: str, value: Value, reuse: bool, becomes: str | Value
) -> None:
    def mount(recorder: Recorder) -> None:
        recorder.set_value("SYSTEM", "MountedDevices", name, value)

    done = convert(bios, reuse=reuse, before=mount)
    parts = {"windows": done.layout.windows, "esp": done.layout.esp,
             "old system": done.layout.after.partitions[0]}  # fmt: skip
    wanted: Value | None = becomes if isinstance(becomes, Value) else None
    if becomes in parts:
        guid = UUID(parts[str(becomes)].guid).bytes_le
        wanted = Value(Kind.BINARY, b"DMIO:ID:" + guid)
    copy = tmp_path / "SYSTEM.after"
    done.windows.download("Windows/System32/config/SYSTEM", copy)
    with Hive(copy) as system:
        assert system.value("MountedDevices", name) == wanted


def test_what_happens_to_the_disk_is_reported(bios: Any) -> None:
    rows = {one.path: one for one in convert(bios).rows("disk")}
    assert list(rows) == ["partition table", "EFI system partition"]
    assert rows["partition table"].before.startswith(f"mbr mbr:{recipe.MBR_SIGNATURE:08x}; 1: ")
    assert rows["partition table"].after.startswith("gpt ")
    assert rows["EFI system partition"].before == "partition 1, the old system partition"
    rows = {one.path: one for one in convert(bios, reuse=False).rows("disk")}
    assert list(rows) == ["partition table", "Windows volume", "EFI system partition"]
    assert rows["EFI system partition"].before == ""


@pytest.mark.parametrize(("state", "told"), [("1", True), ("0", False)])
def test_a_recovery_environment_that_loses_its_registration_is_told(
    bios: Any, state: str, told: bool
) -> None:
    config = bios.windows.root / "Windows/System32/Recovery/ReAgent.xml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(f'<WindowsRE version="2.0"><InstallState state="{state}"/></WindowsRE>')
    rows = [one for one in convert(bios).rows("disk") if "recovery" in one.path]
    assert bool(rows) == told
    assert all("reagentc /enable" in one.after for one in rows)


def test_the_same_image_gives_the_same_changes(new_guest: Callable[..., Any]) -> None:
    kind = GuestKind(firmware=Firmware.BIOS)
    assert convert(new_guest(kind)).changes == convert(new_guest(kind)).changes


# What is asked for, and what stands against it


@pytest.mark.parametrize(
    ("step", "options", "chosen"),
    [
        (ConvertToUefi(), EngineOptions(), False),
        (ConvertToUefi(), OPTIONS, True),
        (PlaceFallbackLoader(), EngineOptions(), True),
        (PlaceFallbackLoader(), EngineOptions(cloud="azure", provisioning="mcs"), True),
    ],
)
def test_the_option_chooses_the_conversion(
    step: Step, options: EngineOptions, chosen: bool
) -> None:
    assert step.is_chosen(options) == chosen
    assert step.problems(options) == []


@pytest.mark.parametrize(
    ("options", "scheme", "refused"),
    [
        (EngineOptions(), "mbr", True),
        (OPTIONS, "mbr", False),
        (OPTIONS, "none", True),
        (EngineOptions(provisioning="mcs"), "mbr", False),
        (EngineOptions(cloud="gcp", provisioning="mcs"), "mbr", False),
        (EngineOptions(cloud="azure", provisioning="mcs"), "mbr", True),
        (EngineOptions(cloud="azure", provisioning="mcs", convert_to_uefi=True), "mbr", False),
    ],
)
def test_an_mbr_disk_is_refused_where_nothing_converts_it(
    options: EngineOptions, scheme: str, refused: bool
) -> None:
    job = EngineJob(Action.PLAN, EngineDisk("", ""), options)
    found = disk_refusals(PartitionTable(scheme, "", ()), job)
    assert [one.code for one in found] == (["needs_uefi"] if refused else [])
    assert all("convert_to_uefi" in one.hint for one in found)


def problems(guest: Any, plan: UefiPlan | None) -> list[Refusal]:
    with ExitStack() as stack:
        facts: Facts = guest.facts(guest.registry(stack), OPTIONS)
        return ConvertToUefi().guest_problems(replace(facts, uefi=plan))


def test_a_sound_bios_guest_has_nothing_against_it(bios: Any) -> None:
    assert problems(bios, plan_of(bios, reuse=True)) == []


def test_a_gpt_disk_has_nothing_to_do(guest: Any) -> None:
    assert problems(guest, None) == []
    with ExitStack() as stack:
        assert ConvertToUefi().reason(guest.facts(guest.registry(stack), OPTIONS)) == ""
    changes = guest.changes(OPTIONS, apply=False)
    assert not [one for one in changes if one.step == "convert_to_uefi"]


def _without(path: str) -> Callable[[Any], None]:
    return lambda guest: (guest.windows.root / path).unlink()


def _with_foreign_manager(guest: Any) -> None:
    path = guest.windows.root / "Windows/Boot/EFI/bootmgfw.efi"
    data = bytearray(path.read_bytes())
    (at,) = struct.unpack_from("<I", data, 60)
    struct.pack_into("<H", data, at + 4, 0xAA64)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (_without("Windows/Boot/EFI/bootmgfw.efi"),
         "Cannot convert: the image has no \\Windows\\Boot\\EFI\\bootmgfw.efi."),
        (_without("Windows/System32/winload.efi"),
         "Cannot convert: the image has no \\Windows\\System32\\winload.efi."),
        (_with_foreign_manager,
         "Cannot convert: \\Windows\\Boot\\EFI\\bootmgfw.efi is for another processor: machine"),
        (lambda guest: (guest.esp.root / "Boot/BCD").unlink(),
         "Cannot convert: the active partition has no boot store (\\Boot\\BCD) to take"),
    ],
)  # fmt: skip
def test_what_a_conversion_lacks_is_named(
    bios: Any, fault: Callable[[Any], None], reason: str
) -> None:
    fault(bios)
    found = problems(bios, plan_of(bios, reuse=True))
    assert [one.code for one in found] == ["no_uefi_conversion"]
    assert found[0].reason.startswith(reason)
    assert "mbr2gpt" in found[0].hint


def test_disk_and_files_are_refused_together(bios: Any) -> None:
    _without("Windows/System32/winload.efi")(bios)
    plan = UefiPlan(problems=("partition 2 is an extended one with logical partitions in it",))
    assert len(problems(bios, plan)) == 2


# A volume that is still to be made


def test_a_volume_to_come_is_empty_and_cannot_be_written() -> None:
    volume = NewVolume(1000)
    assert volume.exists("")
    assert not volume.exists("EFI")
    assert volume.names("") == []
    assert volume.free_bytes() == 1000
    with pytest.raises(EngineFailed, match="Cannot read 'x': it is not in the guest"):
        volume.read("x", 1)
    with pytest.raises(EngineFailed, match="Cannot write 'x': its volume is not made yet"):
        volume.remove("x")
