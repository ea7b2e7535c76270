"""The verdict for Azure passes on a composed image and names what would keep it from working."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from imageport.compose.contract import Action, EngineOptions
from imageport.sandbox.sample.azure_faults import break_for_azure
from imageport.sandbox.sample.hives import merge_text
from imageport.sandbox.sample.recipe import Variant

AZURE = EngineOptions(cloud="azure")
DRIVERS = "Windows/System32/drivers"


def test_a_composed_image_passes_every_item(guest: Any) -> None:
    guest.compose(AZURE)
    verdict = guest.judge(options=AZURE)
    assert [item for item in verdict.values() if not item.passed] == []
    assert all(item.evidence for item in verdict.values())
    assert {"disks_online", "dvd_drive", "faster_adapters", "vm_agent"} <= set(verdict)


def test_the_items_of_azure_are_not_asked_of_aws(guest: Any) -> None:
    guest.compose()
    verdict = guest.judge()
    assert not {"disks_online", "dvd_drive", "faster_adapters", "vm_agent"} & set(verdict)
    assert "vpci" not in verdict["boot_drivers"].evidence


def test_an_image_as_it_was_fails_where_composing_would_help(guest: Any) -> None:
    break_for_azure(guest.hive("SYSTEM").parent, Variant.OFFLINE_SAN)
    break_for_azure(guest.hive("SYSTEM").parent, Variant.DVD_DISABLED)
    failed = {name for name, item in guest.judge(options=AZURE).items() if not item.passed}
    assert {"boot_drivers", "disks_online", "dvd_drive", "source_removed", "addresses"} <= failed


@pytest.mark.parametrize("variant", [Variant.OFFLINE_SAN, Variant.DVD_DISABLED])
def test_what_was_only_hardened_is_mended(guest: Any, variant: Variant) -> None:
    break_for_azure(guest.hive("SYSTEM").parent, variant)
    guest.compose(AZURE)
    assert [item for item in guest.judge(options=AZURE).values() if not item.passed] == []


def _variant(variant: Variant) -> Callable[[Any], None]:
    return lambda guest: break_for_azure(guest.hive("SYSTEM").parent, variant)


def _registry(hive: str, text: str) -> Callable[[Any], None]:
    return lambda guest: merge_text(guest.hive(hive), text)


def _no_file(path: str) -> Callable[[Any], None]:
    return lambda guest: (guest.windows.root / path).unlink()


def _no_package(guest: Any) -> None:
    store = guest.windows.root / "Windows/System32/DriverStore/FileRepository"
    (package,) = store.glob("wnetvsc.inf_amd64_*")
    package.rename(package.with_name("gone"))


FAULTS: dict[str, tuple[Callable[[Any], None], str, str]] = {
    "vmbus on demand": (
        _registry("SYSTEM", '[\\ControlSet002\\Services\\vmbus]\n"Start"=dword:00000003'),
        "boot_drivers",
        "ControlSet002: vmbus Start is 3, needed 0",
    ),
    "storvsc overridden": (
        _registry(
            "SYSTEM", '[\\ControlSet001\\Services\\storvsc\\StartOverride]\n"0"=dword:00000003'
        ),
        "boot_drivers",
        "ControlSet001: storvsc has a StartOverride",
    ),
    "storvsc gone": (_variant(Variant.WITHOUT_STORVSC), "boot_drivers", "storvsc Start is None"),
    "vpci gone": (_variant(Variant.WITHOUT_VPCI), "boot_drivers", "vpci Start is None"),
    "stornvme on demand": (
        _registry("SYSTEM", '[\\ControlSet001\\Services\\stornvme]\n"Start"=dword:00000003'),
        "boot_drivers",
        "stornvme Start is 3",
    ),
    "atapi overridden": (
        _registry(
            "SYSTEM", '[\\ControlSet001\\Services\\atapi\\StartOverride]\n"0"=dword:00000003'
        ),
        "boot_drivers",
        "atapi has a StartOverride",
    ),
    "vmbus.sys gone": (_no_file(f"{DRIVERS}/vmbus.sys"), "boot_driver_files", "vmbus.sys"),
    "storvsc.sys gone": (_no_file(f"{DRIVERS}/storvsc.sys"), "boot_driver_files", "storvsc.sys"),
    "vmstorfl.sys gone": (_no_file(f"{DRIVERS}/vmstorfl.sys"), "boot_driver_files", "vmstorfl"),
    "vpci.sys gone": (_no_file(f"{DRIVERS}/vpci.sys"), "boot_driver_files", "vpci.sys"),
    "pciidex.sys gone": (
        _no_file(f"{DRIVERS}/pciidex.sys"),
        "boot_driver_files",
        "intelide needs Windows/System32/drivers/pciidex.sys",
    ),
    "ataport.sys gone": (_no_file(f"{DRIVERS}/ataport.sys"), "boot_driver_files", "atapi needs"),
    "storvsc not in database": (
        _variant(Variant.WITHOUT_STORVSC_ID),
        "driver_database",
        "no driver database entry binds VMBUS\\{ba6163d9",
    ),
    "VMBus not in database": (
        _registry("SYSTEM", "[-\\DriverDatabase\\DeviceIds\\ACPI\\VMBus]"),
        "driver_database",
        "no driver database entry binds ACPI\\VMBus",
    ),
    "netvsc not in database": (
        _variant(Variant.WITHOUT_NETVSC),
        "network_driver",
        "no installed driver serves VMBUS\\{f8615163",
    ),
    "netvsc disabled": (
        _registry("SYSTEM", '[\\ControlSet001\\Services\\netvsc]\n"Start"=dword:00000004'),
        "network_driver",
        "service netvsc is disabled",
    ),
    "netvsc.sys gone": (_no_file(f"{DRIVERS}/netvsc.sys"), "network_driver", "lacks its file"),
    "netvsc's package gone": (_no_package, "network_driver", "is not in the driver store"),
    "disks offline": (
        _variant(Variant.OFFLINE_SAN),
        "disks_online",
        "ControlSet001: SanPolicy is 2, needed 1",
    ),
    "no policy": (
        _registry("SYSTEM", "[-\\ControlSet002\\Services\\partmgr\\Parameters]"),
        "disks_online",
        "ControlSet002: SanPolicy is None, needed 1",
    ),
    "DVD drive disabled": (_variant(Variant.DVD_DISABLED), "dvd_drive", "cdrom Start is 4"),
    "DVD drive gone": (
        _registry("SYSTEM", "[-\\ControlSet001\\Services\\cdrom]"),
        "dvd_drive",
        "ControlSet001: cdrom Start is None",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_fails_its_item_with_evidence(guest: Any, fault: str) -> None:
    make_fault, item, evidence = FAULTS[fault]
    guest.compose(AZURE)
    make_fault(guest)
    found = guest.judge(options=AZURE)[item]
    assert not found.passed
    assert evidence in found.evidence


def test_an_override_that_the_one_boot_left_is_told_and_a_start_type_still_fails(
    guest: Any,
) -> None:
    guest.compose(AZURE)
    override = '[\\ControlSet001\\Services\\vpci\\StartOverride]\n"0"=dword:00000003'
    merge_text(guest.hive("SYSTEM"), override)
    assert not guest.judge(options=AZURE)["boot_drivers"].passed
    after = guest.judge(Action.VERIFY, AZURE)["boot_drivers"]
    assert (after.passed, "vpci has a StartOverride" in after.evidence) == (True, True)
    merge_text(guest.hive("SYSTEM"), '[\\ControlSet001\\Services\\vpci]\n"Start"=dword:00000003')
    assert not guest.judge(Action.VERIFY, AZURE)["boot_drivers"].passed


@pytest.mark.parametrize("library", ["pciidex", "ataport"])
def test_a_system_without_the_old_drivers_needs_not_their_libraries(
    guest: Any, library: str
) -> None:
    for name in ("ControlSet001", "ControlSet002"):
        for driver in ("intelide", "atapi"):
            merge_text(guest.hive("SYSTEM"), f"[-\\{name}\\Services\\{driver}]")
    guest.compose(AZURE)
    (guest.windows.root / f"{DRIVERS}/{library}.sys").unlink()
    verdict = guest.judge(options=AZURE)
    assert verdict["boot_driver_files"].passed
    assert verdict["boot_drivers"].passed


def test_the_bus_may_have_the_name_that_new_hosts_give_it(guest: Any) -> None:
    package = "wvmbus.inf_amd64_3e7a5c0d9b14f682"
    new = '[\\DriverDatabase\\DeviceIds\\ACPI\\MSFT1000]\n"wvmbus.inf"=hex:01,ff,00,00\n\n'
    merge_text(guest.hive("SYSTEM"), f"{new}[-\\DriverDatabase\\DeviceIds\\ACPI\\VMBus]")
    guest.compose(AZURE)
    item = guest.judge(options=AZURE)["driver_database"]
    assert item.passed
    assert f"ACPI\\MSFT1000 is served by wvmbus.inf ({package}), service vmbus" in item.evidence


def test_faster_adapters_are_told_with_and_without_driver_and_never_fail(guest: Any) -> None:
    device = "\\DriverDatabase\\DeviceIds\\PCI\\VEN_1414&DEV_00BA"
    parents = "[\\DriverDatabase\\DeviceIds\\PCI]\n\n"
    merge_text(guest.hive("DRIVERS"), f'{parents}[{device}]\n"oem9.inf"=hex:01,ff,00,00')
    guest.compose(AZURE)
    item = guest.judge(options=AZURE)["faster_adapters"]
    assert item.passed
    assert "PCI\\VEN_1414&DEV_00BA: served by oem9.inf" in item.evidence
    assert "PCI\\VEN_15B3&DEV_1016: no driver" in item.evidence


def test_the_agent_is_told_before_and_after_and_its_absence_never_fails(guest: Any) -> None:
    guest.compose(AZURE)
    assert guest.judge(options=AZURE)["vm_agent"].evidence == "not chosen"
    chosen = EngineOptions(cloud="azure", azure_vm_agent="agent.msi")
    missing = guest.judge(Action.VERIFY, chosen)["vm_agent"]
    assert (missing.passed, missing.evidence) == (True, "not installed; chosen: agent.msi")
    service = '[\\ControlSet001\\Services\\RdAgent]\n"Start"=dword:00000002'
    merge_text(guest.hive("SYSTEM"), service)
    there = guest.judge(Action.VERIFY, chosen)["vm_agent"]
    assert (there.passed, there.evidence) == (True, "installed: RdAgent Start 2")
