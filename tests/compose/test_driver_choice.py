"""Which driver packages go in offline, under which number, and what of the guest gives way."""

from __future__ import annotations

import lzma
import struct
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from imageport.compose.cloud_target import TARGETS
from imageport.compose.contract import Action, EngineOptions, Inspection
from imageport.compose.drivers.driver_packages import find_packages
from imageport.compose.drivers.inf_installs import InfService
from imageport.compose.drivers.installed_drivers import infs_for
from imageport.compose.drivers.package_database import marked, next_oem_number
from imageport.compose.hives.hive import Hive
from imageport.compose.hives.registry import Registry, hive_path
from imageport.compose.hives.registry_value import Value
from imageport.compose.step import Context
from imageport.compose.steps.drivers import install_drivers
from imageport.compose.steps.drivers.install_drivers import InstallDrivers
from imageport.compose.volumes.guest_files import PendingFiles
from imageport.compose.volumes.local_files import LocalFiles
from imageport.sandbox.sample.driver_package import write_package
from imageport.sandbox.sample.hives import base_block_checksum, empty_hive, expand, merge_text
from imageport.sandbox.sample.portable_executable import minimal_pe
from tests.compose.driver_guests import (
    GCP,
    SETS,
    STORE,
    TESTDATA,
    hivexget,
    install,
    reason,
    refused,
    store_of,
)


def test_the_boot_storage_of_the_target_must_come_from_somewhere(guest: Any) -> None:
    assert refused(guest, GCP) == ["driver_missing"]
    assert refused(guest, EngineOptions()) == []
    merge_text(
        guest.hive("SYSTEM"), '[\\ControlSet001\\Services\\vioscsi]\n"Start"=dword:00000000\n'
    )
    assert refused(guest, GCP) == []


def test_the_payloads_driver_is_enough(gcp: Any) -> None:
    assert refused(gcp, GCP) == []


def test_packages_for_other_devices_wait_for_pnputil(guest: Any) -> None:
    write_package("nvme", guest.payload / "nvme")
    changes = guest.compose()
    assert not [c for c in changes if "samplenvme" in c.path and c.step == "install_drivers"]
    plan = guest.windows.read("Windows/ImageportFirstBoot/plan.txt", 4096).decode()
    assert "optional add-driver nvme\\nvme.inf" in plan
    assert "nvme 1.5.2.0 waits for first boot" in reason(guest)


def test_an_older_package_than_the_images_is_left_out_with_the_reason(guest: Any) -> None:
    install(guest)
    (guest.payload / "ena/ena.inf").unlink()
    write_package("ena", guest.payload / "ena", version="2.1.0.0")
    inf = guest.payload / "ena/ena.inf"
    inf.write_bytes(inf.read_bytes().replace(b"03/14/2025", b"03/14/2021"))
    assert install(guest) == []
    assert "ena 2.1.0.0 is left out: the image has the newer oem" in reason(guest)
    guest.compose()
    plan = guest.windows.read("Windows/ImageportFirstBoot/plan.txt", 4096).decode()
    assert "add-driver" not in plan
    assert guest.judge()["network_driver"].passed


def test_a_newer_package_comes_beside_the_old_one_and_its_file_replaces_it(guest: Any) -> None:
    install(guest)
    write_package("ena", guest.payload / "ena", version="3.0.0.0")
    changes = install(guest)
    path = "\\Windows\\System32\\drivers\\ena.sys"
    assert [(c.kind, bool(c.before)) for c in changes if c.path == path] == [("file", True)]
    owners = hivexget(guest.hive("SYSTEM"), "ControlSet001\\Services\\ena", "Owners")
    assert len(owners.split()) == 2
    assert len([n for n in guest.windows.names(STORE) if n.startswith("ena.inf_")]) == 2


@pytest.mark.parametrize(
    ("there", "company", "replaced"),
    [
        ("2.9.0.3", "Sample", True),
        ("2.9.0.4", "Sample", False),
        ("2.10.0.0", "Sample", False),
        ("1.0.0.0", "Microsoft Corporation", False),
        ("", "", False),
    ],
)
def test_a_file_that_is_there_gives_way_to_a_newer_one_only(
    guest: Any, there: str, company: str, *, replaced: bool
) -> None:
    place = guest.windows.root / "Windows/System32/drivers/ena.sys"
    old = minimal_pe("ena.sys", there, company=company) if there else b"no program"
    place.write_bytes(old)
    install(guest)
    assert (place.read_bytes() != old) is replaced


def test_a_service_of_windows_itself_is_not_taken_over(guest: Any) -> None:
    owned = expand('[\\ControlSet001\\Services\\ena]\n"Owners"=multi:"netena.inf"\n')
    merge_text(guest.hive("SYSTEM"), owned)
    assert install(guest) == []
    assert "waits for first boot: service ena is Windows' own, of netena.inf" in reason(guest)
    guest.compose()
    verdict = guest.judge()
    assert verdict["driver_packages"].passed
    assert "left to first boot: service ena is Windows' own" in verdict["driver_packages"].evidence
    assert verdict["network_driver"].evidence.endswith("will be served by ena\\ena.inf")


def test_a_device_whose_driver_another_inf_has_is_not_bound_offline(gcp: Any) -> None:
    inf = gcp.payload / "gcp/vioscsi/vioscsi.inf"
    text = inf.read_bytes()
    assert b"AddService" in text
    inf.write_bytes(text.replace(b"AddService", b"Needs = Other.Services ;"))
    changes = install(gcp, GCP)
    assert not [c for c in changes if "vioscsi" in c.path]
    assert "vioscsi 100.95.104.26200 waits for first boot: its INF takes" in reason(gcp, GCP)
    assert not gcp.judge(options=GCP)["driver_database"].passed


def test_without_a_hive_of_other_drivers_they_go_into_system(guest: Any) -> None:
    guest.hive("DRIVERS").unlink()
    assert "in SYSTEM because there is no hive DRIVERS" in reason(guest)
    install(guest)
    place = "DriverDatabase\\DeviceIds\\PCI\\VEN_1D0F&DEV_EC20"
    with Hive(guest.hive("SYSTEM")) as system:
        assert system.key(place) is not None


def test_an_older_windows_gets_critical_devices_in_every_control_set(gcp: Any) -> None:
    merge_text(gcp.hive("SYSTEM"), "[-\\DriverDatabase]\n")
    install(gcp, GCP)
    device = "pci#ven_1af4&dev_1004&subsys_00081af4&rev_00"
    for control_set in SETS:
        place = f"{control_set}\\Control\\CriticalDeviceDatabase\\{device}"
        assert hivexget(gcp.hive("SYSTEM"), place, "Service") == "vioscsi"
        guid = hivexget(gcp.hive("SYSTEM"), place, "ClassGUID")
        assert guid == "{4d36e97b-e325-11ce-bfc1-08002be10318}"
        assert hivexget(gcp.hive("SYSTEM"), f"{control_set}\\Services\\vioscsi", "Start") == "0"
    assert "this Windows has no driver database" in reason(gcp, GCP)
    assert install(gcp, GCP) == []
    assert gcp.windows.exists("Windows/System32/drivers/vioscsi.sys")


def test_overrides_of_the_old_hardware_go(gcp: Any) -> None:
    text = '[\\ControlSet002\\Services\\vioscsi]\n"Start"=dword:00000003\n\n'
    text += '[\\ControlSet002\\Services\\vioscsi\\StartOverride]\n"0"=dword:00000003\n'
    merge_text(gcp.hive("SYSTEM"), text)
    gcp.compose(GCP)
    place = "ControlSet002\\Services\\vioscsi"
    assert hivexget(gcp.hive("SYSTEM"), place, "Start") == "0"
    assert hivexget(gcp.hive("SYSTEM"), f"{place}\\StartOverride", "0") == "(missing)"
    plan = gcp.windows.read("Windows/ImageportFirstBoot/plan.txt", 4096).decode()
    assert plan.count("remove-override vioscsi") == 1


def test_an_inf_without_devices_for_this_windows_waits(guest: Any) -> None:
    inf = guest.payload / "ena/ena.inf"
    text = inf.read_bytes().replace(b"NTamd64.10.0...16299, NTamd64\r", b"NTamd64.10.0...99999\r")
    inf.write_bytes(text.replace(b"[ENA.NTamd64.10.0...16299]", b"[ENA.NTamd64.10.0...99999]"))
    assert "its INF has no devices for Windows 10.0.22631" in reason(guest)
    assert install(guest) == []


def test_what_of_an_inf_is_not_followed_is_said(gcp: Any) -> None:
    said = reason(gcp, GCP)
    assert "left to first boot: [Net.ndi.New.HW] Include=pci.inf" in said
    assert "HKLM, SOFTWARE\\Sample" in said


def test_a_driver_that_runs_from_the_store_is_not_copied_out_of_it(gcp: Any) -> None:
    install(gcp, GCP)
    assert not gcp.windows.exists("Windows/System32/drivers/netkvm.sys")
    image = hivexget(gcp.hive("SYSTEM"), "ControlSet001\\Services\\netkvm", "ImagePath")
    store = store_of(gcp, "netkvm")
    assert image == f"\\SystemRoot\\System32\\DriverStore\\FileRepository\\{store}\\netkvm.sys"
    assert gcp.judge(options=GCP)["network_driver"].passed


def test_a_library_is_copied_under_the_name_that_the_inf_gives_it(gcp: Any) -> None:
    install(gcp, GCP)
    assert gcp.windows.exists("Windows/System32/gvniclib.dll")
    assert gcp.windows.exists(f"{STORE}/{store_of(gcp, 'gvnic')}/x64/lib.dll")


def test_the_map_of_given_numbers_is_kept(guest: Any) -> None:
    merge_text(guest.hive("SYSTEM"), '[\\DriverDatabase]\n"OemInfMap"=hex:ff,f0\n')
    install(guest)
    assert guest.windows.exists("Windows/INF/oem12.inf")
    with Hive(guest.hive("SYSTEM")) as system:
        assert system.value("DriverDatabase", "OemInfMap") == Value(3, bytes.fromhex("fff8"))


def test_a_disks_driver_that_only_the_later_database_knows_is_put_into_systems(gcp: Any) -> None:
    install(gcp, GCP)
    store = store_of(gcp, "vioscsi")
    exported = subprocess.run(
        ["hivexregedit", "--export", gcp.hive("SYSTEM"), "\\DriverDatabase"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    merge_text(gcp.hive("DRIVERS"), exported)
    for device in ("1004&SUBSYS_00081AF4&REV_00", "1004", "1048&SUBSYS_11001AF4&REV_01", "1048"):
        place = f"DriverDatabase\\DeviceIds\\PCI\\VEN_1AF4&DEV_{device}"
        merge_text(gcp.hive("SYSTEM"), f"[-\\{place}]\n")
    merge_text(gcp.hive("SYSTEM"), "[-\\DriverDatabase\\DriverInfFiles\\OEM.inf]\n")
    found = gcp.judge(options=GCP)["driver_database"]
    assert "no driver database entry binds PCI\\VEN_1AF4&DEV_1004" in found.evidence
    assert "vioscsi 100.95.104.26200 becomes oem" in reason(gcp, GCP)
    install(gcp, GCP)
    assert f"({store}), service vioscsi" in gcp.judge(options=GCP)["driver_database"].evidence
    assert "vioscsi 100.95.104.26200 is there as oem" in reason(gcp, GCP)


def test_names_that_are_none_of_windows_take_no_number(guest: Any) -> None:
    names = ("oem\u00b2.inf", "oem\u0663.inf", f"oem{'9' * 200}.inf", "oem.inf")
    with ExitStack() as stack:
        hive = Hive(guest.hive("DRIVERS"), writable=True)
        with hive:
            for name in names:
                hive.ensure(f"DriverDatabase\\DriverInfFiles\\{name}")
            hive.commit()
        facts = guest.facts(guest.registry(stack))
        packages, _ = find_packages(guest.payload, (), "aws")
        facts.packages = tuple(packages)
        (choice,) = install_drivers.choices_of(facts)
    assert choice.layout is not None
    assert choice.layout.oem_inf.removeprefix("oem").removesuffix(".inf").isascii()


def test_a_package_of_a_thousand_ids_looks_through_the_databases_once(
    guest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = guest.payload / "display"
    write_package("nvme", package)
    inf = package / "nvme.inf"
    first, line, last = inf.read_bytes().partition(_line_of(inf, b"PCI\\VEN_"))
    lines = [line.replace(b"PCI\\VEN_", b"PCI\\VEN_%04X&DEV_1&X_" % n) for n in range(1000)]
    inf.write_bytes(first + b"".join(lines) + last)
    asked = []
    looked_up = Registry.key

    def key(registry: Registry, hive: str, path: str) -> Any:
        asked.append(path)
        return looked_up(registry, hive, path)

    monkeypatch.setattr(Registry, "key", key)
    assert "nvme 1.5.2.0 waits for first boot: no device" in reason(guest)
    assert asked.count("DriverDatabase\\DeviceIds\\PCI") < 20


def _line_of(path: Path, part: bytes) -> bytes:
    return next(line for line in path.read_bytes().splitlines(keepends=True) if part in line)


@pytest.mark.parametrize(
    ("taken", "maps", "number"),
    [
        ([], [], 0),
        (["oem0.inf", "oem2.inf"], [], 1),
        ([], [b"\xff\xf0"], 12),
        (["oem12.inf"], [b"\xff\xf0"], 13),
        ([], [b"\x80", b"\x40"], 2),
        ([], [b"\xff"], 8),
    ],
)
def test_the_next_number_is_the_first_that_nobody_has(
    taken: list[str], maps: list[bytes], number: int
) -> None:
    assert next_oem_number(taken, maps) == number
    assert all(next_oem_number(taken, [marked(data, number)]) != number for data in maps)


def test_a_tag_is_kept_or_is_the_next_of_its_group(guest: Any) -> None:
    text = '[\\ControlSet001\\Services\\one]\n"Group"="SCSI miniport"\n"Tag"=dword:00000041\n'
    merge_text(guest.hive("SYSTEM"), text)
    service = InfService("two", "two.sys", group="SCSI Miniport", start=0)
    with ExitStack() as stack:
        registry = guest.registry(stack, writable=True)
        context = Context(
            EngineOptions(), TARGETS["gcp"], Inspection(), registry, PendingFiles(guest.windows)
        )
        assert install_drivers._tag(context, "ControlSet001", service) == 0x42
        key = registry.hives["SYSTEM"].ensure("ControlSet001\\Services\\two")
        key.set("Tag", Value.dword(7))
        assert install_drivers._tag(context, "ControlSet001", service) == 7


def test_after_the_boot_the_packages_are_judged_again(gcp: Any) -> None:
    gcp.compose(GCP)
    assert gcp.judge(Action.VERIFY, GCP)["driver_packages"].passed


@pytest.mark.skipif(
    not TESTDATA.is_dir(), reason="IMAGEPORT_TESTDATA names no folder with real hives"
)
def test_a_real_machine_gets_a_package_beside_its_own(tmp_path: Path) -> None:
    root = tmp_path / "windows"
    system = root / hive_path("SYSTEM")
    system.parent.mkdir(parents=True)
    (root / "Windows/INF").mkdir()
    software = tmp_path / "SOFTWARE"
    software.write_bytes(empty_hive("SOFTWARE"))
    data = bytearray(lzma.decompress((TESTDATA / "SYSTEM_WIN_10_1709.xz").read_bytes()))
    struct.pack_into("<II", data, 4, 1, 1)
    struct.pack_into("<I", data, 508, base_block_checksum(bytes(data[:512])))
    system.write_bytes(data)
    write_package("vioscsi", tmp_path / "payload")
    packages, _ = find_packages(tmp_path / "payload", (), "gcp")
    with Hive(system, writable=True) as hive, Hive(software, writable=True) as other:
        files = PendingFiles(LocalFiles(root))
        inspection = Inspection(build="10.0.16299.15", product_name="Windows 10 Pro")
        registry = Registry({"SYSTEM": hive, "SOFTWARE": other})
        context = Context(
            GCP, TARGETS["gcp"], inspection, registry, files, None, None, tuple(packages)
        )
        InstallDrivers().run(context)
        hive.commit()
    place = "DriverDatabase\\DeviceIds\\PCI\\VEN_1AF4&DEV_1004"
    assert hivexget(system, place, "oem12.inf") != "(missing)"
    with Hive(system) as hive:
        assert hive.value("DriverDatabase", "OemInfMap") == Value(3, bytes.fromhex("fff8"))
        real = hive.key("DriverDatabase\\DriverPackages\\vmci.inf_amd64_5e38a278d114b813")
        own = hive.key(
            f"DriverDatabase\\DriverPackages\\{packages[0].name}.inf_amd64_"
            + (packages[0].digest[:16])
        )
        assert real is not None
        assert own is not None
        told = {"ImportDate", "SignerName"}  # the time, and the signature that the sample lacks
        assert set(real.values()) - told <= set(own.values())
        kinds = {name: value.kind for name, value in real.values().items()}
        assert all(
            value.kind == kinds.get(name, value.kind) for name, value in own.values().items()
        )


@pytest.mark.parametrize(
    ("known", "wanted", "found"),
    [
        ("VEN_1&DEV_2", ("PCI\\ven_1&dev_2",), True),
        ("ven_1&dev_2&SUBSYS_3", ("PCI\\VEN_1&DEV_2",), True),
        ("VEN_1&DEV_2", ("PCI\\VEN_9&DEV_9", "PCI\\VEN_1&DEV_2&REV_01"), True),
        ("VEN_1&DEV_22", ("PCI\\VEN_1&DEV_2",), False),
        ("VEN_1&DEV_2", ("USB\\VEN_1&DEV_2", "PCI\\VEN_1&DEV_21"), False),
    ],
)
def test_a_driver_is_found_by_wider_and_narrower_ids(
    guest: Any, known: str, wanted: tuple[str, ...], *, found: bool
) -> None:
    with ExitStack() as stack:
        registry = guest.registry(stack, writable=True)
        key = registry.hives["DRIVERS"].ensure(f"DriverDatabase\\DeviceIds\\PCI\\{known}")
        key.set("oem99.inf", Value(3, b"\x01\xff\0\0"))
        assert (("DRIVERS", "oem99.inf") in infs_for(registry, *wanted)) is found
        assert infs_for(registry) == []
