"""A guest composed by the product, judged by the guest player, which shares no code with it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from imageport.compose.contract import EngineOptions
from imageport.sandbox.guest_player.boot_rules import CONFIG, BootJudge, load_rules
from imageport.sandbox.guest_player.disk import Table
from imageport.sandbox.guest_player.driver_install import DriverSetup
from imageport.sandbox.guest_player.plug_and_play import PlugAndPlay
from imageport.sandbox.guest_player.registry import Hive, text
from imageport.sandbox.guest_player.volume import WindowsVolume
from imageport.sandbox.sample.driver_package import write_cloud_packages, write_package
from imageport.sandbox.sample.hives import merge_text

CURRENT = "ControlSet001"
NO_BOOT_DEVICE = "0x0000007B INACCESSIBLE_BOOT_DEVICE"


def stops(guest: Any, machine: str) -> list[str]:
    """Return why the machine would not come up, with the evidence."""
    table = Table(UUID(guest.table.disk_guid), ())
    windows = UUID(guest.table.partitions[-1].guid)
    judge = BootJudge(WindowsVolume(guest.windows.root), table, windows, machine)
    found = judge.stops(guest.esp.root / "EFI/Microsoft/Boot/BCD")
    return [f"{stop.screen}: {stop.evidence}" for stop in found]


def hives(guest: Any) -> tuple[Hive, Hive]:
    folder = guest.windows.root / CONFIG.replace("\\", "/")
    return Hive(folder / "SYSTEM"), Hive(folder / "DRIVERS")


def compose(guest: Any, cloud: str) -> None:
    shutil.rmtree(guest.payload / "ena")
    write_cloud_packages(cloud, guest.payload / cloud)
    guest.compose(EngineOptions(cloud=cloud))


@pytest.mark.parametrize("machine", ["aws", "gcp", "gcp-nvme"])
def test_a_composed_guest_comes_up_and_its_adapter_is_driven_before_pnputil_runs(
    guest: Any, machine: str
) -> None:
    compose(guest, machine.partition("-")[0])
    assert stops(guest, machine) == []
    system, drivers = hives(guest)
    volume = WindowsVolume(guest.windows.root)
    (rule,) = load_rules("device", machine)
    bound = PlugAndPlay(volume, system, drivers, CURRENT).bind(rule.subject)
    assert bound.split()[0] == {"aws": "ena", "gcp": "netkvm", "gcp-nvme": "gvnic"}[machine]


def test_without_the_packages_googles_machine_stops_at_its_disk(guest: Any) -> None:
    guest.compose(EngineOptions(cloud="gcp"))
    found = stops(guest, "gcp")
    assert f"*** STOP: {NO_BOOT_DEVICE}: vioscsi: no such service" in found
    assert any("no driver in the database for PCI\\VEN_1AF4&DEV_1004" in line for line in found)
    assert stops(guest, "gcp-nvme") == []


@pytest.mark.parametrize(
    ("text_", "evidence"),
    [
        (
            '[\\ControlSet001\\Services\\vioscsi\\StartOverride]\n"0"=dword:00000003\n',
            "vioscsi: StartOverride\\0 is 3",
        ),
        (
            "[-\\DriverDatabase\\DriverPackages\\{store}\\Configurations]\n",
            "no driver in the database",
        ),
    ],
)
def test_the_player_finds_what_is_broken_afterwards(guest: Any, text_: str, evidence: str) -> None:
    compose(guest, "gcp")
    store = guest.windows.root / "Windows/System32/DriverStore/FileRepository"
    (name,) = (path.name for path in store.iterdir() if path.name.startswith("vioscsi.inf_"))
    merge_text(guest.hive("SYSTEM"), text_.format(store=name))
    assert any(evidence in line for line in stops(guest, "gcp"))


@pytest.mark.parametrize("name", ["netkvm", "gvnic", "vioscsi"])
def test_pnputil_finds_the_package_there_and_changes_nothing(guest: Any, name: str) -> None:
    compose(guest, "gcp")
    root: Path = guest.windows.root
    system, drivers = hives(guest)
    volume = WindowsVolume(root)
    device = {
        "netkvm": "PCI\\VEN_1AF4&DEV_1000&SUBSYS_00011AF4&REV_00",
        "gvnic": "PCI\\VEN_1AE0&DEV_0042&SUBSYS_00581AE0&REV_00",
        "vioscsi": "",
    }[name]
    if device:
        PlugAndPlay(volume, system, drivers, CURRENT).bind(device)
        system.flush()
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    setup = DriverSetup(volume, system, drivers, CURRENT, (device,) if device else ())
    said = setup.add(f"Windows\\ImageportFirstBoot\\drivers\\{name}\\{name}.inf")
    system.flush()
    drivers.flush()
    assert said.endswith(f"(up to date on {device})" if device else "(no such device here)")
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    oem = said.split()[2]
    assert text(
        hives(guest)[0 if name == "vioscsi" else 1].key(f"DriverDatabase\\DriverInfFiles\\{oem}"),
        "active",
    ).startswith(f"{name}.inf_amd64_")


def test_an_older_driver_of_the_image_stays_bound_when_the_payload_is_older(guest: Any) -> None:
    compose(guest, "gcp")
    shutil.rmtree(guest.windows.root / "Windows/ImageportFirstBoot")
    write_package("netkvm", guest.payload / "gcp/netkvm", version="90.0.0.0")
    guest.compose(EngineOptions(cloud="gcp"))
    staged = guest.windows.names("Windows/ImageportFirstBoot/drivers")
    assert staged == ["gvnic", "vioscsi"]
    system, drivers = hives(guest)
    bound = PlugAndPlay(WindowsVolume(guest.windows.root), system, drivers, CURRENT)
    assert bound.bind("PCI\\VEN_1AF4&DEV_1000&SUBSYS_00011AF4&REV_00").startswith("netkvm (oem")
