"""Carries out the first-boot plan as the service's script would, without reading that script.

``plan.txt``: ``imageport-firstboot 1``, ``deadline SECONDS``, ``attempts N``, then one step a line:
``NN required|optional VERB ARGUMENT``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from imageport.sandbox.guest_player import registry
from imageport.sandbox.guest_player.inf import InfError
from imageport.sandbox.guest_player.plan_steps import (
    CLOSING,
    FOLDER,
    RESTART,
    Hives,
    PlanSteps,
    Step,
    StepFailed,
)
from imageport.sandbox.guest_player.registry import Hive
from imageport.sandbox.guest_player.vm_agent import PackageError
from imageport.sandbox.guest_player.volume import WindowsVolume

SERVICE = "ImageportFirstBoot"
_HEAD = re.compile(r"imageport-firstboot 1\ndeadline (\d+)\nattempts (\d+)")
_AUTOMATIC, _OWN_PROCESS = 2, 0x10
_STEP = re.compile(r"(\d{2}) (required|optional) ([a-z-]+)(?: (.+))?")
_MAX_RESTARTS = 8
_EVERY_START = {"wait-devices"}
"""Done again after each restart: it is about this start."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole plan."""

    deadline_seconds: int
    attempts: int
    steps: tuple[Step, ...]


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
    found = tuple(Step(m[1], m[2] == "required", m[3], m[4] or "") for m in steps if m)
    return Plan(int(head[1]), int(head[2]), found)


class FirstBoot:
    """One first boot: the plan's steps on volume and hives, and what they leave as files."""

    def __init__(self, volume: WindowsVolume, hives: Hives, devices: tuple[str, ...]) -> None:
        self._volume = volume
        self._hives = hives
        self._steps = PlanSteps(volume, hives, devices)
        self._codes: dict[str, str] = {}
        """What each step came to, "" being well."""
        self._restarts = 0
        self._log: list[str] = []
        self._said: list[str] = []

    def run(self, plan: Plan) -> list[str]:
        """Try until it works or the attempts are used up; returns the lines for the serial port."""
        attempts = self._count_of_attempts()
        reason = "attempts"
        while reason and attempts < max(plan.attempts, 1):
            attempts += 1
            self._write("attempts.txt", str(attempts))
            self._log.append(f"attempt {attempts} of {plan.attempts}")
            self._codes = {number: code for number, code in self._codes.items() if not code}
            reason = self._first_half(plan)
            if reason == "restarts":
                break
        closing = [step for step in plan.steps if step.verb in CLOSING]
        for step in closing:
            if self._do(step) and step.required:
                reason = reason or f"step-{step.number}"
        self._keep(reason, attempts)
        self._write("log.txt", *self._log)
        end = f"failed {self._named(plan, reason)}" if reason else "done"
        return [*self._said, f"imageport-firstboot: {end}"]

    def _first_half(self, plan: Plan) -> str:
        """Carry out what comes before the end; returns why that must be tried again, or ""."""
        for step in plan.steps:
            is_done = self._codes.get(step.number) == "" and step.verb not in _EVERY_START
            if step.verb in CLOSING or is_done:
                continue
            code = self._do(step)
            if code == RESTART:
                self._codes[step.number] = ""
                self._restarts += 1
                if self._restarts > _MAX_RESTARTS:
                    return "restarts"
                self._log.append(f"restart {self._restarts}")
            elif code and step.required:
                return f"step-{step.number}"
        return ""

    def _named(self, plan: Plan, reason: str) -> str:
        """Return the reason, with verb and code of the step that it names."""
        for step in plan.steps:
            if reason == f"step-{step.number}":
                return f"{reason} {step.verb} code {self._codes[step.number]}"
        return reason

    def _count_of_attempts(self) -> int:
        text = (self._volume.read(f"{FOLDER}\\attempts.txt") or b"").strip()
        return int(text) if text.isdigit() else 0

    def _do(self, step: Step) -> str:
        """Carry out one step; "" or its code."""
        name = f"{step.number} {step.verb} {step.argument}".rstrip()
        try:
            said, code = self._steps.do(step), ""
        except (StepFailed, InfError, PackageError) as error:
            said, code = str(error), error.code
        is_well = code in {"", RESTART}
        self._codes[step.number] = "" if is_well else code
        outcome = f"ok {code or 0}" if is_well else f"failed {code}"
        self._hives.flush()  # the next step reads what this one wrote
        self._log.append(f"{name}: {outcome} {said}".rstrip())
        self._said.append(f"imageport-firstboot: step {step.number} {step.verb} {outcome}")
        return code

    def _keep(self, reason: str, attempts: int) -> None:
        lines = ["state=failed", f"reason={reason}"] if reason else ["state=done"]
        lines += [f"attempts={attempts}", f"restarts={self._restarts}"]
        for number, code in sorted(self._codes.items()):
            lines.append(f"step.{number}=" + (f"failed {code}" if code else "ok"))
        self._write("result.txt", *lines)

    def _write(self, name: str, *lines: str) -> None:
        self._volume.write(f"{FOLDER}\\{name}", "".join(f"{line}\r\n" for line in lines).encode())
