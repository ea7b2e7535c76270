"""The same code on hives of real machines, where this machine has them.

``IMAGEPORT_TESTDATA`` names a folder with ``hives/NAME.xz``; they are not ours to ship.
"""

from __future__ import annotations

import lzma
import os
import struct
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from imageport.compose.boot_store import BootEntry, default_entry
from imageport.compose.cloud_target import INBOX_STORAGE, TARGETS
from imageport.compose.contract import (
    Action,
    EngineDisk,
    EngineJob,
    EngineOptions,
    Inspection,
)
from imageport.compose.hives.hive import Hive, HiveHeader
from imageport.compose.hives.registry import Registry, hive_path
from imageport.compose.refusals import hive_refusals, volume_refusals
from imageport.compose.step import Context, Facts
from imageport.compose.steps.boot.enable_boot_drivers import EnableBootDrivers
from imageport.compose.steps.order import recommended_names, step_refusals
from imageport.compose.steps.source.disable_vmware_services import DisableVmwareServices
from imageport.compose.steps.windows.use_dhcp import UseDhcp
from imageport.compose.verdict.boot import (
    boot_driver_files,
    class_filters_resolve,
)
from imageport.compose.verdict.cloud import disks_online, dvd_drive, faster_adapters
from imageport.compose.verdict.drivers import driver_database
from imageport.compose.verdict.evidence import Evidence
from imageport.compose.verdict.guest import dependencies
from imageport.compose.volumes.guest_files import PendingFiles
from imageport.compose.volumes.local_files import LocalFiles
from imageport.compose.volumes.partition_table import PartitionTable
from imageport.sandbox.sample.hives import base_block_checksum, empty_hive

FOLDER = Path(os.environ.get("IMAGEPORT_TESTDATA", "/nonexistent")) / "hives"
pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="IMAGEPORT_TESTDATA names no folder with real hives"
)
DIRTY = ["SYSTEM_WIN_10_1709", "SYSTEM_B"]
INBOX_CLOUDS = sorted(name for name, target in TARGETS.items() if not target.added_boot_drivers)
"""Clouds that Windows boots in with drivers of its own."""


def real(name: str, to: Path) -> Path:
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(lzma.decompress((FOLDER / f"{name}.xz").read_bytes()))
    return to


@pytest.fixture
def volume(tmp_path: Path) -> LocalFiles:
    root = tmp_path / "windows"
    config = root / hive_path("SOFTWARE")
    config.parent.mkdir(parents=True)
    config.write_bytes(empty_hive("SOFTWARE"))
    return LocalFiles(root)


def pretend_clean(hive: Path) -> None:
    """Equalise the sequence numbers of a test's copy, so that there is something to edit."""
    data = bytearray(hive.read_bytes())
    struct.pack_into("<II", data, 4, 1, 1)
    struct.pack_into("<I", data, 508, base_block_checksum(bytes(data[:512])))
    hive.write_bytes(data)


@pytest.mark.parametrize("name", DIRTY)
def test_a_real_dirty_hive_is_refused(volume: LocalFiles, name: str) -> None:
    real(name, volume.root / hive_path("SYSTEM"))
    refusals = hive_refusals(volume)
    assert [item.code for item in refusals] == ["dirty_hive"]
    assert "dirty_hive" in {item.code for item in volume_refusals(volume, Action.COMPOSE)}


@pytest.mark.parametrize("cloud", INBOX_CLOUDS)
@pytest.mark.parametrize("name", DIRTY)
def test_boot_drivers_of_a_real_machine_become_startable(
    tmp_path: Path, name: str, cloud: str
) -> None:
    target = TARGETS[cloud]
    path = real(name, tmp_path / "SYSTEM")
    pretend_clean(path)
    with ExitStack() as stack:
        registry = Registry({"SYSTEM": stack.enter_context(Hive(path, writable=True))})
        files = PendingFiles(LocalFiles(tmp_path))
        context = Context(EngineOptions(cloud=cloud), target, Inspection(), registry, files)
        for step in (DisableVmwareServices(), EnableBootDrivers()):
            context.recorder.begin(step.name, step.tier)
            step.run(context)
        sets = registry.control_sets
        registry.hives["SYSTEM"].commit()
    removed = [c for c in context.recorder.changes if c.path.endswith("StartOverride")]
    assert removed, "a real machine has StartOverride under idle storage drivers"
    assert all("REG_DWORD 3" in change.before for change in removed)
    header = HiveHeader.parse(path.read_bytes()[:512])
    assert (header.is_dirty, header.problem) == (False, "")
    for control_set in sets:
        for driver in (*target.boot_drivers, *target.old_boot_drivers):
            place = f"\\{control_set}\\Services\\{driver}"
            assert output("hivexget", path, place, "Start").strip() == "0"
        for driver in (*INBOX_STORAGE, *target.boot_drivers):
            key = f"\\{control_set}\\Services\\{driver}\\StartOverride"
            done = subprocess.run(["hivexget", path, key], capture_output=True, check=False)
            assert done.returncode != 0, key


def test_vmware_services_of_a_real_machine_are_disabled_but_its_disk_driver(
    tmp_path: Path,
) -> None:
    path = real("SYSTEM_WIN_10_1709", tmp_path / "SYSTEM")
    pretend_clean(path)
    with ExitStack() as stack:
        registry = Registry({"SYSTEM": stack.enter_context(Hive(path, writable=True))})
        files = PendingFiles(LocalFiles(tmp_path))
        context = Context(EngineOptions(), TARGETS["aws"], Inspection(), registry, files)
        DisableVmwareServices().run(context)
        current = registry.current_control_set
        assert registry.start_of(current, "VMTools") == 4
        assert registry.start_of(current, "vmci") == 4
    assert not [c for c in context.recorder.changes if "pvscsi" in c.path.lower()]


@pytest.mark.parametrize("cloud", INBOX_CLOUDS)
@pytest.mark.parametrize("name", DIRTY)
def test_loose_ends_of_real_machines_fail_no_verdict(tmp_path: Path, name: str, cloud: str) -> None:
    path = real(name, tmp_path / "SYSTEM")
    with Hive(path) as hive:
        files = EveryFile(tmp_path)
        table = PartitionTable("gpt", "", ())
        evidence = Evidence(Registry({"SYSTEM": hive}), files, None, table, Inspection(), "")
        job = EngineJob(Action.COMPOSE, EngineDisk(""))
        for check in (class_filters_resolve, boot_driver_files, driver_database, dependencies):
            finding = check(evidence, job, TARGETS[cloud])
            assert finding.problems == [], check
            assert finding.facts


@pytest.mark.parametrize("name", DIRTY)
def test_a_real_machine_has_all_that_azures_steps_look_for(tmp_path: Path, name: str) -> None:
    with Hive(real(name, tmp_path / "SYSTEM")) as hive:
        registry = Registry({"SYSTEM": hive})
        chosen = EngineOptions(cloud="azure", recommended=recommended_names("azure"))
        files = EveryFile(tmp_path)
        assert step_refusals(Facts(chosen, TARGETS["azure"], Inspection(), registry, files)) == []
        evidence = Evidence(
            registry, EveryFile(tmp_path), None, PartitionTable("gpt", "", ()), Inspection(), ""
        )
        job = EngineJob(Action.COMPOSE, EngineDisk(""), chosen)
        for check in (disks_online, dvd_drive, faster_adapters):
            finding = check(evidence, job, TARGETS["azure"])
            assert finding.problems == [], check
            assert finding.facts


@pytest.mark.parametrize("name", DIRTY)
def test_interfaces_without_an_address_are_left_alone(tmp_path: Path, name: str) -> None:
    path = real(name, tmp_path / "SYSTEM")
    pretend_clean(path)
    with ExitStack() as stack:
        registry = Registry({"SYSTEM": stack.enter_context(Hive(path, writable=True))})
        files = PendingFiles(LocalFiles(tmp_path))
        context = Context(EngineOptions(), TARGETS["aws"], Inspection(), registry, files)
        UseDhcp().run(context)
    assert [c for c in context.recorder.changes if "Interfaces" in c.path] == []


class EveryFile(LocalFiles):
    """A volume on which every file exists: real hives come without their volume."""

    def exists(self, path: str) -> bool:
        return bool(path)


def test_a_real_boot_store_leads_to_its_loader(tmp_path: Path) -> None:
    with Hive(real("BCD", tmp_path / "BCD")) as store:
        entry = default_entry(store)
    assert isinstance(entry, BootEntry), entry
    assert entry.loader_path.lower() == "\\windows\\system32\\winload.efi"
    assert entry.system_root.lower() == "\\windows"
    assert isinstance(entry.loader_device, tuple)
    disk, partition = entry.loader_device
    assert len(disk) == len(partition) == 36
    assert entry.system_device == entry.loader_device


def output(*argv: str | Path) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout
