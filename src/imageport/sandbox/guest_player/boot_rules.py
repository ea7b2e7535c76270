"""Would this Windows come up? Each rule of ``rules.txt`` judged on files and registry."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from imageport.sandbox.guest_player import registry
from imageport.sandbox.guest_player.descriptors import EVERYBODY, audited
from imageport.sandbox.guest_player.disk import Table
from imageport.sandbox.guest_player.driver_database import offers
from imageport.sandbox.guest_player.registry import Hive, Key
from imageport.sandbox.guest_player.volume import WindowsVolume

CONFIG = "Windows\\System32\\config"
_BOOTMGR = "Objects\\{9dea862c-5cdd-4e70-acc1-f32b344d4795}\\Elements"
_DEFAULT_ENTRY, _APPLICATION_DEVICE, _APPLICATION_PATH = "23000003", "11000001", "12000002"
_OS_DEVICE, _SYSTEM_ROOT = "21000001", "22000002"
_PARTITION_DEVICE = 6
_NOT_STARTED = 3
NO_ENTRY = "Windows Boot Manager: 0xc000000e The boot selection failed: a required device is gone."
NO_LOADER = "Windows Boot Manager: 0xc000000f winload.efi is missing or corrupt."


MACHINES = ("aws", "azure", "azure-nvme", "gcp", "gcp-nvme")
"""Whose hardware the table knows; ``azure`` and ``gcp`` have SCSI disks, the others NVMe ones."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table; ``machines`` are separated by spaces, ``all`` is every one."""

    kind: str
    machines: str
    subject: str
    screen: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Why Windows does not come up: what the screen says, and the evidence."""

    screen: str
    evidence: str


def load_rules(kind: str, machine: str) -> list[Rule]:
    """Return the table's rules of one kind for one machine."""
    rules = []
    for line in Path(__file__).with_name("rules.txt").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            rule = Rule(*(part.strip() for part in line.split("|", 3)))
            if rule.kind == kind and (rule.machines == "all" or machine in rule.machines.split()):
                rules.append(rule)
    return rules


def idle_drivers(machine: str) -> list[str]:
    """Return the boot drivers of other machines that this one has no use for."""
    used = {rule.subject for rule in load_rules("boot-driver", machine)}
    others = (rule.subject for name in MACHINES for rule in load_rules("boot-driver", name))
    return sorted({name for name in others if name not in used})


class BootJudge:
    """Judges one Windows on one disk of one machine."""

    def __init__(self, volume: WindowsVolume, table: Table, windows: UUID, machine: str) -> None:
        self.machine = machine
        self._volume = volume
        self._table = table
        self._windows = windows

    def stops(self, boot_store: Path) -> Iterator[Stop]:
        """Yield what keeps Windows from starting, in the order in which it would be met."""
        yield from self._boot_store(Hive(boot_store))
        for rule in self._rules("system-file"):
            if not self._volume.exists(rule.subject):
                yield Stop(rule.screen, f"no file {rule.subject}")
        broken = list(self._hives())
        yield from broken
        if not broken:
            system = self.hive("SYSTEM")
            yield from self._drivers(system, booted_set(system))

    def hive(self, name: str) -> Hive:
        """Return one of the machine's hives; it exists, as `stops` said nothing about it."""
        return Hive(self._volume.find(f"{CONFIG}\\{name}") or Path(name))

    def _rules(self, kind: str) -> list[Rule]:
        return load_rules(kind, self.machine)

    def _boot_store(self, store: Hive) -> Iterator[Stop]:
        entry = registry.text(store.key(f"{_BOOTMGR}\\{_DEFAULT_ENTRY}"), "Element")
        elements = f"Objects\\{entry}\\Elements"
        found = {
            name: store.key(f"{elements}\\{name}")
            for name in (_APPLICATION_DEVICE, _APPLICATION_PATH, _OS_DEVICE, _SYSTEM_ROOT)
        }
        if not entry or not all(found.values()):
            yield Stop(NO_ENTRY, "the boot store has no complete default entry")
            return
        for name in (_APPLICATION_DEVICE, _OS_DEVICE):
            data = (found[name] or {}).get("element", (0, b""))[1]
            if device_target(data) != (self._table.disk_guid, self._windows):
                yield Stop(NO_ENTRY, f"element {name} names {device_target(data)}, not this volume")
        loader = registry.text(found[_APPLICATION_PATH], "Element")
        if not (self._volume.read(loader) or b"").startswith(b"MZ"):
            yield Stop(NO_LOADER, f"no program {loader}")

    def _hives(self) -> Iterator[Stop]:
        for rule in self._rules("hive"):
            data = self._volume.read(f"{CONFIG}\\{rule.subject}")
            if data is None:
                yield Stop(rule.screen, f"no hive {rule.subject}")
            elif not registry.is_clean(data):
                yield Stop(rule.screen, f"hive {rule.subject} is not clean and has no usable log")

    def _drivers(self, system: Hive, control_set: str) -> Iterator[Stop]:
        services = system.subtree(f"{control_set}\\Services")
        if not services:
            yield Stop("*** STOP: 0x00000074 BAD_SYSTEM_CONFIG_INFO", f"no {control_set}\\Services")
            return
        base = f"{control_set}\\services\\".lower()
        for rule in self._rules("boot-driver"):
            name = base + rule.subject.lower()
            fault = self._driver_fault(
                services.get(name), services.get(name + "\\startoverride"), rule.subject
            )
            if fault:
                yield Stop(rule.screen, f"{rule.subject}: {fault}")
        for rule in self._rules("boot-device"):
            if not any(offers([system], rule.subject)):
                yield Stop(rule.screen, f"no driver in the database for {rule.subject}")
        for rule in self._rules("boot-class"):
            for name in class_filters(system, control_set, rule.subject):
                fault = self._filter_fault(services.get(base + name.lower()), name)
                if fault:
                    yield Stop(rule.screen, f"filter {name} of {rule.subject}: {fault}")
        yield from self._missing_files(services)

    def _missing_files(self, services: dict[str, Key]) -> Iterator[Stop]:
        (rule,) = self._rules("boot-file")
        for path, key in services.items():
            is_service = path.count("\\") == 2  # control set, services, name
            if is_service and registry.dword(key, "start") == 0:
                fault = self._file_fault(key, path.rpartition("\\")[2])
                if fault:
                    yield Stop(rule.screen, f"{fault}, which starts with the system")

    def _driver_fault(self, key: Key | None, override: Key | None, name: str) -> str:
        if key is None:
            return "no such service"
        start = registry.dword(key, "start")
        if start != 0:
            return f"Start is {start}, needed 0"
        for value in override or {}:
            if registry.dword(override, value) != 0:
                return f"StartOverride\\{value} is {registry.dword(override, value)}"
        return self._file_fault(key, name)

    def _filter_fault(self, key: Key | None, name: str) -> str:
        if key is None:
            return "no such service"
        if registry.dword(key, "start") > _NOT_STARTED:
            return "it is disabled"
        return self._file_fault(key, name)

    def _file_fault(self, key: Key, name: str) -> str:
        image = image_path(key, name)
        return "" if self._volume.exists(image) else f"no file {image}"


def booted_set(system: Hive) -> str:
    """Return the control set that the loader takes."""
    return f"ControlSet{registry.dword(system.key('Select'), 'default', 1):03d}"


def class_filters(system: Hive, control_set: str, class_guid: str) -> list[str]:
    """Return the filter services of a device class."""
    key = system.key(f"{control_set}\\Control\\Class\\{class_guid}")
    return [*registry.texts(key, "upperfilters"), *registry.texts(key, "lowerfilters")]


def image_path(key: Key, name: str) -> str:
    """Return a driver's file; without ImagePath Windows takes the service's name."""
    return registry.text(key, "imagepath") or f"Windows\\System32\\drivers\\{name}.sys"


def device_target(element: bytes) -> tuple[UUID, UUID] | None:
    """Return (disk GUID, partition GUID) of a boot store's device element, None for others."""
    if len(element) < 72 or struct.unpack_from("<I", element, 16)[0] != _PARTITION_DEVICE:
        return None
    partition = UUID(bytes_le=element[32:48])
    return UUID(bytes_le=element[56:72]), partition


def open_objects(image: Path) -> Iterator[str]:
    """Yield what ntfssecaudit shows as open to ordinary users on the unmounted volume."""
    for rule in load_rules("closed-folder", "all"):
        entries = audited(image, rule.subject)
        if any(entry.who in EVERYBODY and entry.kind == 0 for entry in entries or ()):
            yield f"{rule.screen}: {rule.subject}"
    for rule in load_rules("closed-file", "all"):
        entries = audited(image, rule.subject)
        if any(entry.who in EVERYBODY and entry.may_write for entry in entries or ()):
            yield f"{rule.screen}: {rule.subject}"
