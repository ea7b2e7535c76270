"""The plan carried out on a whole disk, and what lies there afterwards."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from imageport.sandbox.guest_player.play import play
from imageport.sandbox.guest_player.registry import Hive, dword, is_clean, text, texts
from imageport.sandbox.guest_player.volume import WindowsVolume
from tests.sandbox.guest_player.ready_windows import (
    FOLDER,
    PLAN,
    SETS,
    Edit,
    administrators_only,
    hive_of,
    set_access,
    system_hive,
    windows_of,
    write_plan,
)

ENA = "PCI\\VEN_1D0F&DEV_EC20"


def result_of(volume: WindowsVolume) -> list[str]:
    return (volume.read(f"{FOLDER}\\result.txt") or b"").decode().split("\r\n")


def drivers_hive(volume: WindowsVolume) -> Hive:
    return hive_of(volume, "DRIVERS")


def test_a_ready_windows_does_its_plan_and_shuts_down(disk: Path, tmp_path: Path):
    boot = play(disk, "firmware was here\n")
    assert boot.outcome == "shutdown", boot.console_text
    assert boot.console_text.startswith("firmware was here\n")
    assert "imageport-firstboot: done" in boot.console_text
    with windows_of(disk, tmp_path) as (volume, _):
        assert result_of(volume)[:2] == ["state=done", "attempts=1"]
        assert [line for line in result_of(volume) if line.startswith("step")] == [
            f"step.{number:02d}=ok" for number in range(1, 6)
        ]
        assert b"installed on" in (volume.read(f"{FOLDER}\\log.txt") or b"")
        assert (volume.read(f"{FOLDER}\\attempts.txt") or b"").strip() == b"1"
        system = system_hive(volume)
        for control_set in SETS:
            services = f"{control_set}\\Services"
            assert system.key(f"{services}\\ImageportFirstBoot") is None
            assert dword(system.key(f"{services}\\BrokerAgent"), "start") == 2
            switch = system.key(f"{services}\\Netlogon\\Parameters")
            assert "disablepasswordchange" not in (switch or {"disablepasswordchange": None})


def test_a_driver_package_is_in_store_database_and_service(disk: Path, tmp_path: Path):
    play(disk, "")
    with windows_of(disk, tmp_path) as (volume, image):
        (oem,) = drivers_hive(volume).key(f"DriverDatabase\\DeviceIds\\{ENA}") or {}
        assert volume.read(f"Windows\\INF\\{oem}") == volume.read(
            f"{FOLDER}\\drivers\\ena\\ena.inf"
        )
        infos = drivers_hive(volume).key(f"DriverDatabase\\DriverInfFiles\\{oem}")
        (package,) = texts(infos, "")
        assert volume.exists(f"Windows\\System32\\DriverStore\\FileRepository\\{package}\\ena.cat")
        found = drivers_hive(volume).key(f"DriverDatabase\\DriverPackages\\{package}")
        assert len((found or {})["version"][1]) == 48
        service = system_hive(volume).key("ControlSet001\\Services\\ena")
        assert dword(service, "start") == 3
        assert volume.read(text(service, "ImagePath")) == volume.read(
            "Windows\\System32\\drivers\\ena.sys"
        )
        assert volume.read("Windows\\System32\\drivers\\ena.sys")
        assert is_clean(system_hive(volume)._path.read_bytes())
    shown = subprocess.run(
        ["ntfssecaudit", image, "/Windows/System32/drivers/ena.sys"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "mode 0755" in shown  # handed down by its folder: Users read, nobody else writes


def test_only_what_changed_is_written_to_the_disk(disk: Path):
    before = disk.stat().st_blocks
    play(disk, "")
    assert (disk.stat().st_blocks - before) * 512 < 8 * 1024 * 1024


def test_an_optional_step_that_fails_is_never_fatal(edited: Callable[[Edit], Path], tmp_path: Path):
    steps = (*PLAN[:4], "02 optional add-driver gone\\gone.inf", *PLAN[5:])
    disk = edited(lambda volume: write_plan(volume, steps))
    boot = play(disk, "")
    assert (boot.outcome, "imageport-firstboot: done" in boot.console_text) == ("shutdown", True)
    with windows_of(disk, tmp_path) as (volume, _):
        assert "step.02=failed 2" in result_of(volume)
        assert result_of(volume)[1] == "attempts=1"


def test_a_required_step_that_fails_is_tried_again_and_then_reported(
    edited: Callable[[Edit], Path], tmp_path: Path
):
    steps = (*PLAN[:4], "02 required add-driver gone\\gone.inf", *PLAN[5:])
    disk = edited(lambda volume: write_plan(volume, steps))
    boot = play(disk, "")
    assert boot.outcome == "shutdown"
    assert "imageport-firstboot: failed step-02 add-driver code 2" in boot.console_text
    with windows_of(disk, tmp_path) as (volume, _):
        assert result_of(volume)[:3] == ["state=failed", "reason=step-02", "attempts=2"]
        service = system_hive(volume).key("ControlSet001\\Services\\ImageportFirstBoot")
        assert service is None  # also a failure ends the first boot


def test_a_package_without_catalogue_is_refused_as_unsigned(
    edited: Callable[[Edit], Path], tmp_path: Path
):
    def break_package(volume: WindowsVolume) -> None:
        inf = f"{FOLDER}\\drivers\\ena\\ena.inf"
        volume.write(inf, (volume.read(inf) or b"").replace(b"CatalogFile", b"; Catalog"))

    disk = edited(break_package)
    play(disk, "")
    with windows_of(disk, tmp_path) as (volume, _):
        assert "step.02=failed 0x800F022F" in result_of(volume)


def test_without_its_service_windows_stays_at_the_logon_screen(edited: Callable[[Edit], Path]):
    def no_service(volume: WindowsVolume) -> None:
        system = system_hive(volume)
        system.delete("ControlSet001\\Services\\ImageportFirstBoot")
        system.flush()

    assert play(edited(no_service), "").outcome == "hang"


def test_a_plan_that_the_script_does_not_know_never_ends(edited: Callable[[Edit], Path]):
    def other_script(volume: WindowsVolume) -> None:
        volume.write(f"{FOLDER}\\firstboot.cmd", b"@echo off\r\nexit /b 0\r\n")

    boot = play(edited(other_script), "")
    assert boot.outcome == "hang"
    assert "knows nothing of step 01" in boot.console_text


def test_a_first_boot_folder_open_to_users_is_a_violation(edited: Callable[[Edit], Path]):
    opened = administrators_only((0x1200A9, "S-1-5-32-545"))
    boot = play(edited(lambda volume: set_access(volume, FOLDER, opened)), "")
    assert boot.outcome == "bugcheck"
    assert "VIOLATION first-boot folder open to users" in boot.console_text


def test_a_hive_that_everybody_may_write_is_a_violation(edited: Callable[[Edit], Path]):
    opened = administrators_only((0x1F01FF, "S-1-1-0"))
    hive = "Windows\\System32\\config\\SYSTEM"
    boot = play(edited(lambda volume: set_access(volume, hive, opened)), "")
    assert boot.outcome == "bugcheck"
    assert "VIOLATION registry file that users may write" in boot.console_text
