"""Reasons to refuse, each with its code, and all at once; without a machine."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imageport.compose.cloud_target import TARGETS
from imageport.compose.contract import (
    Action,
    EngineDisk,
    EngineJob,
    EngineOptions,
    Inspection,
    Refusal,
)
from imageport.compose.drivers.driver_packages import find_packages
from imageport.compose.drivers.installed_drivers import STORE, infs_for
from imageport.compose.hives.registry import copy_hives
from imageport.compose.hives.registry_value import Value
from imageport.compose.inspection import inspect
from imageport.compose.refusals import (
    MIN_FREE_BYTES,
    disk_refusals,
    driver_refusals,
    esp_refusals,
    guest_refusals,
    hive_refusals,
    no_windows_reason,
    volume_refusals,
    with_fast_startup_told,
)
from imageport.compose.volumes.partition_table import PartitionTable
from imageport.sandbox.sample.hives import merge_text

GUID = "6d0f7a52-3c1e-4b8f-9a47-5e2d10c4b7a1"
LDM = "5808c8aa-7e8f-42e0-85d2-e1e90434cfb3"


def a_job(action: Action = Action.COMPOSE, guid: str = GUID, **options: Any) -> EngineJob:
    return EngineJob(action, EngineDisk("", guid), EngineOptions(**options))


def codes(refusals: list[Any]) -> list[str]:
    assert all(item.hint and item.reason for item in refusals)
    return [item.code for item in refusals]


def test_the_right_disk_is_not_refused(guest: Any) -> None:
    assert disk_refusals(guest.table, a_job()) == []
    assert disk_refusals(guest.table, a_job(guid=f"{{{GUID.upper()}}}")) == []


@pytest.mark.parametrize("guid", ["", "11111111-2222-4333-8444-555555555555"])
def test_another_disk_or_an_unnamed_one_is_never_written(guest: Any, guid: str) -> None:
    assert codes(disk_refusals(guest.table, a_job(guid=guid))) == ["wrong_disk"]


def test_looking_needs_no_name(guest: Any) -> None:
    assert disk_refusals(guest.table, a_job(Action.INSPECT, "")) == []
    assert disk_refusals(guest.table, a_job(Action.PLAN, "")) == []


def test_a_dynamic_disk_is_refused(guest: Any) -> None:
    first, *rest = guest.table.partitions
    table = replace(guest.table, partitions=(replace(first, type_id=LDM), *rest))
    assert codes(disk_refusals(table, a_job())) == ["dynamic_disk"]


def test_an_mbr_disk_cannot_stream_in_a_cloud_but_may_be_a_catalog() -> None:
    table = PartitionTable("mbr", "", ())
    assert codes(disk_refusals(table, a_job(guid=""))) == ["needs_uefi"]
    assert disk_refusals(table, a_job(guid="", provisioning="mcs")) == []


def test_a_sound_volume_is_not_refused(guest: Any) -> None:
    assert volume_refusals(guest.windows) == []


@pytest.mark.parametrize(
    ("start", "found"),
    [
        (b"HIBR", ["hibernated"]),
        (b"hibr", ["hibernated"]),
        (b"RSTR", ["hibernated"]),
        (b"wake", []),
        (b"\0\0\0\0", []),
        (b"", []),
    ],
)
def test_a_hibernation_file_counts_by_its_first_bytes(
    guest: Any, start: bytes, found: list[str]
) -> None:
    (guest.windows.root / "hiberfil.sys").write_bytes(start + bytes(4096))
    assert codes(volume_refusals(guest.windows)) == found


def test_too_little_space_is_refused_with_both_numbers(guest: Any) -> None:
    guest.windows.free = 1000
    refusals = volume_refusals(guest.windows)
    assert codes(refusals) == ["low_free_space"]
    assert "1000 bytes" in refusals[0].reason
    assert str(MIN_FREE_BYTES) in refusals[0].reason


def _poke(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def _hive_refusals(guest: Any) -> list[Refusal]:
    guest.scratch.joinpath("copies").mkdir()
    return hive_refusals(copy_hives(guest.windows, guest.scratch / "copies", guest.esp))


def test_everything_wrong_is_named_at_once(guest: Any) -> None:
    (guest.windows.root / "hiberfil.sys").write_bytes(b"HIBR" + bytes(100))
    guest.windows.free = 0
    assert codes(volume_refusals(guest.windows)) == ["hibernated", "low_free_space"]
    _poke(guest.hive("SYSTEM"), 4, b"\x63\0\0\0")
    _poke(guest.hive("SOFTWARE"), 200, b"\xff")
    assert len(_hive_refusals(guest)) >= 2


@pytest.mark.parametrize(
    ("switch", "told"),
    [(1, "Fast Startup is on (HiberbootEnabled = 1)"), (0, "Fast Startup is off")],
)
def test_fast_startup_is_told_apart_from_hibernation(guest: Any, switch: int, told: str) -> None:
    (guest.windows.root / "hiberfil.sys").write_bytes(b"HIBR" + bytes(100))
    found = volume_refusals(guest.windows)
    with ExitStack() as stack:
        registry = guest.registry(stack, writable=True)
        path = f"{registry.current_control_set}\\Control\\Session Manager\\Power"
        power = registry.hives["SYSTEM"].ensure(path)
        power.set("HiberbootEnabled", Value.dword(switch))
        (one,) = with_fast_startup_told(found, registry)
    assert one.code == "hibernated"
    assert told in one.reason
    assert "shutdown /s /t 0" in one.hint


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        (
            {"Partition 1": "vfat", "Partition 2": "ext4"},
            ": Partition 1 holds vfat, Partition 2 holds ext4; this looks like Linux.",
        ),
        ({"The disk": "LVM2_member"}, ": The disk holds LVM2_member; this looks like Linux."),
        ({"Partition 1": "ntfs", "Partition 2": ""}, ": Partition 1 holds ntfs."),
        ({"The disk": ""}, "."),
    ],
)
def test_a_disk_without_windows_is_told_by_what_it_holds(
    contents: dict[str, str], told: str
) -> None:
    assert no_windows_reason(contents) == "No partition holds a Windows system" + told


def test_a_gpt_disk_needs_an_efi_partition(guest: Any) -> None:
    assert esp_refusals(guest.esp, guest.table) == []
    assert codes(esp_refusals(None, guest.table)) == ["esp_loader_missing"]
    assert esp_refusals(None, replace(guest.table, scheme="mbr")) == []


def test_only_64_bit_windows_10_and_later_is_prepared() -> None:
    good = Inspection(build="10.0.20348.1", architecture="x86_64", pvs_target_version="1")
    assert guest_refusals(good, a_job()) == []
    old = replace(good, build="7601", architecture="i386")
    assert codes(guest_refusals(old, a_job())) == ["unknown_guest", "unknown_guest"]


def test_a_pvs_image_needs_the_target_device_software() -> None:
    bare = Inspection(build="10.0.20348.1", architecture="x86_64")
    assert codes(guest_refusals(bare, a_job())) == ["pvs_target_missing"]
    assert guest_refusals(bare, a_job(provisioning="mcs")) == []


def test_the_targets_network_adapter_must_get_a_driver(guest: Any) -> None:
    packages, _ = find_packages(guest.payload, (), "aws")
    target = TARGETS["aws"]
    with ExitStack() as stack:
        registry = guest.registry(stack)
        missing = driver_refusals(registry, guest.windows, [], a_job(), target)
        assert codes(missing) == ["driver_missing"]
        assert "PCI\\VEN_1D0F&DEV_EC20" in missing[0].reason
        assert driver_refusals(registry, guest.windows, packages, a_job(), target) == []
        installed = a_job(required_nic_ids=("PCI\\VEN_15AD&DEV_07B0",))
        assert driver_refusals(registry, guest.windows, [], installed, target) == []


def test_a_driver_that_is_gone_from_the_store_is_none(guest: Any) -> None:
    wanted = a_job(required_nic_ids=("PCI\\VEN_15AD&DEV_07B0",))
    store = guest.windows.root / STORE
    (package,) = [path for path in store.iterdir() if path.name.startswith("vmxnet3")]
    package.rename(store / "elsewhere")
    with ExitStack() as stack:
        registry = guest.registry(stack)
        assert infs_for(registry, "PCI\\VEN_15AD&DEV_07B0"), "the database still names it"
        found = driver_refusals(registry, guest.windows, [], wanted, TARGETS["aws"])
    assert codes(found) == ["driver_missing"]


def test_inspection_tells_what_the_guest_is(guest: Any) -> None:
    with ExitStack() as stack:
        found = inspect(guest.registry(stack), guest.windows, guest.table)
    assert found.product_name == "Windows 11 Enterprise"
    assert found.build.startswith("10.0.22631")
    assert (found.architecture, found.firmware) == ("x86_64", "uefi")
    assert found.control_sets == ("ControlSet001", "ControlSet002")
    assert found.source_platform == "vmware"
    assert found.vda_version.startswith("2402")
    assert found.pvs_target_version.startswith("2402")
    assert found.domain == "corp.example"
    assert any("Office" in line for line in found.software)


def test_a_machine_without_its_account_is_in_no_domain(guest: Any) -> None:
    merge_text(guest.hive("SECURITY"), "[-\\Policy\\Secrets\\$MACHINE.ACC]")
    with ExitStack() as stack:
        assert inspect(guest.registry(stack), guest.windows, guest.table).domain == ""
