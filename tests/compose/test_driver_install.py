"""Driver packages put in offline: what is written, and what the verdict misses of it."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from typing import Any

import pytest

from imageport.compose.contract import EngineOptions
from imageport.compose.hives.hive import Hive
from imageport.compose.steps.order import option_refusals
from imageport.compose.volumes.descriptors import Access
from imageport.sandbox.sample.driver_package import write_cloud_packages
from imageport.sandbox.sample.hives import merge_text
from tests.compose.driver_guests import (
    CATALOGUES,
    GCP,
    GOLDEN,
    SETS,
    STORE,
    hivexget,
    install,
    reason,
    store_of,
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (EngineOptions(drivers=("ena",)), ""),
        (EngineOptions(required_nic_ids=("PCI\\VEN_1D0F&DEV_EC20",)), ""),
        (EngineOptions(cloud="gcp"), ""),
    ],
)
def test_options_of_the_step_are_accepted(options: EngineOptions, message: str) -> None:
    assert [found.reason for found in option_refusals(options)] == ([message] if message else [])


def test_the_disks_driver_is_a_whole_package_and_starts_with_the_kernel(gcp: Any) -> None:
    changes = install(gcp, GCP)
    folder = store_of(gcp, "vioscsi")
    assert gcp.windows.names(f"{STORE}/{folder}") == ["vioscsi.cat", "vioscsi.inf", "vioscsi.sys"]
    inf = next(c.path.rpartition("\\")[2] for c in changes if "\\INF\\oem" in c.path)
    assert gcp.windows.exists(f"{CATALOGUES}/{inf.replace('.inf', '.cat')}")
    assert gcp.windows.exists("Windows/System32/drivers/vioscsi.sys")
    system = gcp.hive("SYSTEM")
    for control_set in SETS:
        place = f"{control_set}\\Services\\vioscsi"
        assert hivexget(system, place, "Start") == "0"
        assert hivexget(system, place, "ImagePath") == "System32\\drivers\\vioscsi.sys"
        assert hivexget(system, place, "Group") == "SCSI miniport"
        assert hivexget(system, f"{place}\\Parameters", "BusType") == "10"
        assert hivexget(system, f"{place}\\Parameters\\PnpInterface", "5") == "1"
    assert all(c.after for c in changes if c.kind == "descriptor")
    added = {c.path for c in changes if c.kind in {"file", "folder"} and not c.before}
    assert added == {c.path for c in changes if c.kind == "descriptor"}


def test_a_guest_composed_for_google_passes_what_the_verdict_says_of_drivers(gcp: Any) -> None:
    gcp.compose(GCP)
    verdict = gcp.judge(options=GCP)
    for item in ("boot_drivers", "boot_driver_files", "driver_database", "driver_packages"):
        assert verdict[item].passed, verdict[item].evidence
    assert "PCI\\VEN_1AF4&DEV_1004 is served by oem" in verdict["driver_database"].evidence


def test_network_drivers_go_into_the_hive_of_what_no_boot_needs(gcp: Any) -> None:
    install(gcp, GCP)
    for device in ("VEN_1AF4&DEV_1041", "VEN_1AE0&DEV_0042"):
        place = f"DriverDatabase\\DeviceIds\\PCI\\{device}"
        assert hivexget(gcp.hive("SYSTEM"), place, "oem7.inf") == "(missing)"
        with Hive(gcp.hive("DRIVERS")) as drivers:
            key = drivers.key(place)
            assert key is not None
            assert len(key.values()) == 1


def test_the_database_says_of_a_package_what_the_golden_list_says(gcp: Any) -> None:
    changes = install(gcp, GCP)
    for name in ("vioscsi", "netkvm", "gvnic"):
        store = store_of(gcp, name)
        oem = next(
            c.path.rpartition("\\")[2]
            for c in changes
            if c.name == "Active" and c.after == f"REG_SZ {store}"
        )
        lines = [
            f"{c.path} {c.name or '@'} = {c.after}"
            for c in changes
            if c.kind == "registry"
            and (store in f"{c.path}{c.after}" or oem in f"{c.name}{c.path}")
        ]
        text = "\n".join(lines).replace(store, f"{name}.inf_amd64_STORE").replace(oem, "oemN.inf")
        golden = GOLDEN / f"{name}.txt"
        assert text + "\n" == golden.read_text(encoding="utf-8"), name


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_installing_twice_is_installing_once(guest: Any, cloud: str) -> None:
    write_cloud_packages(cloud, guest.payload / cloud)
    shutil.rmtree(guest.payload / "ena")
    options = EngineOptions(cloud=cloud)
    assert install(guest, options)
    before = {p: p.read_bytes() for p in guest.windows.root.rglob("*") if p.is_file()}
    assert install(guest, options) == []
    for path, content in before.items():
        if "config" not in path.parts:
            assert path.read_bytes() == content, path
    assert "is there as oem" in reason(guest, options)


def _named(text: str, guest: Any) -> str:
    """Put in the names that the package of the disk's driver has in this guest."""
    store = store_of(guest, "vioscsi")
    place = f"DriverDatabase\\DriverPackages\\{store}"
    oem = hivexget(guest.hive("SYSTEM"), place, "@").removesuffix(".inf")
    return text.replace("STORE", store).replace("OEM", oem)


def _lose(path: str) -> Callable[[Any], None]:
    def lose(guest: Any) -> None:
        found = guest.windows._find(_named(path, guest))
        assert found is not None
        shutil.rmtree(found) if found.is_dir() else found.unlink()

    return lose


def _merge(hive: str, text: str) -> Callable[[Any], None]:
    def change(guest: Any) -> None:
        merge_text(guest.hive(hive), _named(text, guest))

    return change


PIECES = [
    (_lose(f"{STORE}/STORE"), "vioscsi.sys"),
    (_lose(f"{STORE}/STORE/vioscsi.cat"), "vioscsi.cat"),
    (_lose(f"{CATALOGUES}/OEM.cat"), "CatRoot"),
    (_lose("Windows/INF/OEM.inf"), "is not in \\Windows\\INF"),
    (_lose("Windows/System32/drivers/vioscsi.sys"), "drivers\\vioscsi.sys"),
    (
        _merge("SYSTEM", "[-\\DriverDatabase\\DeviceIds\\PCI\\VEN_1AF4&DEV_1048]\n"),
        "DeviceIds\\PCI\\VEN_1AF4&DEV_1048",
    ),
    (_merge("SYSTEM", "[-\\DriverDatabase\\DriverPackages\\STORE]\n"), "DriverPackages"),
    (
        _merge("SYSTEM", "[-\\DriverDatabase\\DriverPackages\\STORE\\Configurations]\n"),
        "Configurations\\scsi_inst",
    ),
    (_merge("SYSTEM", "[-\\DriverDatabase\\DriverInfFiles\\OEM.inf]\n"), "driver database"),
    (_merge("SYSTEM", "[-\\ControlSet002\\Services\\vioscsi]\n"), "vioscsi in ControlSet002"),
    (
        _merge("SYSTEM", '[\\ControlSet001\\Services\\vioscsi]\n"Start"=dword:00000004\n'),
        "vioscsi in ControlSet001: it is disabled",
    ),
]


@pytest.mark.parametrize(("fault", "evidence"), PIECES)
def test_the_verdict_misses_each_piece_and_installing_again_brings_it_back(
    gcp: Any, fault: Callable[[Any], None], evidence: str
) -> None:
    gcp.compose(GCP)
    assert gcp.judge(options=GCP)["driver_packages"].passed
    fault(gcp)
    found = gcp.judge(options=GCP)["driver_packages"]
    assert not found.passed
    assert evidence in found.evidence
    install(gcp, GCP)
    again = gcp.judge(options=GCP)["driver_packages"]
    assert again.passed, again.evidence


def test_the_verdict_tells_of_a_driver_that_users_may_change(gcp: Any) -> None:
    gcp.compose(GCP)
    path = "windows/system32/drivers/vioscsi.sys"
    everybody = Access.USERS_READ.descriptor(is_folder=False).replace(
        struct.pack("<I", 0x001200A9), struct.pack("<I", 0x001F01FF)
    )
    gcp.windows.descriptors[path] = everybody
    found = gcp.judge(options=GCP)["driver_packages"]
    assert "vioscsi.sys may be changed by S-1-5-32-545" in found.evidence
