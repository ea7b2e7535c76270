"""Removing a source platform's tools: each platform's guest before and after, read by hivex."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imageport.compose.contract import EngineOptions
from imageport.compose.steps.order import STEPS
from imageport.compose.steps.source.all_steps import STEPS as REMOVALS
from imageport.sandbox.sample.guest_kind import GuestKind, Platform
from imageport.sandbox.sample.windows_files import guest_files

PLATFORMS = (
    Platform.VMWARE,
    Platform.XENSERVER,
    Platform.NUTANIX,
    Platform.PARALLELS,
    Platform.KVM,
)
STEP_OF = {
    Platform.VMWARE: "remove_vmware_tools",
    Platform.XENSERVER: "remove_xenserver_tools",
    Platform.NUTANIX: "remove_nutanix_tools",
    Platform.PARALLELS: "remove_parallels_tools",
    Platform.KVM: "remove_old_virtio",
}
SETS = ("ControlSet001", "ControlSet002")
CLASS = "Control\\Class"
DISKS = f"{CLASS}\\{{4d36e967-e325-11ce-bfc1-08002be10318}}"
HDC = f"{CLASS}\\{{4d36e96a-e325-11ce-bfc1-08002be10318}}"
MICE = f"{CLASS}\\{{4d36e96f-e325-11ce-bfc1-08002be10318}}"
NET = f"{CLASS}\\{{4d36e972-e325-11ce-bfc1-08002be10318}}"
SYSTEM_CLASS = f"{CLASS}\\{{4d36e97d-e325-11ce-bfc1-08002be10318}}"
HID = "Enum\\HID\\VID_046D&PID_C077\\7&2b1c6e05&0&0000"
CATALOGUE = "Services\\WinSock2\\Parameters\\Protocol_Catalog9"
GONE = "(missing)"


def value(hive: Path, key: str, name: str) -> str:
    """Return what hivexget says of one value, without NULs; "(missing)" without key or value."""
    done = subprocess.run(["hivexget", hive, key, name], capture_output=True, check=False)
    if done.returncode:
        return GONE
    return done.stdout.decode("latin-1").replace("\0", "").strip().replace("\n", ",")


def readable(hive: Path) -> str:
    """Return a hive as text, with the texts that hivexregedit writes as bytes in clear."""
    done = subprocess.run(
        ["hivexregedit", "--export", hive, "\\"], capture_output=True, check=True, text=True
    )
    return re.sub(
        r"=hex\([127]\):([0-9a-f,]*)",
        lambda match: "=" + bytes.fromhex(match[1].replace(",", "")).decode("utf-16-le"),
        done.stdout,
    )


@pytest.mark.parametrize("control_set", SETS)
@pytest.mark.parametrize(
    ("platform", "key", "name", "before", "after"),
    [
        (Platform.VMWARE, "Services\\VMTools", "Start", "2", GONE),
        (Platform.VMWARE, "Services\\vmci", "Start", "0", GONE),
        (Platform.VMWARE, "Services\\vsock", "Start", "0", GONE),
        (Platform.VMWARE, "Services\\vmvss", "Start", "3", GONE),
        (Platform.VMWARE, "Services\\vmwefifw", "vwdk.installers", "MSI", GONE),
        (Platform.VMWARE, "Services\\vmxnet3ndis6", "Start", "3", GONE),
        (Platform.VMWARE, "Services\\pvscsi", "Start", "0", "0"),
        (Platform.VMWARE, "Services\\mouclass", "Owners",
         "oem6.inf,!vmmouse.inf_amd64_31990a165ac530d5,msmouse.inf", "msmouse.inf"),
        (Platform.VMWARE, HID, "UpperFilters", "VMUsbMouse,mouclass", "mouclass"),
        (Platform.VMWARE, HID, "Service", "mouhid", "mouhid"),
        (Platform.VMWARE, "Enum\\PCI\\VEN_15AD&DEV_0740&SUBSYS_074015AD&REV_10\\3&61aaa01&0&3F",
         "Service", "vmci", GONE),
        (Platform.VMWARE, "Enum\\PCI\\VEN_15AD&DEV_07C0&SUBSYS_07C015AD&REV_02\\3&218e0f40&0&80",
         "Service", "pvscsi", "pvscsi"),
        (Platform.VMWARE, f"{SYSTEM_CLASS}\\0133", "ProviderName", "VMware, Inc.", GONE),
        (Platform.VMWARE, "Control\\NetworkProvider\\Order", "ProviderOrder",
         "vmhgfs,RDPNP,LanmanWorkstation,webclient", "RDPNP,LanmanWorkstation,webclient"),
        (Platform.VMWARE, "Control\\NetworkProvider\\HwOrder", "ProviderOrder",
         "vmhgfs,RDPNP,LanmanWorkstation,webclient", "RDPNP,LanmanWorkstation,webclient"),
        (Platform.VMWARE, "Control\\NetworkProvider\\ProviderOrder", "vmhgfs", "500", GONE),
        (Platform.VMWARE, CATALOGUE, "Num_Catalog_Entries", "5", "3"),
        (Platform.VMWARE, CATALOGUE, "Num_Catalog_Entries64", "5", "3"),
        (Platform.VMWARE, f"{CATALOGUE}\\Catalog_Entries64\\000000000003", "ProtocolName",
         "vSockets DGRAM", "Hyper-V RAW"),
        (Platform.VMWARE, f"{CATALOGUE}\\Catalog_Entries\\000000000004", "ProtocolName",
         "vSockets STREAM", GONE),
        (Platform.VMWARE, "Control\\CoDeviceInstallers", "{4D36E968-E325-11CE-BFC1-08002BE10318}",
         "vm3dc003.dll,VM3DCoInstaller", GONE),
        (Platform.VMWARE, "Services\\W32Time\\TimeProviders\\vmwTimeProvider", "Enabled", "1",
         GONE),
        (Platform.VMWARE, "Services\\VSS\\Providers\\{564d7761-7265-2056-5353-2050726f7669}",
         "Type", "2", GONE),
        (Platform.VMWARE, "Services\\EventLog\\Application\\vmtools", "TypesSupported", "7", GONE),
        (Platform.XENSERVER, HDC, "UpperFilters", "XENFILT", GONE),
        (Platform.XENSERVER, SYSTEM_CLASS, "UpperFilters", "XENFILT", GONE),
        (Platform.XENSERVER, SYSTEM_CLASS, "Class", "System", "System"),
        (Platform.XENSERVER, "Services\\xenfilt\\Unplug", "DISKS", "1", GONE),
        (Platform.XENSERVER, "Services\\XEN\\ForceUnplug", "DISKS", "1", GONE),
        (Platform.XENSERVER, "Services\\xenbus", "Start", "0", GONE),
        (Platform.XENSERVER, "Services\\xenvbd", "Start", "0", GONE),
        (Platform.XENSERVER, "Services\\xenevtchn", "Start", "0", GONE),
        (Platform.XENSERVER, "Services\\xenbus_monitor", "Start", "2", GONE),
        (Platform.XENSERVER, "Services\\storahci\\StartOverride", "0", "3", GONE),
        (Platform.XENSERVER, f"{NET}\\0001", "ProviderName", "Citrix Systems, Inc.", GONE),
        (Platform.XENSERVER, "Services\\BrokerAgent", "Start", "2", "4"),
        (Platform.XENSERVER, "Services\\CVhdMp", "Start", "0", "0"),
        (Platform.NUTANIX, "Services\\Nutanix Guest Agent", "Start", "2", GONE),
        (Platform.NUTANIX, "Services\\netkvm", "Start", "3", GONE),
        (Platform.NUTANIX, "Services\\vioscsi", "Start", "0", "0"),
        (Platform.NUTANIX, "Services\\BALLOON", "Start", "3", GONE),
        (Platform.NUTANIX, "Services\\VSS\\Providers\\{9d6e1b50-3c84-47fa-a2d7-5b08e6f1c93d}", "",
         "Nutanix VSS Hardware Provider", GONE),
        (Platform.PARALLELS, DISKS, "LowerFilters", "prl_strg,EhStorClass", "EhStorClass"),
        (Platform.PARALLELS, MICE, "UpperFilters", "mouclass,prl_mouf", "mouclass"),
        (Platform.PARALLELS, "Services\\prl_strg", "Start", "0", GONE),
        (Platform.PARALLELS, "Control\\NetworkProvider\\Order", "ProviderOrder",
         "RDPNP,LanmanWorkstation,webclient,prl_fs", "RDPNP,LanmanWorkstation,webclient"),
        (Platform.KVM, HDC, "LowerFilters", "rhelfltr", GONE),
        (Platform.KVM, "Services\\rhelscsi", "Start", "0", GONE),
        (Platform.KVM, "Services\\viostor", "Start", "0", "0"),
        (Platform.KVM, "Services\\QEMU-GA", "Start", "2", GONE),
        (Platform.KVM, "Services\\spice-agent", "Start", "2", GONE),
    ],
)  # fmt: skip
def test_what_leads_to_the_tools_goes_from_every_control_set(
    pristine_guests: Any,
    composed_guest: Any,
    control_set: str,
    platform: Platform,
    key: str,
    name: str,
    before: str,
    after: str,
) -> None:
    kind = GuestKind(platform=platform)
    pristine = pristine_guests(kind) / "windows/Windows/System32/config/SYSTEM"
    guest, _ = composed_guest(kind)
    assert value(pristine, f"{control_set}\\{key}", name) == before
    assert value(guest.hive("SYSTEM"), f"{control_set}\\{key}", name) == after


RUN = "Microsoft\\Windows\\CurrentVersion\\Run"
INSTALLER = "Microsoft\\Windows\\CurrentVersion\\Installer"
COMPONENTS = f"{INSTALLER}\\UserData\\S-1-5-18\\Components"
VMWARE_CODE, RUNTIME_CODE = "4C19E2D5B7F063A4C8D13E6B9A2F0487", "1B3E9D7A64C208F4B951E7062D8C3F49"


@pytest.mark.parametrize(
    ("platform", "key", "name", "is_there_after"),
    [
        (Platform.VMWARE, RUN, "VMware User Process", False),
        (Platform.VMWARE, RUN, "SecurityHealth", True),
        (Platform.VMWARE, f"{INSTALLER}\\Folders",
         "C:\\Program Files\\VMware\\VMware Tools\\", False),
        (Platform.VMWARE, f"{INSTALLER}\\Folders",
         "C:\\Program Files\\Microsoft Office\\root\\", True),
        (Platform.VMWARE, f"{COMPONENTS}\\0D6A1F5E84B7C3924E10A8B5D7F3C260", VMWARE_CODE, False),
        (Platform.VMWARE, f"{COMPONENTS}\\F31C7A5D9E0B2846A1C7D3E5B0984F26", VMWARE_CODE, False),
        (Platform.VMWARE, f"{COMPONENTS}\\F31C7A5D9E0B2846A1C7D3E5B0984F26", RUNTIME_CODE, True),
        (Platform.VMWARE, f"Classes\\Installer\\Products\\{VMWARE_CODE}", "ProductName", False),
        (Platform.VMWARE, "RegisteredApplications", "VMware Host Open", False),
        (Platform.VMWARE, "RegisteredApplications", "Windows Search", True),
        (Platform.VMWARE, "Classes\\CLSID\\{C73DA087-EDDB-4a7c-B216-8EF8A3B92C7B}", "", False),
        (Platform.VMWARE, "Classes\\AppID\\{03C65BF9-615F-4319-AA0B-A688CA98250A}", "", False),
        (Platform.VMWARE,
         "Classes\\CLSID\\{0BE35204-8F91-11CE-9DE3-00AA004BB851}\\InprocServer32", "", True),
        (Platform.VMWARE, "VMware, Inc.\\VMware Tools", "InstallPath", False),
        (Platform.XENSERVER, "Citrix\\XenTools", "Install_Dir", False),
        (Platform.XENSERVER, "Citrix\\VirtualDesktopAgent", "ListOfDDCs", True),
        (Platform.NUTANIX, "Nutanix\\GuestTools", "Version", False),
        (Platform.PARALLELS, RUN, "Parallels Tools Control Center", False),
        (Platform.PARALLELS,
         "Classes\\Directory\\shellex\\ContextMenuHandlers\\Parallels", "", False),
    ],
)  # fmt: skip
def test_software_forgets_the_tools_and_nothing_else(
    pristine_guests: Any,
    composed_guest: Any,
    platform: Platform,
    key: str,
    name: str,
    is_there_after: bool,
) -> None:
    kind = GuestKind(platform=platform)
    pristine = pristine_guests(kind) / "windows/Windows/System32/config/SOFTWARE"
    guest, _ = composed_guest(kind)
    before = value(pristine, key, name)
    assert before != GONE
    assert value(guest.hive("SOFTWARE"), key, name) == (before if is_there_after else GONE)


NAMES = {
    Platform.VMWARE: r"vmware|vmtools|vmci|vsock|vmhgfs|vm3d|vmxnet|vmmouse|15ad|oem[34678]\.",
    Platform.XENSERVER: r"xen(?!desktop)|oem[23467]\.",
    Platform.NUTANIX: r"nutanix|netkvm|balloon|oem[34]\.",
    Platform.PARALLELS: r"parallels|prl_|netkvm|oem[2346]\.",
    Platform.KVM: r"red ?hat|virtio|qemu|spice|netkvm|balloon|rhel|oem[346]\.",
}
"""Words of the tools; oem5 is the target device software's INF."""
KEPT = {
    Platform.VMWARE: r"pvscsi|PCI\\VEN_15AD&DEV_07C0|e10318}\\0001\]",
    Platform.NUTANIX: r"vioscsi|PCI\\VEN_1AF4&DEV_1004|e10318}\\0001\]",
    Platform.KVM: r"viostor|PCI\\VEN_1AF4&DEV_1001|e10318}\\0001\]",
}
"""Keys, or lines, of the disk driver that stays, idle."""


@pytest.mark.parametrize("platform", PLATFORMS)
def test_no_hive_names_the_tools_any_more(composed_guest: Any, platform: Platform) -> None:
    guest, _ = composed_guest(GuestKind(platform=platform))
    kept = re.compile("HardwareConfig|" + KEPT.get(platform, "HardwareConfig"))
    found = [
        f"{section} {line}"
        for name in ("SYSTEM", "SOFTWARE", "DRIVERS")
        for section, line in lines_of(readable(guest.hive(name)))
        if re.search(NAMES[platform], line, re.IGNORECASE)
        and not kept.search(section)
        and not kept.search(line)
    ]
    assert found == []


def lines_of(text: str) -> Iterator[tuple[str, str]]:
    """Yield each line of an exported hive with the key that it stands in."""
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line
        yield section, line


@pytest.mark.parametrize("platform", PLATFORMS)
def test_files_of_the_tools_go_and_all_others_stay(composed_guest: Any, platform: Platform) -> None:
    kind = GuestKind(platform=platform)
    guest, changes = composed_guest(kind)
    removed = [
        change.path.lower().replace("\\", "/").lstrip("/")
        for change in changes
        if change.step == STEP_OF[platform] and change.kind in {"file", "folder"}
    ]
    of_windows = {file.path for file in guest_files(GuestKind(platform=Platform.HYPERV))}
    tools = [file.path for file in guest_files(kind) if file.path not in of_windows]
    for path in of_windows:
        assert not any(path.lower() == one or path.lower().startswith(one + "/") for one in removed)
    left = [path for path in tools if guest.windows.exists(path)]
    disk_driver = {
        Platform.VMWARE: ["pvscsi.sys", "pvscsi.sys", "pvscsi.inf", "oem2.inf", "oem2.cat"],
        Platform.NUTANIX: ["vioscsi.sys", "vioscsi.sys", "vioscsi.inf", "oem2.inf", "oem2.cat"],
        Platform.KVM: ["viostor.sys", "viostor.sys", "viostor.inf", "oem2.inf", "oem2.cat"],
    }.get(platform, [])
    assert sorted(path.rpartition("/")[2] for path in left) == sorted(disk_driver)
    assert len(tools) > len(left) + 10


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_guest_without_tools_is_left_alone(new_guest: Any, platform: Platform) -> None:
    guest = new_guest(GuestKind(platform=Platform.HYPERV))
    changes = guest.changes(EngineOptions(), apply=False)
    assert [change for change in changes if change.step == STEP_OF[platform]] == []
    (note,) = [note for note in guest.notes if note.name == STEP_OF[platform]]
    assert (note.chosen, note.reason) == (False, "nothing to do here")


@pytest.mark.parametrize("platform", PLATFORMS)
def test_removing_twice_comes_to_the_same_as_once(new_guest: Any, platform: Platform) -> None:
    guest = new_guest(GuestKind(platform=platform))
    first = guest.compose()
    folder = guest.windows.root / "Windows/ImageportFirstBoot"
    subprocess.run(["rm", "-r", folder], check=True)
    again = guest.changes(EngineOptions(), apply=False)
    names = set(STEP_OF.values())
    assert {change.step for change in first} & names == {STEP_OF[platform]}
    assert [change for change in again if change.step in names] == []


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_verdict_holds_only_after_removal(
    new_guest: Any, composed_guest: Any, platform: Platform
) -> None:
    kind = GuestKind(platform=platform)
    before = new_guest(kind).judge()
    assert not before["source_removed"].passed
    after = composed_guest(kind)[0].judge()
    for name in ("source_removed", "dependencies", "class_filters", "boot_driver_files"):
        assert after[name].passed, after[name].evidence


@pytest.mark.parametrize(
    ("platform", "cloud", "stays"),
    [
        (Platform.VMWARE, "aws", "pvscsi stays, it leads to the disk where the image comes from"),
        (Platform.NUTANIX, "aws", "vioscsi stays, it leads to the disk where the image comes"),
        (Platform.NUTANIX, "gcp", "netkvm stays, it serves devices of gcp"),
        (Platform.NUTANIX, "gcp", "vioscsi stays, it serves devices of gcp"),
        (Platform.KVM, "gcp", "viostor stays, it leads to the disk where the image comes from"),
        (Platform.PARALLELS, "gcp", "netkvm stays, it serves devices of gcp"),
    ],
)
def test_the_plan_says_what_stays_and_why(
    composed_guest: Any, platform: Platform, cloud: str, stays: str
) -> None:
    options = EngineOptions(cloud=cloud, required_nic_ids=("PCI\\VEN_1D0F&DEV_EC20",))
    guest, _ = composed_guest(GuestKind(platform=platform), options)
    (note,) = [note for note in guest.notes if note.name == STEP_OF[platform]]
    assert stays in note.reason


def test_removal_reads_no_option_and_runs_wherever_its_tools_are() -> None:
    assert [step.name for step in REMOVALS] == list(STEP_OF.values())
    for step in REMOVALS:
        assert step in STEPS
        assert (step.options, step.clouds) == ((), ())
        assert all(step.is_chosen(EngineOptions(cloud=cloud)) for cloud in ("aws", "azure", "gcp"))
        assert step.problems(EngineOptions()) == []


def test_a_list_without_filters_comes_before_the_service_and_the_service_before_its_file(
    composed_guest: Any,
) -> None:
    _, changes = composed_guest(GuestKind(platform=Platform.PARALLELS))
    shown = [
        f"{change.kind} {change.path} {change.name}".rstrip()
        for change in changes
        if change.step == "remove_parallels_tools"
    ]
    at = [
        next(number for number, line in enumerate(shown) if line.endswith(end))
        for end in (
            "{4d36e967-e325-11ce-bfc1-08002be10318} LowerFilters",
            "ControlSet001\\Services\\prl_strg",
            "DriverPackages\\prl_strg.inf_amd64_19c6e0b5d4a7f823",
            "Uninstall\\{9C6E2D18-B5A0-4F73-8E41-D7F0A3C5B926}",
            "drivers\\prl_strg.sys",
        )
    ]
    assert at == sorted(at)
