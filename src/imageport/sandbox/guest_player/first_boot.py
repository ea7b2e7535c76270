"""Carries out the first-boot plan as the service's script would, without reading that script.

``plan.txt``: ``imageport-firstboot 1``, ``deadline SECONDS``, ``attempts N``, then one step a line:
``NN required|optional VERB ARGUMENT``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from imageport.sandbox.guest_player import registry
from imageport.sandbox.guest_player.driver_install import DriverSetup
from imageport.sandbox.guest_player.inf import InfError
from imageport.sandbox.guest_player.registry import Hive
from imageport.sandbox.guest_player.vm_agent import PackageError, install_vm_agent
from imageport.sandbox.guest_player.volume import WindowsVolume

FOLDER = "Windows\\ImageportFirstBoot"
SERVICE = "ImageportFirstBoot"
_HEAD = re.compile(r"imageport-firstboot 1\ndeadline (\d+)\nattempts (\d+)")
_AUTOMATIC, _OWN_PROCESS = 2, 0x10
_STEP = re.compile(r"(\d{2}) (required|optional) ([a-z-]+) (.+)")
_REMOVED = {"remove-override": "\\StartOverride", "remove-service": ""}
"""What goes of a service, by verb."""
_CLOSING = {"restore-service", "restore-value", *_REMOVED}
_NO_SERVICE, _NO_VERB, _BAD_ARGUMENT = "1060", "1", "87"


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the plan."""

    number: str
    required: bool
    verb: str
    argument: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole plan."""

    deadline_seconds: int
    attempts: int
    steps: tuple[Step, ...]


class StepFailed(Exception):
    """A step did not do what it should; ``code`` as the program behind it returns it."""

    def __init__(self, code: str, cause: str) -> None:
        super().__init__(cause)
        self.code = code


def service_fault(volume: WindowsVolume, system: Hive, control_set: str) -> str:
    """Return why the service control manager would not run the first boot, "" when it would."""
    key = system.key(f"{control_set}\\Services\\{SERVICE}")
    if key is None:
        return f"no service {SERVICE}"
    if registry.dword(key, "start") != _AUTOMATIC or registry.dword(key, "type") != _OWN_PROCESS:
        return f"service {SERVICE} is not an automatic service of its own process"
    account = registry.text(key, "objectname").lower()
    if account not in {"localsystem", "nt authority\\system"}:
        return f"service {SERVICE} runs as {account or 'nobody'}, not as LocalSystem"
    match = re.match(r"(?i)(\S+\\cmd\.exe) .*?/c (\S+firstboot\.cmd)", _image(key))
    if match is None or not all(volume.exists(path) for path in match.groups()):
        return f"service {SERVICE} names no program and script that exist: {_image(key)}"
    return ""


def _image(key: registry.Key) -> str:
    return registry.text(key, "imagepath").replace('"', "")


def script_fault(volume: WindowsVolume, plan: Plan) -> str:
    """Return what keeps cmd.exe from carrying out the plan, "" when nothing does."""
    script = volume.read(f"{FOLDER}\\firstboot.cmd") or b""
    if not script.strip():
        return "firstboot.cmd is empty"
    if script.count(b"\n") != script.count(b"\r\n"):
        return "firstboot.cmd has lines without CR, in which cmd.exe loses its labels"
    for step in plan.steps:
        if step.argument.split(" ")[0].encode("ascii") not in script:
            return f"firstboot.cmd knows nothing of step {step.number} {step.verb} {step.argument}"
    return ""


def parse_plan(data: bytes | None) -> Plan | None:
    """Return the plan, None when it is missing or not to be understood."""
    try:
        lines = (data or b"").decode("ascii").split("\r\n")
    except UnicodeDecodeError:
        return None
    lines = [line for line in lines if line]
    head = _HEAD.fullmatch("\n".join(lines[:3]))
    steps = [_STEP.fullmatch(line) for line in lines[3:]]
    if head is None or not all(steps):
        return None
    found = tuple(Step(m[1], m[2] == "required", m[3], m[4]) for m in steps if m)
    return Plan(int(head[1]), int(head[2]), found)


class FirstBoot:
    """One first boot: the plan's steps on volume and hives, and what they leave as files."""

    def __init__(
        self, volume: WindowsVolume, system: Hive, drivers: Hive, devices: tuple[str, ...]
    ) -> None:
        self._devices = devices
        self._volume = volume
        self._system = system
        self._drivers = drivers
        self._log: list[str] = []

    def run(self, plan: Plan) -> str:
        """Try until it works or the attempts are used up; returns the line for the serial port."""
        done = self._count_of_attempts()
        failed: list[tuple[Step, str]] = []
        state: Literal["done", "failed"] = "failed"
        while state == "failed" and done < max(plan.attempts, 1):
            done += 1
            self._write("attempts.txt", str(done))
            self._log.append(f"attempt {done} of {plan.attempts}")
            results = self._steps(plan, last=done >= plan.attempts)
            failed = [(step, code) for step, code in results if code and step.required]
            state = "failed" if failed else "done"
            self._keep(state, done, results)
            self._system.flush()
            self._drivers.flush()
        self._write("log.txt", *self._log)
        if state == "done":
            return "imageport-firstboot: done"
        named = ", ".join(f"{s.number} {s.verb} {s.argument} code {code}" for s, code in failed)
        return f"imageport-firstboot: failed {named or 'no attempts left'}"

    def _steps(self, plan: Plan, *, last: bool) -> list[tuple[Step, str]]:
        """Carry out the steps; what ends the first boot waits while another attempt will come."""
        results: list[tuple[Step, str]] = []
        for step in plan.steps:
            failed = any(code for done, code in results if done.required)
            if failed and not last and step.verb in _CLOSING:
                continue
            results.append((step, self._step(step)))
        return results

    def _count_of_attempts(self) -> int:
        text = (self._volume.read(f"{FOLDER}\\attempts.txt") or b"").strip()
        return int(text) if text.isdigit() else 0

    def _step(self, step: Step) -> str:
        """Carry out one step; "" or its error code."""
        name = f"{step.number} {step.verb} {step.argument}"
        try:
            said = self._do(step)
        except StepFailed as error:
            self._log.append(f"{name}: failed {error.code}: {error}")
            return error.code
        except (InfError, PackageError) as error:
            self._log.append(f"{name}: failed {error.code}: {error}")
            return error.code
        self._log.append(f"{name}: ok {said}".rstrip())
        return ""

    def _do(self, step: Step) -> str:
        if step.verb == "wait-devices":
            return ""
        if step.verb == "add-driver":
            return self._setup().add(self._driver_path(step.argument))
        if step.verb == "install-vm-agent":
            path = f"{FOLDER}\\agent\\{step.argument}"
            self._volume.write(f"{FOLDER}\\agent.log", b"=== Logging started ===\r\n")
            return install_vm_agent(self._volume, self._system, self._current_set(), path)
        if step.verb == "restore-service":
            return self._restore(step.argument)
        if step.verb == "restore-value":
            return self._restore_value(step.argument)
        if step.verb in _REMOVED:
            return self._remove(step.argument, _REMOVED[step.verb])
        raise StepFailed(_NO_VERB, "unknown verb")

    def _setup(self) -> DriverSetup:
        current = self._current_set()
        return DriverSetup(self._volume, self._system, self._drivers, current, self._devices)

    def _driver_path(self, argument: str) -> str:
        for base in (f"{FOLDER}\\drivers", FOLDER):
            if self._volume.exists(f"{base}\\{argument}"):
                return f"{base}\\{argument}"
        return f"{FOLDER}\\drivers\\{argument}"

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

    def _remove(self, service: str, below: str) -> str:
        for control_set in self._sets_with(service):
            key = f"{control_set}\\Services\\{service}{below}"
            if self._system.key(key) is not None:
                self._system.delete(key)
        return ""

    def _control_sets(self) -> list[str]:
        return [name for name in self._system.children("") if name.startswith("controlset")]

    def _sets_with(self, service: str) -> list[str]:
        sets = self._control_sets()
        found = [name for name in sets if self._system.key(f"{name}\\Services\\{service}")]
        if not found:
            raise StepFailed(_NO_SERVICE, "no such service")
        return found

    def _current_set(self) -> str:
        current = registry.dword(self._system.key("Select"), "current", 1)
        return f"ControlSet{current:03d}"

    def _keep(self, state: str, attempts: int, results: list[tuple[Step, str]]) -> None:
        lines = [f"state={state}", f"attempts={attempts}"]
        lines += [f"step.{s.number}={f'failed {code}' if code else 'ok'}" for s, code in results]
        self._write("result.txt", *lines)

    def _write(self, name: str, *lines: str) -> None:
        self._volume.write(f"{FOLDER}\\{name}", "".join(f"{line}\r\n" for line in lines).encode())
