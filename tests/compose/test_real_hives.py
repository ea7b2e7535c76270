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
from imageport.compose.first_boot.plan import FOLDER as FOLDER_OF_FIRST_BOOT
from imageport.compose.hives.base_block import HiveHeader
from imageport.compose.hives.hive import Hive
from imageport.compose.hives.registry import Registry, copy_hives, hive_path
from imageport.compose.hives.registry_value import Value
from imageport.compose.hives.soundness import hive_problem
from imageport.compose.hives.transaction_logs import Replayed, replay
from imageport.compose.refusals import hive_refusals
from imageport.compose.step import Context, Facts
from imageport.compose.steps.boot.enable_boot_drivers import EnableBootDrivers
from imageport.compose.steps.order import recommended_names, step_refusals
from imageport.compose.steps.source.remove_vmware_tools import RemoveVmwareTools
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
from tests.compose.second_replay import replayed_by_regipy

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
def test_a_real_dirty_hive_without_its_logs_is_refused(volume: LocalFiles, name: str) -> None:
    real(name, volume.root / hive_path("SYSTEM"))
    refusals = hive_refusals(copy_hives(volume, volume.root.parent, None))
    assert [item.code for item in refusals] == ["dirty_hive"]


def test_a_real_dirty_hive_is_replayed_from_its_logs(volume: LocalFiles, tmp_path: Path) -> None:
    place = volume.root / hive_path("SYSTEM")
    before = real("SYSTEM_B", place).read_bytes()
    for suffix in (".LOG1", ".LOG2"):
        real("SYSTEM_B" + suffix, place.with_name("SYSTEM" + suffix))
    found = copy_hives(volume, tmp_path, None)
    assert hive_refusals(found) == []
    copy = found.copies["SYSTEM"]
    assert copy.replay == "24 entries of .LOG1 and .LOG2 up to 2130"
    data = copy.path.read_bytes()
    header = HiveHeader.parse(data[:512])
    assert (header.sequence1, header.sequence2, header.problem) == (2131, 2131, "")
    assert hive_problem(data) == ""
    added = "ControlSet001\\Control\\Class\\{4d36e96c-e325-11ce-bfc1-08002be10318}\\0013"
    behind = tmp_path / "BEHIND"
    behind.write_bytes(before)
    with Hive(copy.path) as hive, Hive(behind) as old:
        assert hive.value("Select", "Current") == Value.dword(1)
        assert hive.key(added) is not None, "a key that only the logs held"
        assert old.key(added) is None


def test_regipy_makes_the_same_of_a_real_hive_and_its_logs(tmp_path: Path) -> None:
    hive = real("SYSTEM_B", tmp_path / "HIVE")
    logs = {s: real("SYSTEM_B" + s, tmp_path / f"HIVE{s}") for s in (".LOG1", ".LOG2")}
    ours = replay(hive.read_bytes(), {suffix: path.read_bytes() for suffix, path in logs.items()})
    assert isinstance(ours, Replayed)
    theirs = hive
    for suffix, path in logs.items():  # one by one, the older first: it would begin with LOG2
        theirs = replayed_by_regipy(theirs, path, tmp_path / f"restored{suffix}")
    bins = slice(4096, 4096 + HiveHeader.parse(ours.data[:512]).bins_bytes)
    assert theirs.read_bytes()[bins] == ours.data[bins]
    assert hive.read_bytes()[bins] != ours.data[bins]


@pytest.mark.parametrize("name", [*DIRTY, "BCD"])
def test_a_real_hive_is_sound(tmp_path: Path, name: str) -> None:
    assert hive_problem(real(name, tmp_path / "HIVE").read_bytes()) == ""


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
        for step in (RemoveVmwareTools(), EnableBootDrivers()):
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


@pytest.mark.parametrize("cloud", INBOX_CLOUDS)
@pytest.mark.parametrize("name", DIRTY)
def test_loose_ends_of_real_machines_fail_no_verdict(tmp_path: Path, name: str, cloud: str) -> None:
    path = real(name, tmp_path / "SYSTEM")
    with Hive(path) as hive:
        files = EveryFile(tmp_path)
        table = PartitionTable("gpt", "", ())
        evidence = Evidence(Registry({"SYSTEM": hive}), files, None, table, Inspection(), None)
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
        return bool(path) and path != FOLDER_OF_FIRST_BOOT


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
