"""Every kind of guest: its registry read by libhivex' programs, its files against its registry."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from imageport.sandbox.sample.driver_database import installed_packages
from imageport.sandbox.sample.guest_kind import (
    SYSTEM_FACTS,
    Firmware,
    GuestKind,
    Platform,
    Provisioning,
    System,
)
from imageport.sandbox.sample.programs import run
from imageport.sandbox.sample.windows_files import guest_files
from imageport.sandbox.sample.windows_registry import make_boot_store, make_windows_hives

NT = "Microsoft\\Windows NT\\CurrentVersion"


def value(hive: Path, key: str, name: str) -> str:
    return run(["hivexget", hive, key, name]).strip()


@pytest.mark.parametrize(
    ("system", "build", "kind", "product"),
    [
        (System.WIN10, "19045", "WinNT", "Windows 10 Enterprise"),
        (System.WIN11, "22631", "WinNT", "Windows 10 Enterprise"),
        (System.SERVER2016, "14393", "ServerNT", "Windows Server 2016 Datacenter"),
        (System.SERVER2019, "17763", "ServerNT", "Windows Server 2019 Datacenter"),
        (System.SERVER2022, "20348", "ServerNT", "Windows Server 2022 Datacenter"),
        (System.SERVER2025, "26100", "ServerNT", "Windows Server 2025 Datacenter"),
    ],
)
def test_a_system_says_what_it_is(
    tmp_path: Path, system: System, build: str, kind: str, product: str
):
    make_windows_hives(tmp_path, GuestKind(system=system))
    assert value(tmp_path / "SOFTWARE", NT, "ProductName") == product
    assert value(tmp_path / "SOFTWARE", NT, "CurrentBuild") == build
    for name in ("ControlSet001", "ControlSet002"):
        options = f"{name}\\Control\\ProductOptions"
        assert value(tmp_path / "SYSTEM", options, "ProductType") == kind
    kernel = next(file for file in guest_files(GuestKind(system=system)) if "ntoskrnl" in file.path)
    version = f"10.0.{SYSTEM_FACTS[system].file_build}.".encode("utf-16-le")
    assert version in (kernel.data or b"")


@pytest.mark.parametrize(
    ("platform", "maker", "service", "start"),
    [
        (Platform.VMWARE, "VMware, Inc.", "vsock", "0"),
        (Platform.XENSERVER, "Xen", "xenfilt", "0"),
        (Platform.NUTANIX, "Nutanix", "vioscsi", "0"),
        (Platform.PARALLELS, "Parallels International GmbH.", "prl_strg", "0"),
        (Platform.KVM, "Red Hat", "viostor", "0"),
        (Platform.HYPERV, "Microsoft Corporation", "vmbus", "0"),
        (Platform.NONE, "Imageport sample maker", "stornvme", "0"),
    ],
)
def test_a_platform_leaves_its_machine_and_its_drivers(
    tmp_path: Path, platform: Platform, maker: str, service: str, start: str
):
    make_windows_hives(tmp_path, GuestKind(platform=platform))
    config = value(tmp_path / "SYSTEM", "HardwareConfig", "LastConfig")
    found = value(tmp_path / "SYSTEM", f"HardwareConfig\\{config}", "SystemManufacturer")
    assert found == maker
    for name in ("ControlSet001", "ControlSet002"):
        assert value(tmp_path / "SYSTEM", f"{name}\\Services\\{service}", "Start") == start


@pytest.mark.parametrize("platform", Platform)
@pytest.mark.parametrize("provisioning", Provisioning)
def test_every_service_has_its_file(tmp_path: Path, platform: Platform, provisioning: Provisioning):
    kind = GuestKind(platform=platform, provisioning=provisioning)
    make_windows_hives(tmp_path, kind)
    files = {file.path.lower() for file in guest_files(kind)}
    text = run(["hivexregedit", "--unsafe-printable-strings", "--export",
                tmp_path / "SYSTEM", "\\ControlSet001\\Services"])  # fmt: skip
    images = re.findall(r'^"ImagePath"=str\(2\):"(.*)"$', text, re.MULTILINE)
    assert len(images) > 50
    missing = {image for image in images if _file(image) not in files}
    assert missing == set()


def _file(image: str) -> str:
    path = image.replace('\\"', '"').replace("\\\\", "\\").lower()
    match = re.match(r'"([^"]*)"|(.*?\.(?:exe|sys|dll))', path)
    assert match is not None, image
    path = (match[1] or match[2]).replace("\\", "/")
    for start, whole in (("%systemroot%", "windows"), ("/systemroot", "windows"), ("c:/", "")):
        path = path.replace(start, whole)
    return "windows/" + path if path.startswith("system32") else path


@pytest.mark.parametrize("platform", Platform)
def test_every_driver_package_is_whole(tmp_path: Path, platform: Platform):
    kind = GuestKind(platform=platform)
    make_windows_hives(tmp_path, kind)
    files = {file.path for file in guest_files(kind)}
    for package in installed_packages(platform):
        place = f"DriverDatabase\\DriverInfFiles\\{package.oem_inf}"
        assert value(tmp_path / package.hive, place, "Active") == package.folder
        place = f"DriverDatabase\\DriverPackages\\{package.folder}"
        assert value(tmp_path / package.hive, place, "Provider") == package.provider
        store = f"Windows/System32/DriverStore/FileRepository/{package.folder}"
        for path in (
            f"Windows/INF/{package.oem_inf}",
            f"{store}/{package.inf_name}",
            f"{store}/{package.driver_file}",
            f"Windows/System32/drivers/{package.driver_file}",
        ):
            assert path in files


KINDS = list(
    itertools.starmap(
        GuestKind, itertools.product((System.WIN11,), Platform, Provisioning, Firmware)
    )
)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_no_kind_names_a_file_twice(kind: GuestKind):
    paths = [file.path.lower() for file in guest_files(kind)]
    assert len(set(paths)) == len(paths)


def test_a_machine_catalogue_master_has_the_identity_agent_before_the_workstation(tmp_path: Path):
    make_windows_hives(tmp_path, GuestKind(provisioning=Provisioning.MCS))
    for name in ("ControlSet001", "ControlSet002"):
        services = f"{name}\\Services"
        assert value(tmp_path / "SYSTEM", f"{services}\\PvsVmAgent", "Start") == "2"
        needed = value(tmp_path / "SYSTEM", f"{services}\\LanmanWorkstation", "DependOnService")
        assert "PvsVmAgent" in needed.replace("\0", "")
    text = run(["hivexregedit", "--export", tmp_path / "SYSTEM", "\\ControlSet001\\Services"])
    assert "bnistack" not in text


def test_a_bios_guest_loads_by_winload_exe_from_a_partition_of_an_mbr(tmp_path: Path):
    make_boot_store(tmp_path / "BCD", GuestKind(firmware=Firmware.BIOS))
    text = run(["hivexregedit", "--unsafe-printable-strings", "--export", tmp_path / "BCD", "\\"])
    assert "winload.exe" in text
    assert ".efi" not in text
