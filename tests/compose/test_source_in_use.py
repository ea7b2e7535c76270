"""What removal keeps since something that stays needs it, and what it takes along."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from imageport.compose.contract import EngineOptions
from imageport.compose.hives.hive import Hive
from imageport.compose.steps.source.winsock_catalog import winsock_entries
from imageport.sandbox.sample.driver_package import write_package
from imageport.sandbox.sample.guest_kind import GuestKind, Platform
from imageport.sandbox.sample.portable_executable import minimal_pe
from tests.compose.tool_remains import CATALOGUE, SETS, merge, put_driver, start_of


@pytest.mark.parametrize("maker", ["Red Hat, Inc.", "Another Maker"])
def test_a_driver_of_the_payload_stays_whoever_its_package_says_it_is_of(
    new_guest: Any, maker: str
) -> None:
    """Google builds virtio's drivers under its own name; not every file of theirs says so."""
    guest = new_guest(GuestKind(platform=Platform.KVM))
    write_package("vioscsi", guest.payload / "vioscsi")
    driver = minimal_pe("vioscsi.sys", "100.95.104.26200", company=maker)
    (guest.payload / "vioscsi/vioscsi.sys").write_bytes(driver)
    nic = "PCI\\VEN_1D0F&DEV_EC20"
    options = EngineOptions(cloud="gcp", drivers=("ena", "vioscsi"), required_nic_ids=(nic,))
    guest.compose(options)
    assert start_of(guest, "QEMU-GA") is None
    assert start_of(guest, "vioscsi") == 0
    place = guest.windows.root / "Windows/System32/drivers/vioscsi.sys"
    assert place.read_bytes() == driver


def test_a_boot_disks_driver_stays_where_the_driver_database_does_not_know_it(
    new_guest: Any,
) -> None:
    guest = new_guest(GuestKind(platform=Platform.KVM))
    with Hive(guest.hive("SYSTEM"), writable=True) as hive:
        packages = hive.key("DriverDatabase\\DriverPackages")
        assert packages is not None
        (package,) = [key for key in packages.children() if key.name.startswith("viostor")]
        package.delete()
        hive.commit()
    guest.compose()
    assert start_of(guest, "viostor") == 0
    assert guest.windows.exists("Windows/System32/drivers/viostor.sys")


@pytest.mark.parametrize(
    ("company", "goes"), [("Red Hat, Inc.", True), ("Microsoft Corporation", False), ("", False)]
)
def test_a_service_of_any_name_goes_with_the_package_that_names_it(
    new_guest: Any, company: str, goes: bool
) -> None:
    guest = new_guest(GuestKind(platform=Platform.KVM))
    with ExitStack() as stack:
        place = "DriverDatabase\\DriverPackages"
        packages = guest.registry(stack).key("DRIVERS", place)
        (name,) = [key.name for key in packages.children() if key.name.startswith("balloon")]
    place = f"{place}\\{name}\\Configurations"
    merge(guest, "DRIVERS", f'[\\{place}\\other]\n"Service"="renamed"\n')
    merge(
        guest,
        "SYSTEM",
        '[\\{set}\\Services\\renamed]\n"Type"=dword:00000001\n"Start"=dword:00000003\n'
        '"ImagePath"=expand:"System32\\\\drivers\\\\vionew.sys"\n',
    )
    if company:
        put_driver(guest, "vionew.sys", company)
    guest.compose()
    assert (start_of(guest, "renamed") is None) is goes
    assert guest.windows.exists("Windows/System32/drivers/vionew.sys") is (
        bool(company) and not goes
    )


def test_a_winsock_entry_that_an_uninstaller_left_behind_is_taken_out(new_guest: Any) -> None:
    guest = new_guest(GuestKind(platform=Platform.HYPERV))
    record = bytearray(b"C:\\vsocklib.dll".ljust(888, b"\0"))
    record[296:300] = (1003).to_bytes(4, "little")
    data = ",".join(f"{byte:02x}" for byte in record)
    place = f"{CATALOGUE}\\Catalog_Entries\\000000000003"
    merge(guest, "SYSTEM", f'[\\{{set}}\\{place}]\n"PackedCatalogItem"=hex:{data}\n')
    assert not guest.judge()["source_removed"].passed
    guest.compose()
    assert guest.judge()["source_removed"].passed
    with ExitStack() as stack:
        entries = list(winsock_entries(guest.registry(stack), "ControlSet002"))
    assert "vsocklib.dll" not in {entry.library for entry in entries}


def test_a_device_id_that_is_spelled_like_a_bus_takes_no_other_ids_along(new_guest: Any) -> None:
    guest = new_guest(GuestKind(platform=Platform.KVM))
    root = "DriverDatabase\\DeviceIds"
    merge(guest, "DRIVERS", f'[\\{root}\\PCI]\n"oem4.inf"=hex:01,ff,00,00\n')
    merge(guest, "DRIVERS", f'[\\{root}\\PCI\\VEN_8086]\n"net1ix64.inf"=hex:01,ff,00,00\n')
    guest.compose()
    with ExitStack() as stack:
        registry = guest.registry(stack)
        assert registry.value("DRIVERS", f"{root}\\PCI", "oem4.inf") is None
        assert registry.value("DRIVERS", f"{root}\\PCI\\VEN_8086", "net1ix64.inf") is not None


def test_windows_7s_list_of_boot_devices_forgets_drivers_that_go(new_guest: Any) -> None:
    guest = new_guest(GuestKind(platform=Platform.XENSERVER))
    root = "{set}\\Control\\CriticalDeviceDatabase"
    merge(
        guest,
        "SYSTEM",
        f"[\\{root}]\n\n"
        f'[\\{root}\\pci#ven_5853&dev_0001]\n"Service"="xenbus"\n\n'
        f'[\\{root}\\pci#cc_010601]\n"Service"="storahci"\n',
    )
    guest.compose()
    with ExitStack() as stack:
        registry = guest.registry(stack)
        for name in SETS:
            key = registry.key("SYSTEM", root.replace("{set}", name))
            assert key is not None
            names = {child.name for child in key.children()}
            assert "pci#cc_010601" in names
            assert "pci#ven_5853&dev_0001" not in names
