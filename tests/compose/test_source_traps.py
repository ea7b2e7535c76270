"""What removal must leave alone, or do with care: names that others use too, broken remains."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imageport.compose.contract import Change, EngineOptions
from imageport.compose.first_boot.plan import RESET_WINSOCK, parse_plan
from imageport.compose.hives.hive import Hive
from imageport.compose.steps.source.all_steps import PLATFORMS, STEPS, is_source_service
from imageport.compose.steps.source.platform_software import packed_guid
from imageport.compose.steps.source.source_platform import volume_path
from imageport.compose.steps.source.winsock_catalog import winsock_entries
from imageport.sandbox.sample.driver_package import write_package
from imageport.sandbox.sample.guest_kind import GuestKind, Platform
from tests.compose.tool_remains import CATALOGUE, SETS, merge, put_driver, start_of

REMOVALS = {step.name for step in STEPS}
DISKS = "[\\{set}\\Control\\Class\\{4d36e967-e325-11ce-bfc1-08002be10318}]\n"
AWS = EngineOptions()


def removed(guest: Any, options: EngineOptions = AWS) -> list[Change]:
    return [change for change in guest.compose(options) if change.step in REMOVALS]


@pytest.mark.parametrize(
    ("service", "file", "company", "goes"),
    [
        ("vmci", "vmci.sys", "VMware, Inc.", True),
        ("vmci", "vmci.sys", "Broadcom Inc.", True),
        ("vmci", "vmci.sys", "Microsoft Corporation", False),
        ("vmmemctl", "vmmemctl.sys", "Another Maker", False),
        ("xenbus", "xenbus.sys", "Amazon Web Services, Inc.", False),
        ("xenbus", "xenbus.sys", "Citrix Systems, Inc.", True),
        ("balloon", "balloon.sys", "Google LLC", False),
        ("gencounter", "vmgencounter.sys", "VMware, Inc.", False),
    ],
)
def test_a_service_goes_by_its_name_and_its_maker(
    new_guest: Any, service: str, file: str, company: str, goes: bool
) -> None:
    guest = new_guest(GuestKind(platform=Platform.HYPERV))
    merge(
        guest,
        "SYSTEM",
        f'[\\{{set}}\\Services\\{service}]\n"Type"=dword:00000001\n"Start"=dword:00000003\n'
        f'"ImagePath"=expand:"\\\\SystemRoot\\\\System32\\\\drivers\\\\{file}"\n',
    )
    put_driver(guest, file, company)
    removed(guest)
    assert (start_of(guest, service) is None) is goes
    assert guest.windows.exists(f"Windows/System32/drivers/{file}") is not goes


def test_amazons_drivers_of_the_same_names_stay_with_their_filters(new_guest: Any) -> None:
    guest = new_guest(GuestKind(platform=Platform.XENSERVER))
    for name in ("xenbus", "xenfilt", "xenvbd", "xenvif", "xennet", "xeniface"):
        put_driver(guest, f"{name}.sys", "Amazon Inc.")
    for hive in ("SYSTEM", "DRIVERS"):
        with ExitStack() as stack:
            packages = guest.registry(stack).key(hive, "DriverDatabase\\DriverPackages")
            names = [key.name for key in packages.children() if key.name.startswith("xen")]
        for name in names:
            merge(
                guest,
                hive,
                f'[\\DriverDatabase\\DriverPackages\\{name}]\n"Provider"="Amazon Inc."\n'
                f'"OemPath"="C:\\\\Program Files\\\\Amazon\\\\Xentools"\n',
            )
    changes = removed(guest)
    for name in ("xenbus", "xenfilt", "xenvbd", "xenvif", "xennet", "xeniface"):
        assert start_of(guest, name) is not None, name
        assert guest.windows.exists(f"Windows/System32/drivers/{name}.sys")
    assert not [change for change in changes if "Filters" in change.name]
    assert not [change for change in changes if "DriverDatabase" in change.path]
    assert start_of(guest, "XenSvc") is None
    assert guest.judge()["source_removed"].passed


def test_an_event_channel_of_another_maker_is_kept_from_looking_for_xen(new_guest: Any) -> None:
    guest = new_guest(GuestKind(platform=Platform.XENSERVER))
    put_driver(guest, "xenevtchn.sys", "Another Maker")
    guest.compose()
    with ExitStack() as stack:
        registry = guest.registry(stack)
        for name in SETS:
            place = f"{name}\\Services\\xenevtchn"
            assert registry.number("SYSTEM", place, "NoPVBoot") == 1


def test_a_package_of_the_payload_stays_also_when_preparing_again(new_guest: Any) -> None:
    guest = new_guest(GuestKind(platform=Platform.KVM))
    write_package("netkvm", guest.payload / "netkvm")
    options = EngineOptions(drivers=("ena", "netkvm"), required_nic_ids=("PCI\\VEN_1AF4&DEV_1000",))
    guest.compose(options)
    shutil.rmtree(guest.windows.root / "Windows/ImageportFirstBoot")
    again = [change for change in guest.compose(options) if change.step in REMOVALS]
    assert again == []
    assert start_of(guest, "netkvm") is not None


def test_a_network_driver_stays_while_no_other_serves_the_target(new_guest: Any) -> None:
    guest = new_guest()
    shutil.rmtree(guest.payload / "ena")
    guest.compose()
    assert start_of(guest, "vmxnet3ndis6") == 3
    (note,) = [note for note in guest.notes if note.name == "remove_vmware_tools"]
    assert "vmxnet3ndis6 stays, it is the only network driver" in note.reason


@pytest.mark.parametrize("service", ["LSI_SAS", "vmscsi_other"])
def test_the_driver_of_the_boot_disks_controller_stays_whatever_its_name(
    new_guest: Any, service: str
) -> None:
    guest = new_guest()
    merge(
        guest,
        "SYSTEM",
        f'[\\{{set}}\\Services\\{service}]\n"Type"=dword:00000001\n"Start"=dword:00000000\n'
        f'"ImagePath"=expand:"System32\\\\drivers\\\\{service}.sys"\n"vwdk.installers"=multi:"MSI"\n'
        f"\n[\\{{set}}\\Enum\\PCI\\VEN_15AD&DEV_0790\\0]\n"
        f'"Service"="{service}"\n"ClassGUID"="{{4d36e97b-e325-11ce-bfc1-08002be10318}}"\n'.replace(
            "\n\n[", "\n\n[\\{set}\\Enum\\PCI\\VEN_15AD&DEV_0790]\n\n["
        ),
    )
    put_driver(guest, f"{service}.sys", "VMware, Inc.")
    guest.compose()
    assert start_of(guest, service) == 0
    assert guest.windows.exists(f"Windows/System32/drivers/{service}.sys")


def test_names_that_lead_nowhere_are_taken_out_of_filters_and_dependencies(new_guest: Any) -> None:
    guest = new_guest(GuestKind(platform=Platform.HYPERV))
    disks = "Control\\Class\\{4d36e967-e325-11ce-bfc1-08002be10318}"
    merge(guest, "SYSTEM", f'[\\{{set}}\\{disks}]\n"LowerFilters"=multi:"prl_strg","EhStorClass"\n')
    merge(guest, "SYSTEM", '[\\{set}\\Services\\W32Time]\n"DependOnService"=multi:"vmci"\n')
    assert not guest.judge()["source_removed"].passed
    guest.compose()
    with ExitStack() as stack:
        registry = guest.registry(stack)
        found = registry.value("SYSTEM", f"ControlSet001\\{disks}", "LowerFilters")
        assert found is not None
        assert found.as_texts() == ["EhStorClass"]
        assert (
            registry.value("SYSTEM", "ControlSet001\\Services\\W32Time", "DependOnService") is None
        )
    assert guest.judge()["source_removed"].passed


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("a gap", f"[-\\{{set}}\\{CATALOGUE}\\Catalog_Entries64\\000000000002]\n"),
        ("a count", f'[\\{{set}}\\{CATALOGUE}]\n"Num_Catalog_Entries64"=dword:00000007\n'),
    ],
)
def test_a_winsock_catalogue_that_is_not_as_windows_writes_it_is_left_to_windows(
    new_guest: Any, what: str, text: str
) -> None:
    guest = new_guest()
    merge(guest, "SYSTEM", text)
    changes = removed(guest)
    assert not [change for change in changes if "Catalog_Entries64" in change.path], what
    assert [change for change in changes if "Catalog_Entries\\" in change.path], "the other width"
    plan = parse_plan((guest.windows.root / "Windows/ImageportFirstBoot/plan.txt").read_bytes())
    assert [step.required for step in plan.steps if step.verb == RESET_WINSOCK] == [True]
    assert guest.judge()["source_removed"].passed


def test_a_protocol_that_is_layered_on_one_that_goes_is_left_to_windows(new_guest: Any) -> None:
    guest = new_guest()
    with ExitStack() as stack:
        registry = guest.registry(stack)
        place = f"ControlSet001\\{CATALOGUE}\\Catalog_Entries\\000000000005"
        value = registry.value("SYSTEM", place, "PackedCatalogItem")
    record = bytearray(value.data)
    record[300:312] = b"\2\0\0\0" + (1006).to_bytes(4, "little") + (1004).to_bytes(4, "little")
    text = ",".join(f"{byte:02x}" for byte in record)
    merge(guest, "SYSTEM", f'[\\{place}]\n"PackedCatalogItem"=hex:{text}\n')
    guest.compose()
    with ExitStack() as stack:
        entries = list(winsock_entries(guest.registry(stack), "ControlSet001"))
    libraries = {width: [e.library for e in entries if e.width == width] for width in ("", "64")}
    assert libraries[""].count("vsocklib.dll") == 2
    assert libraries["64"].count("vsocklib.dll") == 0
    plan = parse_plan((guest.windows.root / "Windows/ImageportFirstBoot/plan.txt").read_bytes())
    assert [step.verb for step in plan.steps].count(RESET_WINSOCK) == 1


def test_a_name_space_of_a_library_that_goes_is_taken_out(new_guest: Any) -> None:
    guest = new_guest()
    place = "{set}\\Services\\WinSock2\\Parameters\\NameSpace_Catalog5"
    count = '"Num_Catalog_Entries"=dword:00000002\n'
    entries = f"[\\{place}]\n{count}\n[\\{place}\\Catalog_Entries]\n\n"
    for number, name in ((1, "vsocklib"), (2, "winrnr")):
        entries += f"[\\{place}\\Catalog_Entries\\{number:012d}]\n"
        entries += f'"LibraryPath"="%SystemRoot%\\\\System32\\\\{name}.dll"\n\n'
    merge(guest, "SYSTEM", entries)
    guest.compose()
    with ExitStack() as stack:
        found = [
            (entry.name, entry.library)
            for entry in winsock_entries(guest.registry(stack), "ControlSet002")
            if entry.catalogue == "NameSpace_Catalog5"
        ]
    assert found == [("000000000001", "winrnr.dll")]


@pytest.mark.parametrize(
    ("what", "text", "evidence"),
    [
        (
            "a service",
            '[\\{set}\\Services\\VMTools]\n"Start"=dword:00000002\n',
            "VMTools of VMware Tools",
        ),
        (
            "a filter",
            DISKS + '"LowerFilters"=multi:"prl_strg"\n',
            "prl_strg does not exist",
        ),
        (
            "a network provider",
            '[\\{set}\\Control\\NetworkProvider\\Order]\n"ProviderOrder"="vmhgfs,RDPNP"\n',
            "vmhgfs does not exist",
        ),
        (
            "a Winsock entry",
            f"[\\{{set}}\\{CATALOGUE}\\Catalog_Entries\\000000000003]\n"
            '"PackedCatalogItem"=hex:' + ",".join(f"{b:02x}" for b in b"C:\\vsocklib.dll\0") + "\n",
            "Protocol_Catalog9 names vsocklib.dll, which is gone",
        ),
    ],
)
def test_the_verdict_names_what_was_left(
    new_guest: Any, what: str, text: str, evidence: str
) -> None:
    guest = new_guest(GuestKind(platform=Platform.HYPERV))
    guest.compose()
    assert guest.judge()["source_removed"].passed
    merge(guest, "SYSTEM", text)
    item = guest.judge()["source_removed"]
    assert not item.passed, what
    assert evidence in item.evidence


def test_every_platforms_data_is_plain() -> None:
    for platform in PLATFORMS:
        assert platform.makers
        assert all(name == name.lower() for name in platform.makers)
        assert all("\\" not in folder and "*" not in folder for folder in platform.folders)
        assert all(len(folder.split("/")) > 1 for folder in platform.folders)
        assert "microsoft" not in platform.makers
    assert not is_source_service("vmbus")
    assert not is_source_service("vmicheartbeat")
    assert not is_source_service("storvsc")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('"C:\\Program Files\\x\\y.exe" -run', "program files/x/y.exe"),
        ("C:\\Program Files\\x y\\z.exe /a", "program files/x y/z.exe"),
        ("\\SystemRoot\\System32\\drivers\\a.sys", "windows/system32/drivers/a.sys"),
        ("system32\\DRIVERS\\a.sys", "windows/system32/drivers/a.sys"),
        ("%SystemRoot%\\system32\\a.dll,-100", "windows/system32/a.dll"),
        ("\\??\\C:\\Windows\\a.sys", "windows/a.sys"),
        ("C:\\Program Files\\x\\", "program files/x"),
        ("", ""),
    ],
)
def test_a_path_of_the_registry_becomes_one_of_the_volume(text: str, path: str) -> None:
    assert volume_path(text) == path


def test_a_product_code_is_packed_as_windows_installer_does_it() -> None:
    # Of Microsoft's runtime library: known from many real machines.
    assert packed_guid("{90120000-0015-0407-0000-0000000FF1CE}") == (
        "00002109510070400000000000F01FEC"
    )
    assert packed_guid("VMware Tools") == ""


ITEMS = (
    ("SYSTEM", "{set}\\Services\\VMTools"),
    ("SYSTEM", "{set}\\Services\\vmci"),
    ("SYSTEM", "{set}\\Services\\vmhgfs"),
    ("SYSTEM", "{set}\\Services\\vmusbmouse"),
    ("SYSTEM", "{set}\\Services\\pvscsi"),
    ("SYSTEM", "{set}\\Services\\WinSock2"),
    ("SYSTEM", "{set}\\Enum"),
    ("SYSTEM", "{set}\\Control\\Class\\{4d36e96f-e325-11ce-bfc1-08002be10318}"),
    ("SYSTEM", "{set}\\Control\\NetworkProvider"),
    ("SYSTEM", "DriverDatabase\\DriverPackages\\pvscsi.inf_amd64_c40e8a17d95b263f"),
    ("DRIVERS", "DriverDatabase\\DriverPackages\\vmci.inf_amd64_8d3a60f1c7e5b492"),
    ("DRIVERS", "DriverDatabase\\DriverInfFiles"),
    ("SOFTWARE", "Microsoft\\Windows\\CurrentVersion\\Uninstall"),
    ("SOFTWARE", "Microsoft\\Windows\\CurrentVersion\\Installer"),
    ("SOFTWARE", "Classes"),
    ("SOFTWARE", "VMware, Inc."),
)
FILES = (
    "Windows/System32/drivers/vmci.sys",
    "Windows/System32/drivers/vsock.sys",
    "Windows/System32/vsocklib.dll",
    "Windows/System32/DriverStore/FileRepository/vmci.inf_amd64_8d3a60f1c7e5b492",
    "Program Files/VMware",
)


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    items=st.lists(st.sampled_from(ITEMS), unique=True),
    files=st.lists(st.sampled_from(FILES), unique=True),
    sets=st.sampled_from([SETS, SETS[:1], SETS[1:]]),
)
def test_whatever_is_missing_of_the_tools_the_rest_goes(
    new_guest: Any, items: list[tuple[str, str]], files: list[str], sets: tuple[str, ...]
) -> None:
    guest = new_guest()
    for hive, key in items:
        with Hive(guest.hive(hive), writable=True) as opened:
            for name in sets if "{set}" in key else ("",):
                found = opened.key(key.replace("{set}", name))
                if found is not None:
                    found.delete()
            opened.commit()
    for path in files:
        place: Path = guest.windows.root / path
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    guest.compose()
    item = guest.judge()["source_removed"]
    assert item.passed, item.evidence
    shutil.rmtree(guest.windows.root / "Windows/ImageportFirstBoot")
    again = guest.changes(EngineOptions(), apply=False)
    assert [change for change in again if change.step in REMOVALS] == []
