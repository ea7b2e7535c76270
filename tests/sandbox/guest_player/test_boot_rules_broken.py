"""Each rule of the player's table, broken alone on a disk that is ready."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from imageport.sandbox.guest_player.play import play
from imageport.sandbox.guest_player.registry import BINARY, Hive, number, string, strings
from imageport.sandbox.guest_player.volume import WindowsVolume
from imageport.sandbox.sample.build import build_raw_sample
from imageport.sandbox.sample.programs import run
from imageport.sandbox.sample.recipe import ESP, Variant
from tests.sandbox.guest_player.ready_windows import (
    Edit,
    delete_key,
    remove_file,
    set_values,
)

SERVICES = "ControlSet001\\Services"
DISK_CLASS = "ControlSet001\\Control\\Class\\{4d36e967-e325-11ce-bfc1-08002be10318}"
NO_BOOT_DEVICE = "0x0000007B INACCESSIBLE_BOOT_DEVICE"


def _leave_dirty(name: str) -> Edit:
    def edit(volume: WindowsVolume) -> None:
        path = f"Windows\\System32\\config\\{name}"
        data = bytearray(volume.read(path) or b"")
        struct.pack_into("<I", data, 8, struct.unpack_from("<I", data, 8)[0] + 1)
        volume.write(path, bytes(data))

    return edit


BROKEN: dict[str, tuple[Edit, str]] = {
    "override": (
        set_values(f"{SERVICES}\\stornvme\\StartOverride", **{"0": number(3)}),
        NO_BOOT_DEVICE,
    ),
    "not at boot": (set_values(f"{SERVICES}\\stornvme", Start=number(3)), NO_BOOT_DEVICE),
    "service gone": (delete_key(f"{SERVICES}\\disk"), NO_BOOT_DEVICE),
    "file gone": (remove_file("Windows\\System32\\drivers\\stornvme.sys"), NO_BOOT_DEVICE),
    "not in database": (
        delete_key("DriverDatabase\\DeviceIds\\PCI\\CC_010802"),
        NO_BOOT_DEVICE,
    ),
    "filter gone": (delete_key(f"{SERVICES}\\EhStorClass"), NO_BOOT_DEVICE),
    "filter unknown": (
        set_values(DISK_CLASS, UpperFilters=strings("partmgr", "vendorflt")),
        NO_BOOT_DEVICE,
    ),
    "other driver's file gone": (remove_file("Windows\\System32\\drivers\\vmci.sys"), "0xc0000098"),
    "kernel gone": (remove_file("Windows\\System32\\ntoskrnl.exe"), "0xc000000f"),
    "loader gone": (remove_file("Windows\\System32\\winload.efi"), "0xc000000f"),
    "SYSTEM dirty": (_leave_dirty("SYSTEM"), "0x00000074 BAD_SYSTEM_CONFIG_INFO"),
    "DRIVERS dirty": (_leave_dirty("DRIVERS"), "0xC0000218"),
    "control set gone": (set_values("Select", Default=number(7)), "0x00000074"),
}


SHORT = {"override", "not at boot", "not in database", "filter gone", "kernel gone", "SYSTEM dirty"}
"""One of each kind; the others break the same rule on another subject."""


@pytest.mark.parametrize(
    "fault",
    [fault if fault in SHORT else pytest.param(fault, marks=pytest.mark.slow) for fault in BROKEN],
)
def test_windows_does_not_come_up(fault: str, edited: Callable[[Edit], Path]):
    edit, screen = BROKEN[fault]
    boot = play(edited(edit), "")
    assert boot.outcome == "bugcheck"
    assert screen in boot.console_text.splitlines()[0]


def test_a_boot_store_that_names_another_disk_finds_no_windows(disk: Path, tmp_path: Path):
    store = tmp_path / "BCD"
    where = ["-i", f"{disk}@@{ESP.first}"]
    run(["mcopy", "-n", *where, "::/EFI/Microsoft/Boot/BCD", store])
    hive = Hive(store)
    key = "Objects\\{4c8f1a27-b5d0-11ee-9a63-0050569c17e4}\\Elements\\21000001"
    element = bytearray((hive.key(key) or {})["element"][1])
    element[56] ^= 1  # the disk's GUID
    hive.set(key, {"Element": (BINARY, bytes(element))})
    hive.flush()
    run(["mcopy", "-o", *where, store, "::/EFI/Microsoft/Boot/BCD"])
    boot = play(disk, "")
    assert (boot.outcome, "0xc000000e" in boot.console_text) == ("bugcheck", True)


def test_a_driver_without_image_path_is_looked_for_by_its_name(edited: Callable[[Edit], Path]):
    boot = play(edited(set_values(f"{SERVICES}\\nameless", Start=number(0), Type=number(1))), "")
    assert "nameless.sys" in boot.console_text


def test_a_driver_named_through_systemroot_is_found(edited: Callable[[Edit], Path]):
    path = string("\\SystemRoot\\System32\\drivers\\stornvme.sys", 2)
    boot = play(edited(set_values(f"{SERVICES}\\stornvme", ImagePath=path)), "")
    assert boot.outcome == "shutdown"


@pytest.mark.parametrize(
    ("variant", "outcome", "screen"),
    [
        (Variant.SMALL, "bugcheck", "INACCESSIBLE_BOOT_DEVICE"),
        (Variant.NO_ESP_LOADER, "hang", "No bootable option"),
        pytest.param(Variant.MBR, "hang", "No bootable option", marks=pytest.mark.slow),
        (Variant.BITLOCKER, "hang", "recovery key"),
        pytest.param(
            Variant.DIRTY_HIVE, "bugcheck", "BAD_SYSTEM_CONFIG_INFO", marks=pytest.mark.slow
        ),
        pytest.param(
            Variant.DIRTY_NTFS, "bugcheck", "INACCESSIBLE_BOOT_DEVICE", marks=pytest.mark.slow
        ),
        (Variant.HIBERNATED, "bugcheck", "another machine's hibernation"),
    ],
)
def test_an_image_as_it_comes_from_the_site_does_not_boot_here(
    variant: Variant, outcome: str, screen: str, tmp_path: Path
):
    boot = play(build_raw_sample(tmp_path / "site.raw", variant), "")
    assert (boot.outcome, screen in boot.console_text) == (outcome, True), boot.console_text
