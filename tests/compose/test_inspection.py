"""What an inspection tells of guests of every system, platform and provisioning."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from imageport.compose.contract import Inspection
from imageport.compose.hives.hive import Hive
from imageport.compose.hives.registry_value import Value
from imageport.compose.inspection import inspect
from imageport.compose.volumes.partition_table import PartitionTable
from imageport.sandbox.sample.guest_kind import GuestKind, Platform, Provisioning, System
from imageport.sandbox.sample.hives import merge_text

NewGuest = Callable[..., Any]
SET = "\\ControlSet001"


def inspected(guest: Any) -> Inspection:
    with ExitStack() as stack:
        return inspect(guest.registry(stack), guest.windows, guest.table)


@pytest.mark.parametrize(
    ("system", "name", "build"),
    [
        (System.WIN10, "Windows 10 Enterprise", "10.0.19045."),
        (System.WIN11, "Windows 11 Enterprise", "10.0.22631."),
        (System.SERVER2016, "Windows Server 2016 Datacenter", "10.0.14393."),
        (System.SERVER2019, "Windows Server 2019 Datacenter", "10.0.17763."),
        (System.SERVER2022, "Windows Server 2022 Datacenter", "10.0.20348."),
        (System.SERVER2025, "Windows Server 2025 Datacenter", "10.0.26100."),
    ],
)
def test_every_release_has_the_name_that_people_know(
    new_guest: NewGuest, system: System, name: str, build: str
) -> None:
    found = inspected(new_guest(GuestKind(system=system)))
    assert found.product_name == name
    assert found.build.startswith(build)
    assert found.architecture == "x86_64"


@pytest.mark.parametrize(
    ("stored", "kind", "build", "shown"),
    [
        ("Windows 10 Enterprise multi-session", "Client", "26100", "Windows 11 Enterprise multi-s"),
        ("Windows 10 Pro", "Client", "19045", "Windows 10 Pro"),
        ("Windows Server 2019 Datacenter", "Server", "26100", "Windows Server 2025 Datacenter"),
        ("Windows Server Datacenter", "Server", "20348", "Windows Server 2022 Datacenter"),
        ("Windows Server Datacenter", "Server", "25398", "Windows Server Datacenter"),
        ("Windows Server 2025 Standard", "Server Core", "26100", "Windows Server 2025 Standard (S"),
        ("Windows 10 Pro", "Client", "x" * 40, "Windows 10 Pro"),
        ("", "", "", ""),
    ],
)
def test_names_that_windows_keeps_wrong_are_put_right(
    guest: Any, stored: str, kind: str, build: str, shown: str
) -> None:
    merge_text(
        guest.hive("SOFTWARE"),
        "[\\Microsoft\\Windows NT\\CurrentVersion]\n"
        f'"ProductName"="{stored}"\n"InstallationType"="{kind}"\n"CurrentBuild"="{build}"',
    )
    assert inspected(guest).product_name.startswith(shown)


@pytest.mark.parametrize("platform", Platform)
def test_the_platform_and_its_tools_are_told(new_guest: NewGuest, platform: Platform) -> None:
    found = inspected(new_guest(GuestKind(platform=platform)))
    assert found.source_platform == str(platform)
    has_no_tools = platform in {Platform.HYPERV, Platform.NONE}
    assert found.source_tools == (() if has_no_tools else (str(platform),))


def test_tools_of_an_earlier_platform_are_told_beside_the_machine(new_guest: NewGuest) -> None:
    guest = new_guest(GuestKind(platform=Platform.HYPERV))
    merge_text(guest.hive("SYSTEM"), f'[{SET}\\Services\\XenSvc]\n"Start"=dword:00000002')
    merge_text(guest.hive("SYSTEM"), f'[{SET}\\Services\\prl_tg]\n"Start"=dword:00000000')
    found = inspected(guest)
    assert found.source_platform == "hyperv"
    assert found.source_tools == ("xenserver", "parallels")


def test_a_machine_that_does_not_name_itself_is_known_by_its_tools(new_guest: NewGuest) -> None:
    guest = new_guest(GuestKind(platform=Platform.NONE))
    merge_text(guest.hive("SYSTEM"), "[-\\HardwareConfig]")
    assert inspected(guest).source_platform == "none"
    merge_text(guest.hive("SYSTEM"), f'[{SET}\\Services\\QEMU-GA]\n"Start"=dword:00000002')
    assert inspected(guest).source_platform == "kvm"


def test_amazons_xen_drivers_are_no_tools_of_citrix(new_guest: NewGuest) -> None:
    guest = new_guest(GuestKind(platform=Platform.NONE))
    merge_text(guest.hive("SYSTEM"), f'[{SET}\\Services\\xenbus]\n"Start"=dword:00000000')
    assert inspected(guest).source_tools == ("xenserver",)
    uninstall = "\\Microsoft\\Windows\\CurrentVersion\\Uninstall"
    merge_text(guest.hive("SOFTWARE"), f'[{uninstall}\\A]\n"DisplayName"="AWS PV Drivers"')
    assert inspected(guest).source_tools == ()


@pytest.mark.parametrize(
    ("provisioning", "told", "identity"),
    [
        (Provisioning.PVS, "pvs", ""),
        (Provisioning.MCS, "mcs", "7.41.0.62"),
        (Provisioning.NONE, "", ""),
    ],
)
def test_what_provisioned_the_image_is_told(
    new_guest: NewGuest, provisioning: Provisioning, told: str, identity: str
) -> None:
    found = inspected(new_guest(GuestKind(provisioning=provisioning)))
    assert (found.provisioned_by, found.machine_identity_version) == (told, identity)
    assert bool(found.pvs_target_version) == (told == "pvs")
    assert found.vda_version.startswith("2402")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"[StringData]\r\nDiskMode=Shared\r\n", "mcs"),
        ("\ufeff[StringData]\r\nDiskMode=Private\r\n".encode("utf-16-le"), "mcs"),
        (b"[StringData]\r\n$DiskMode=P\r\n", ""),
        (b"", ""),
    ],
)
def test_personality_tells_the_product_by_its_dollar_signs(
    new_guest: NewGuest, text: bytes, told: str
) -> None:
    guest = new_guest(GuestKind(provisioning=Provisioning.NONE))
    (guest.windows.root / "Personality.ini").write_bytes(text)
    assert inspected(guest).provisioned_by == told


def test_an_identity_agent_without_a_version_of_its_own_is_looked_up(new_guest: NewGuest) -> None:
    guest = new_guest(GuestKind(provisioning=Provisioning.MCS))
    agent = guest.windows.root / "Program Files/Citrix/PvsVm/Service/PvsVmAgent.exe"
    agent.write_bytes(b"MZ no version")
    assert inspected(guest).machine_identity_version == "7.41.0.62"
    merge_text(guest.hive("SYSTEM"), f"[-{SET}\\Services\\PvsVmAgent]")
    assert inspected(guest).machine_identity_version == ""


def test_the_write_cache_driver_is_told_by_its_product(guest: Any) -> None:
    assert inspected(guest).mcs_io_version == ""
    merge_text(
        guest.hive("SOFTWARE"),
        "[\\Microsoft\\Windows\\CurrentVersion\\Uninstall\\Io]\n"
        '"DisplayName"="Citrix MCS IODriver"\n"DisplayVersion"="7.41.0.7"',
    )
    assert inspected(guest).mcs_io_version == "7.41.0.7"


def test_drivers_of_others_are_told_with_maker_version_and_class(guest: Any) -> None:
    found = inspected(guest).drivers
    assert found
    assert all(line.startswith("oem") and "Microsoft" not in line for line in found)
    assert [line for line in found if "VMware, Inc." in line and "oem" in line]
    assert any(line.startswith("oem5.inf Citrix Systems, Inc. 2402.0.0.78 ") for line in found)
    numbers = [int(line.partition(".inf")[0][3:]) for line in found]
    assert numbers == sorted(numbers)


def test_a_driver_package_without_its_version_is_told_all_the_same(guest: Any) -> None:
    place = "\\DriverDatabase\\DriverPackages\\odd.inf_amd64_0123456789abcdef"
    merge_text(guest.hive("DRIVERS"), f'[{place}]\n@="oem77.inf"\n"Provider"="Odd"')
    assert "oem77.inf Odd" in inspected(guest).drivers


def test_the_old_network_is_told(guest: Any) -> None:
    dynamic = "{e58a07d4-16b9-4f23-9c80-71d6f3a2b05e}"
    parameters = f"{SET}\\Services\\Tcpip\\Parameters"
    adapters = f"{SET}\\Control\\Network\\{{4D36E972-E325-11CE-BFC1-08002BE10318}}"
    merge_text(
        guest.hive("SYSTEM"),
        f'[{parameters}]\n"SearchList"="corp.example,lab.example"\n\n'
        f'[{parameters}\\Interfaces\\{dynamic}]\n"DhcpIPAddress"="10.9.8.7"\n'
        '"DhcpSubnetMask"="255.255.0.0"\n"DhcpNameServer"="10.9.0.1 10.9.0.2"\n\n'
        f"[{parameters}\\Interfaces\\{{none}}]\n"
        '"EnableDHCP"=dword:00000001\n"DhcpIPAddress"="0.0.0.0"\n"DhcpSubnetMask"="255.0.0.0"',
    )
    for path in ("Network", "Network\\{4D36E972-E325-11CE-BFC1-08002BE10318}"):
        with_parent = f"[{SET}\\Control\\{path}]"
        merge_text(guest.hive("SYSTEM"), with_parent)
    merge_text(guest.hive("SYSTEM"), f"[{adapters}\\{dynamic}]")
    merge_text(guest.hive("SYSTEM"), f'[{adapters}\\{dynamic}\\Connection]\n"Name"="Ethernet0"')
    hosts = guest.windows.root / "Windows/System32/drivers/etc/hosts"
    hosts.write_bytes(b"# nothing\r\n10.1.1.1 a.example # here\r\n\r\n10.1.1.2 b.example\r\n")
    assert inspected(guest).network == (
        (
            "{7c3f2b90-5a1d-4e86-b0f4-2d9e8a61c753}: static 10.20.30.40/255.255.255.0, "
            "gateway 10.20.30.1, name servers 10.20.30.5 10.20.30.6"
        ),
        "Ethernet0: DHCP 10.9.8.7/255.255.0.0, name servers 10.9.0.1 10.9.0.2",
        "route to 10.99.0.0/255.255.0.0 by 10.20.30.254, metric 1",
        "name suffixes corp.example,lab.example",
        "hosts file of 2 entries",
    )


def test_a_guest_that_tells_nothing_is_inspected_too(guest: Any) -> None:
    for key in ("HardwareConfig", "DriverDatabase"):
        merge_text(guest.hive("SYSTEM"), f"[-\\{key}]")
    for key in ("Microsoft", "Citrix", "Policies"):
        merge_text(guest.hive("SOFTWARE"), f"[-\\{key}]")
    guest.hive("DRIVERS").unlink()
    guest.hive("SECURITY").write_bytes(b"no hive at all")
    found = inspect_without_table(guest)
    assert (found.product_name, found.build, found.software, found.drivers) == ("", "", (), ())
    assert found.domain == "corp.example", "what cannot be read frees no machine from its domain"


def test_texts_of_a_guest_are_bounded_and_move_no_cursor(guest: Any) -> None:
    place = "Microsoft\\Windows\\CurrentVersion\\Uninstall"
    routes = "ControlSet001\\Services\\Tcpip\\Parameters\\PersistentRoutes"
    with Hive(guest.hive("SOFTWARE"), writable=True) as hive:
        windows = hive.ensure("Microsoft\\Windows NT\\CurrentVersion")
        windows.set("ProductName", Value.text("Windows 10\x1b[2J\r\nPro"))
        hive.ensure(f"{place}\\Long").set("DisplayName", Value.text("x" * 8000))
        hive.commit()
    with Hive(guest.hive("SYSTEM"), writable=True) as hive:
        for number in range(1100):
            hive.ensure(routes).set(f"10.{number}.0.0,255.0.0.0,10.0.0.1,1", Value.text(""))
        hive.commit()
    found = inspected(guest)
    assert found.product_name == "Windows 11\\x1b[2J\\x0d\\x0aPro"
    assert "x" * 500 + "…" in found.software
    assert len(found.network) == 1001
    assert found.network[-1].startswith("and 10")
    assert all(len(line) <= 501 for line in (*found.software, *found.network))


def inspect_without_table(guest: Any) -> Inspection:
    with ExitStack() as stack:
        return inspect(guest.registry(stack), guest.windows, PartitionTable("none", "", ()))
