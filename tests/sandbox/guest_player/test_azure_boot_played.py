"""One boot on Azure's hardware: what keeps Windows from coming up there, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from imageport.sandbox.guest_player.boot_rules import MACHINES, load_rules
from imageport.sandbox.guest_player.play import play
from imageport.sandbox.guest_player.programs import PlayerError
from imageport.sandbox.guest_player.registry import dword, number, text
from imageport.sandbox.guest_player.vm_agent import PackageError, package_version
from imageport.sandbox.guest_player.volume import WindowsVolume
from imageport.sandbox.sample.build import build_raw_sample
from imageport.sandbox.sample.disk_image import clone_sparse
from imageport.sandbox.sample.driver_package import write_ena_package
from imageport.sandbox.sample.recipe import Variant
from imageport.sandbox.sample.vm_agent_package import FILE_NAME, VERSION, write_vm_agent_package
from tests.sandbox.guest_player.ready_windows import (
    FOLDER,
    PLAN,
    SETS,
    Edit,
    delete_key,
    edit_windows,
    make_ready,
    remove_file,
    set_values,
    system_hive,
    windows_of,
    write_plan,
)

SERVICES = "ControlSet001\\Services"
NETVSC = "VMBUS\\{f8615163-df3e-46c5-913f-f2d2f965ed0e}"
NO_BOOT_DEVICE = "0x0000007B INACCESSIBLE_BOOT_DEVICE"
AZURE_PLAN = (
    *PLAN[:4],
    f"02 optional install-vm-agent {FILE_NAME}",
    *PLAN[5:7],
    "05 required remove-override stornvme",
    "06 required remove-service ImageportFirstBoot",
)


@pytest.fixture(scope="module")
def ready_for_azure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("azure")
    package = write_ena_package(work / "ena").parent
    agent = write_vm_agent_package(work / "agent").read_bytes()

    def edit(volume: WindowsVolume) -> None:
        make_ready(volume, package)
        system = system_hive(volume)
        for control_set in SETS:
            system.set(f"{control_set}\\Services\\vpci", {"Start": number(0)})
        system.flush()
        volume.write(f"{FOLDER}\\agent\\{FILE_NAME}", agent)
        write_plan(volume, AZURE_PLAN)

    return edit_windows(build_raw_sample(work / "ready.raw"), work, edit)


@pytest.fixture
def azure_disk(ready_for_azure: Path, tmp_path: Path) -> Path:
    return clone_sparse(ready_for_azure, tmp_path / "disk.raw")


@pytest.fixture
def edited_for_azure(azure_disk: Path, tmp_path: Path) -> Callable[[Edit], Path]:
    return lambda edit: edit_windows(azure_disk, tmp_path, edit)


BROKEN: dict[str, tuple[str, Edit, str]] = {
    "VMBus overridden": (
        "azure",
        set_values(f"{SERVICES}\\vmbus\\StartOverride", **{"0": number(3)}),
        "vmbus: StartOverride\\0 is 3",
    ),
    "storvsc on demand": (
        "azure",
        set_values(f"{SERVICES}\\storvsc", Start=number(3)),
        "storvsc: Start is 3, needed 0",
    ),
    "storvsc gone": ("azure", delete_key(f"{SERVICES}\\storvsc"), "storvsc: no such service"),
    "storvsc's file gone": (
        "azure",
        remove_file("Windows\\System32\\drivers\\storvsc.sys"),
        "storvsc: no file",
    ),
    "storvsc not in database": (
        "azure",
        delete_key("DriverDatabase\\DeviceIds\\VMBUS\\{ba6163d9-04a1-4d29-b605-72e2ffb1dc7f}"),
        "no driver in the database for VMBUS\\{ba6163d9",
    ),
    "VMBus not in database": (
        "azure",
        delete_key("DriverDatabase\\DeviceIds\\ACPI\\VMBus"),
        "no driver in the database for ACPI\\VMBus",
    ),
    "PCI on VMBus on demand": (
        "azure-nvme",
        set_values(f"{SERVICES}\\vpci", Start=number(3)),
        "vpci: Start is 3, needed 0",
    ),
    "NVMe overridden": (
        "azure-nvme",
        set_values(f"{SERVICES}\\stornvme\\StartOverride", **{"0": number(3)}),
        "stornvme: StartOverride\\0 is 3",
    ),
}
SHORT = {"VMBus overridden", "storvsc on demand", "storvsc not in database"}
SHORT |= {"PCI on VMBus on demand"}


@pytest.mark.parametrize(
    "fault",
    [fault if fault in SHORT else pytest.param(fault, marks=pytest.mark.slow) for fault in BROKEN],
)
def test_windows_does_not_come_up(fault: str, edited_for_azure: Callable[[Edit], Path]):
    machine, edit, evidence = BROKEN[fault]
    boot = play(edited_for_azure(edit), "", platform=machine)
    assert boot.outcome == "bugcheck"
    assert NO_BOOT_DEVICE in boot.console_text.splitlines()[0]
    assert evidence in boot.console_text


@pytest.mark.parametrize(
    ("machine", "edit"),
    [
        ("azure", set_values(f"{SERVICES}\\stornvme\\StartOverride", **{"0": number(3)})),
        pytest.param(
            "azure", set_values(f"{SERVICES}\\vpci", Start=number(3)), marks=pytest.mark.slow
        ),
        pytest.param(
            "azure-nvme",
            set_values(f"{SERVICES}\\storvsc", Start=number(3)),
            marks=pytest.mark.slow,
        ),
        pytest.param("azure-nvme", lambda _: None, marks=pytest.mark.slow),
    ],
)
def test_what_the_other_disks_need_does_not_matter(
    machine: str, edit: Edit, edited_for_azure: Callable[[Edit], Path]
):
    boot = play(edited_for_azure(edit), "", platform=machine)
    assert boot.outcome == "shutdown", boot.console_text


def test_a_ready_windows_installs_the_agent_and_shuts_down(azure_disk: Path, tmp_path: Path):
    boot = play(azure_disk, "firmware was here\n", platform="azure")
    assert boot.outcome == "shutdown", boot.console_text
    assert "Microsoft Hyper-V Network Adapter: netvsc (wnetvsc.inf)" in boot.console_text
    assert "imageport-firstboot: done" in boot.console_text
    assert "no driver" not in boot.console_text
    assert "offline" not in boot.console_text
    with windows_of(azure_disk, tmp_path) as (volume, _):
        system = system_hive(volume)
        bound = system.subtree(f"ControlSet001\\Enum\\{NETVSC}")
        assert "netvsc" in {text(key, "service") for key in bound.values()}
        for service in ("RdAgent", "WindowsAzureGuestAgent"):
            key = system.key(f"{SERVICES}\\{service}")
            assert dword(key, "start") == 2
            assert VERSION.encode() in (volume.read(text(key, "imagepath")) or b"")
        assert volume.exists("WindowsAzure\\Logs")
        assert volume.exists(f"{FOLDER}\\agent.log")
        assert b"step.02=ok" in (volume.read(f"{FOLDER}\\result.txt") or b"")
        # What has no device here is passed over at the next start, unless first boot mends that.
        overridden = {
            name: system.key(f"{SERVICES}\\{name}\\StartOverride")
            for name in ("vmbus", "storvsc", "vpci", "stornvme")
        }
        assert dword(overridden.pop("vpci"), "0") == 3
        assert set(overridden.values()) == {None}


def test_an_installer_that_is_none_fails_its_optional_step_only(
    edited_for_azure: Callable[[Edit], Path], tmp_path: Path
):
    def other(volume: WindowsVolume) -> None:
        volume.write(f"{FOLDER}\\agent\\{FILE_NAME}", b"MZ something else")

    disk = edited_for_azure(other)
    boot = play(disk, "", platform="azure")
    assert (boot.outcome, "imageport-firstboot: done" in boot.console_text) == ("shutdown", True)
    with windows_of(disk, tmp_path) as (volume, _):
        assert b"step.02=failed 1620" in (volume.read(f"{FOLDER}\\result.txt") or b"")
        assert system_hive(volume).key(f"{SERVICES}\\RdAgent") is None
        assert not volume.exists("WindowsAzure")


def test_a_machine_without_its_network_driver_says_so(
    edited_for_azure: Callable[[Edit], Path],
):
    def strip(volume: WindowsVolume) -> None:
        delete_key(f"DriverDatabase\\DeviceIds\\{NETVSC}", "DRIVERS")(volume)
        set_values(f"{SERVICES}\\partmgr\\Parameters", SanPolicy=number(2))(volume)

    boot = play(edited_for_azure(strip), "", platform="azure")
    assert "no driver for Microsoft Hyper-V Network Adapter" in boot.console_text
    assert "any other disk stays offline, SanPolicy is 2" in boot.console_text


@pytest.mark.parametrize(
    ("variant", "machine"),
    [
        (Variant.SMALL, "azure"),
        pytest.param(Variant.SMALL, "azure-nvme", marks=pytest.mark.slow),
        pytest.param(Variant.WITHOUT_STORVSC, "azure", marks=pytest.mark.slow),
    ],
)
def test_an_image_as_it_comes_from_vmware_does_not_boot_here(
    variant: Variant, machine: str, tmp_path: Path
):
    boot = play(build_raw_sample(tmp_path / "site.raw", variant), "", platform=machine)
    assert (boot.outcome, NO_BOOT_DEVICE in boot.console_text) == ("bugcheck", True)


def test_hardware_that_is_not_known_is_not_played(tmp_path: Path):
    with pytest.raises(PlayerError, match="'oci': its hardware is not known"):
        play(tmp_path / "none", "", platform="oci")


def test_every_machine_of_the_table_is_known_and_has_a_disk_and_a_network_adapter():
    table = Path(play.__code__.co_filename).with_name("rules.txt").read_text(encoding="utf-8")
    lines = [line for line in table.splitlines() if line.strip() and not line.startswith("#")]
    named = {word for line in lines for word in line.split("|")[1].split()}
    assert named == {"all", *MACHINES}
    for machine in MACHINES:
        assert load_rules("device", machine)
        drivers = {rule.subject for rule in load_rules("boot-driver", machine)}
        assert drivers & {"stornvme", "storvsc", "vioscsi"}


def test_a_package_that_is_broken_inside_is_refused_and_not_a_crash(tmp_path: Path):
    data = write_vm_agent_package(tmp_path).read_bytes()
    assert package_version(data) == VERSION
    other_class = data.replace(bytes.fromhex("84100c00"), bytes(4))
    looped = bytearray(data)
    looped[512 + 4 : 512 + 8] = (1).to_bytes(4, "little")  # the directory's chain to itself
    for broken in (data[:600], data[:76], other_class, bytes(looped), b"MZ", b""):
        with pytest.raises(PackageError) as caught:
            package_version(broken)
        assert caught.value.code == "1620"
