"""Each verb of the first-boot plan, on volume and hives by rules of the player's own."""

from __future__ import annotations

import re
from dataclasses import dataclass

from imageport.sandbox.guest_player import registry
from imageport.sandbox.guest_player.boot_switches import BootSwitches
from imageport.sandbox.guest_player.command_files import run_command_file
from imageport.sandbox.guest_player.driver_install import DriverSetup
from imageport.sandbox.guest_player.installers import Machine
from imageport.sandbox.guest_player.registry import Hive
from imageport.sandbox.guest_player.vm_agent import install_vm_agent
from imageport.sandbox.guest_player.volume import WindowsVolume

FOLDER = "Windows\\ImageportFirstBoot"
RESTART = "3010"
"""ERROR_SUCCESS_REBOOT_REQUIRED."""
PROGRAM_VERBS = {
    "install-package",
    "uninstall-package",
    "reconfigure-vda",
    "run-script",
    "leave-domain",
    "rearm-office",
    "rearm-windows",
}
_REMOVED = {"remove-override": "\\StartOverride", "remove-service": ""}
"""What goes of a service, by verb."""
CLOSING = {"restore-service", "restore-value", "set-ems", *_REMOVED}
_INFS = "DriverDatabase\\DriverInfFiles"
_PACKAGES = "DriverDatabase\\DriverPackages"
_NO_SERVICE, _NO_VERB, _BAD_ARGUMENT = "1060", "1", "87"


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the plan."""

    number: str
    required: bool
    verb: str
    argument: str


@dataclass(frozen=True, slots=True)
class Hives:
    """The machine's hives; ``boot_store`` lies on the volume that firmware starts from."""

    system: Hive
    software: Hive
    drivers: Hive
    boot_store: Hive

    def flush(self) -> None:
        """Write all of them out."""
        for hive in (self.system, self.software, self.drivers, self.boot_store):
            hive.flush()


class StepFailed(Exception):
    """A step did not do what it should; ``code`` as the program behind it returns it."""

    def __init__(self, code: str, cause: str) -> None:
        super().__init__(cause)
        self.code = code


class PlanSteps:
    """Carries out steps; edits are collected in the hives."""

    def __init__(self, volume: WindowsVolume, hives: Hives, devices: tuple[str, ...]) -> None:
        self._volume = volume
        self._hives = hives
        self._system = hives.system
        self._devices = devices

    def do(self, step: Step) -> str:
        """Carry out one step; returns a word for the log.

        Raises:
            StepFailed: also with `RESTART`, by which it has succeeded and needs one.
            InfError, PackageError: a package is not as it should be.
        """
        if step.verb in PROGRAM_VERBS:
            return self._program(step.argument)
        if step.verb in _REMOVED:
            return self._remove(step.argument, _REMOVED[step.verb])
        simple = {
            "wait-devices": self._wait,
            "add-driver": self._add_driver,
            "remove-driver": self._remove_driver,
            "reset-winsock": self._reset_winsock,
            "install-vm-agent": self._install_agent,
            "restore-service": self._restore,
            "restore-value": self._restore_value,
            "set-ems": self._set_ems,
        }
        if step.verb not in simple:
            raise StepFailed(_NO_VERB, "unknown verb")
        return simple[step.verb](step.argument)

    def _program(self, argument: str) -> str:
        name, _, seconds = argument.partition(" ")
        if not seconds.isdigit():
            raise StepFailed(_BAD_ARGUMENT, "needed PROGRAM SECONDS")
        machine = Machine(self._volume, self._system, self._hives.software, self._current_set())
        code, said = run_command_file(machine, f"{FOLDER}\\programs", name)
        if code != "0":
            raise StepFailed(code, said)
        return said

    def _wait(self, argument: str) -> str:
        """Come back at once: here devices are bound before first boot begins."""
        del argument
        return ""

    def _reset_winsock(self, argument: str) -> str:
        del argument
        raise StepFailed(RESTART, "the catalogue is made anew at the next start")

    def _add_driver(self, argument: str) -> str:
        current = self._current_set()
        setup = DriverSetup(self._volume, self._system, self._hives.drivers, current, self._devices)
        return setup.add(self._driver_path(argument))

    def _driver_path(self, argument: str) -> str:
        for base in (f"{FOLDER}\\drivers", FOLDER):
            if self._volume.exists(f"{base}\\{argument}"):
                return f"{base}\\{argument}"
        return f"{FOLDER}\\drivers\\{argument}"

    def _remove_driver(self, argument: str) -> str:
        inf = self._volume.find(f"Windows\\INF\\{argument}")
        if inf is None:
            return "was not there"
        inf.unlink()
        for hive in (self._system, self._hives.drivers):
            found = hive.key(f"{_INFS}\\{argument}")
            if found is None:
                continue
            for package in registry.texts(found, ""):
                hive.delete(f"{_PACKAGES}\\{package}")
            hive.delete(f"{_INFS}\\{argument}")
        return "is gone"

    def _install_agent(self, argument: str) -> str:
        path = f"{FOLDER}\\agent\\{argument}"
        self._volume.write(f"{FOLDER}\\agent.log", b"=== Logging started ===\r\n")
        return install_vm_agent(self._volume, self._system, self._current_set(), path)

    def _restore(self, argument: str) -> str:
        name, _, start = argument.rpartition(" ")
        if not name or start not in {"0", "1", "2", "3", "4"}:
            raise StepFailed(_BAD_ARGUMENT, "needed NAME START")
        for control_set in self._sets_with(name):
            self._system.set(
                f"{control_set}\\Services\\{name}", {"Start": registry.number(int(start))}
            )
        return ""

    def _restore_value(self, argument: str) -> str:
        """Put a number back in every control set: ``KEY NAME absent|dword:NUMBER``."""
        match = re.fullmatch(r"(Services\\(\S+?)(?:\\\S+)?) (\S+) (?:absent|dword:(\d+))", argument)
        if match is None:
            raise StepFailed(_BAD_ARGUMENT, "needed KEY NAME absent|dword:NUMBER")
        key, service, name, value = match.groups()
        for control_set in self._sets_with(service):
            if value is None:
                self._system.unset(f"{control_set}\\{key}", name)
            else:
                self._system.set(f"{control_set}\\{key}", {name: registry.number(int(value))})
        return ""

    def _set_ems(self, argument: str) -> str:
        fault = BootSwitches(self._hives.boot_store).set_ems(argument)
        if fault:
            raise StepFailed(_BAD_ARGUMENT, fault)
        return ""

    def _remove(self, service: str, below: str) -> str:
        for control_set in self._sets_with(service):
            key = f"{control_set}\\Services\\{service}{below}"
            if self._system.key(key) is not None:
                self._system.delete(key)
        return ""

    def _sets_with(self, service: str) -> list[str]:
        sets = [name for name in self._system.children("") if name.startswith("controlset")]
        found = [name for name in sets if self._system.key(f"{name}\\Services\\{service}")]
        if not found:
            raise StepFailed(_NO_SERVICE, "no such service")
        return found

    def _current_set(self) -> str:
        current = registry.dword(self._system.key("Select"), "current", 1)
        return f"ControlSet{current:03d}"
