"""The verdict passes on a composed image and names each thing that would keep it from working."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from imageport.compose.contract import Action, EngineOptions
from imageport.compose.guest_paths import guest_path
from imageport.compose.volumes.descriptors import Access
from imageport.sandbox.sample.hives import merge_text

FIRST_BOOT = "Windows/ImageportFirstBoot"


def test_a_composed_image_passes_every_item(guest: Any) -> None:
    guest.compose()
    verdict = guest.judge()
    assert [item for item in verdict.values() if not item.passed] == []
    assert all(item.evidence for item in verdict.values())
    assert {"boot_drivers", "boot_store", "network_driver", "descriptors"} <= set(verdict)


def test_an_image_as_it_was_fails_where_composing_would_help(guest: Any) -> None:
    failed = {name for name, item in guest.judge().items() if not item.passed}
    assert {"boot_drivers", "network_driver", "source_removed", "addresses"} <= failed


def _break_start(guest: Any) -> None:
    place = "[\\ControlSet002\\Services\\stornvme]"
    merge_text(guest.hive("SYSTEM"), f'{place}\n"Start"=dword:00000003')


def _break_override(guest: Any) -> None:
    place = "[\\ControlSet001\\Services\\stornvme\\StartOverride]"
    merge_text(guest.hive("SYSTEM"), f'{place}\n"0"=dword:00000003\n')


def _break_driver_file(guest: Any) -> None:
    (guest.windows.root / "Windows/System32/drivers/stornvme.sys").unlink()


def _break_database(guest: Any) -> None:
    merge_text(guest.hive("SYSTEM"), "[-\\DriverDatabase\\DeviceIds\\PCI\\CC_010802]\n")


def _break_filter(guest: Any) -> None:
    place = "[\\ControlSet001\\Control\\Class\\{4d36e97b-e325-11ce-bfc1-08002be10318}]"
    data = ",".join(f"{byte:02x}" for byte in "vmgone\0\0".encode("utf-16-le"))
    merge_text(guest.hive("SYSTEM"), f'{place}\n"UpperFilters"=hex(7):{data}\n')


def _break_loader(guest: Any) -> None:
    (guest.esp.root / "EFI/Boot/bootx64.efi").unlink()


def _break_winload(guest: Any) -> None:
    (guest.windows.root / "Windows/System32/winload.efi").unlink()


def _break_boot_store(guest: Any) -> None:
    place = "Objects\\{9dea862c-5cdd-4e70-acc1-f32b344d4795}\\Elements\\23000003"
    merge_text(guest.esp.root / "EFI/Microsoft/Boot/BCD", f"[-\\{place}]\n")


def _break_identity(guest: Any) -> None:
    guest.table = replace(guest.table, disk_guid="00000000-0000-4000-8000-000000000000")


def _break_partition(guest: Any) -> None:
    efi, windows = guest.table.partitions
    guest.table = replace(
        guest.table, partitions=(replace(efi, guid=windows.guid), replace(windows, guid=efi.guid))
    )


def _break_depth(guest: Any) -> None:
    (guest.windows.root / FIRST_BOOT / "1/2/3/4/5/6/7").mkdir(parents=True)
    for depth in range(1, 8):
        path = "/".join([FIRST_BOOT, *"1234567"[:depth]]).lower()
        closed = Access.ADMINISTRATORS_ONLY.descriptor(is_folder=True)
        guest.windows.descriptors[path] = closed


def _break_pvs(guest: Any) -> None:
    place = "[\\ControlSet001\\Services\\BNDevice]"
    merge_text(guest.hive("SYSTEM"), f'{place}\n"Start"=dword:00000004')


def _break_dependency(guest: Any) -> None:
    data = ",".join(f"{byte:02x}" for byte in "PvsVmAgent\0\0".encode("utf-16-le"))
    place = "[\\ControlSet001\\Services\\LanmanWorkstation]"
    merge_text(guest.hive("SYSTEM"), f'{place}\n"DependOnService"=hex(7):{data}\n')


def _break_descriptor(guest: Any) -> None:
    path = f"{FIRST_BOOT}/firstboot.cmd".lower()
    guest.windows.descriptors[path] = Access.USERS_READ.descriptor(is_folder=False)


def _break_network_driver(guest: Any) -> None:
    gone = "[-\\DriverDatabase\\DeviceIds\\PCI\\VEN_1D0F&DEV_EC2{}]\n"
    merge_text(guest.hive("DRIVERS"), gone.format(0) + "\n" + gone.format(1))
    place = guest.windows.root / FIRST_BOOT / "plan.txt"
    lines = [line for line in place.read_bytes().split(b"\r\n") if b"add-driver" not in line]
    place.write_bytes(b"\r\n".join(lines))


def _break_service(guest: Any) -> None:
    merge_text(guest.hive("SYSTEM"), "[-\\ControlSet002\\Services\\ImageportFirstBoot]\n")


@pytest.mark.parametrize(
    ("fault", "item", "evidence"),
    [
        (_break_start, "boot_drivers", "ControlSet002: stornvme Start is 3, needed 0"),
        (_break_override, "boot_drivers", "ControlSet001: stornvme has a StartOverride"),
        (_break_driver_file, "boot_driver_files", "stornvme starts at boot"),
        (_break_database, "driver_database", "no driver database entry binds PCI\\CC_010802"),
        (_break_filter, "class_filters", "vmgone"),
        (_break_loader, "boot_loader", "bootx64.efi is missing"),
        (_break_winload, "boot_store", "winload.efi is missing"),
        (_break_boot_store, "boot_store", "names no default entry"),
        (_break_identity, "boot_store", "elsewhere"),
        (_break_partition, "boot_store", "elsewhere"),
        (_break_depth, "descriptors", "found more folders in it"),
        (_break_pvs, "pvs_target", "service BNDevice is disabled"),
        (_break_dependency, "dependencies", "LanmanWorkstation depends on PvsVmAgent"),
        (_break_descriptor, "descriptors", "firstboot.cmd is open to S-1-5-32-545"),
        (_break_network_driver, "network_driver", "no installed driver serves"),
        (_break_service, "first_boot_ready", "ControlSet002: service ImageportFirstBoot"),
    ],
)
def test_one_fault_fails_its_item_with_evidence(
    guest: Any, fault: Callable[[Any], None], item: str, evidence: str
) -> None:
    guest.compose()
    fault(guest)
    found = guest.judge()[item]
    assert not found.passed
    assert evidence in found.evidence


def test_loose_ends_that_windows_forgives_are_told_but_do_not_fail(guest: Any) -> None:
    guest.compose()
    data = ",".join(f"{byte:02x}" for byte in "IRENUM\0\0".encode("utf-16-le"))
    infrared = "[\\ControlSet001\\Control\\Class\\{6bdd1fc5-810f-11d0-bec7-08002be2092f}]"
    maker = '[\\ControlSet001\\Services\\3ware]\n"Type"=dword:00000001\n"Start"=dword:00000000\n'
    merge_text(
        guest.hive("SYSTEM"),
        f'{infrared}\n"UpperFilters"=hex(7):{data}\n\n{maker}"ErrorControl"=dword:00000001\n',
    )
    verdict = guest.judge()
    assert verdict["class_filters"].passed
    assert "IRENUM" in verdict["class_filters"].evidence
    assert verdict["boot_driver_files"].passed
    assert "3ware has no file" in verdict["boot_driver_files"].evidence


def test_verify_before_any_boot_says_that_nothing_ran(guest: Any) -> None:
    guest.compose()
    verdict = guest.judge(Action.VERIFY)
    assert "first boot is not-run" in verdict["first_boot_done"].evidence
    assert not verdict["service_removed"].passed
    assert not verdict["services_restored"].passed
    assert verdict["network_driver"].passed  # it was put in offline


def test_mcs_images_need_no_provisioning_software(guest: Any) -> None:
    options = EngineOptions(provisioning="mcs")
    guest.compose(options)
    _break_pvs(guest)
    assert guest.judge(options=options)["pvs_target"].passed


@pytest.mark.parametrize(
    ("image", "path"),
    [
        ("System32\\drivers\\disk.sys", "Windows/System32/drivers/disk.sys"),
        ("\\SystemRoot\\System32\\drivers\\x.sys", "Windows/System32/drivers/x.sys"),
        ("\\??\\C:\\Tools\\a.sys", "Tools/a.sys"),
        ('"C:\\Program Files\\A B\\c.exe" -k run', "Program Files/A B/c.exe"),
        ("C:\\Program Files\\A B\\c.exe -k", "Program Files/A B/c.exe"),
        ("%SystemRoot%\\system32\\svchost.exe -k x", "Windows/system32/svchost.exe"),
    ],
)
def test_image_paths_lead_to_files(image: str, path: str) -> None:
    assert guest_path(image) == path
