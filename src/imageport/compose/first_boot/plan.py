"""The plan of the one boot, as data: ``plan.txt`` in the first-boot folder.

Format: line 1 ``imageport-firstboot 1``, then ``deadline SECONDS`` and ``attempts N``, then one
step a line: ``NN required|optional VERB ARGUMENT…``. ASCII, CRLF.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from imageport.compose.hives.registry_value import Value
from imageport.compose.volumes.guest_files import GuestFiles
from imageport.errors import InputError

FOLDER = "Windows/ImageportFirstBoot"
PLAN_FILE = f"{FOLDER}/plan.txt"
SERVICE = "ImageportFirstBoot"
HEADER = "imageport-firstboot 1"
WAIT_DEVICES = "wait-devices"  # SECONDS
ADD_DRIVER = "add-driver"  # PACKAGE\INF below drivers
RESET_WINSOCK = "reset-winsock"  # no argument; a restart completes it
INSTALL_PACKAGE = "install-package"  # PROGRAM SECONDS
INSTALL_AGENT = "install-vm-agent"  # FILE below agent
REMOVE_DRIVER = "remove-driver"  # INF, as pnputil names it
UNINSTALL_PACKAGE = "uninstall-package"  # PROGRAM SECONDS
RECONFIGURE_VDA = "reconfigure-vda"  # PROGRAM SECONDS
RUN_SCRIPT = "run-script"  # PROGRAM SECONDS
LEAVE_DOMAIN = "leave-domain"  # PROGRAM SECONDS
REARM_OFFICE = "rearm-office"  # PROGRAM SECONDS
REARM_WINDOWS = "rearm-windows"  # PROGRAM SECONDS
RESTORE_SERVICE = "restore-service"  # SERVICE START
RESTORE_VALUE = "restore-value"  # KEY NAME dword:NUMBER|absent
REMOVE_OVERRIDE = "remove-override"  # SERVICE
SET_EMS = "set-ems"  # on|off PORT, or on|off keep ems:OBJECT|bootems:OBJECT
"""With a port: the default entry, the boot manager, and the port at 115200 baud. With ``keep``: one
switch of one object of the boot store (its GUID without braces), the port as it is."""
REMOVE_SERVICE = "remove-service"  # SERVICE
PROGRAM_VERBS = (
    INSTALL_PACKAGE,
    UNINSTALL_PACKAGE,
    RECONFIGURE_VDA,
    RUN_SCRIPT,
    LEAVE_DOMAIN,
    REARM_OFFICE,
    REARM_WINDOWS,
)
"""Verbs that run ``programs\\PROGRAM.cmd`` of the folder, waited for SECONDS at most. Its exit code
0 is success; 3010 is success that a restart completes, after which the next step goes on."""
VERBS = (
    WAIT_DEVICES,
    ADD_DRIVER,
    RESET_WINSOCK,
    INSTALL_PACKAGE,
    INSTALL_AGENT,
    UNINSTALL_PACKAGE,
    REMOVE_DRIVER,
    RECONFIGURE_VDA,
    RUN_SCRIPT,
    LEAVE_DOMAIN,
    REARM_OFFICE,
    REARM_WINDOWS,
    RESTORE_SERVICE,
    RESTORE_VALUE,
    REMOVE_OVERRIDE,
    SET_EMS,
    REMOVE_SERVICE,
)
"""In running order."""
CLOSING_VERBS = (RESTORE_SERVICE, RESTORE_VALUE, REMOVE_OVERRIDE, SET_EMS, REMOVE_SERVICE)
"""What ends the first boot, whatever came of the steps before."""
PROGRAMS = f"{FOLDER}/programs"
_COUNTS = {RESET_WINSOCK: (0,), RESTORE_SERVICE: (2,), RESTORE_VALUE: (3,), SET_EMS: (2, 3)}
_COUNTS |= dict.fromkeys(PROGRAM_VERBS, (2,))
"""How many arguments a verb may have, where that is not one."""
_MAX_PLAN_BYTES = 64 * 1024
"""99 steps of a few names each; the guest may have changed it."""
MAX_STEPS = 99
"""A step's number has two digits in the plan, in the script and in the result."""
_ARGUMENT = re.compile(r"[A-Za-z0-9_.()+\-\\:]{1,200}")
"""No space, quote, percent sign or operator: safe in a line of cmd.exe without quoting rules."""


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One step of first boot."""

    number: int
    required: bool
    verb: str
    arguments: tuple[str, ...]
    control_sets: tuple[str, ...] = ()
    """Those it acts on, known to the script only; empty means all."""

    def line(self) -> str:
        """Return the line of plan.txt."""
        need = "required" if self.required else "optional"
        return " ".join([f"{self.number:02d}", need, self.verb, *self.arguments])


@dataclass(frozen=True, slots=True)
class Held:
    """A registry value that composing changed for the one boot only, as it was ``before``."""

    hive: str
    key: str
    name: str
    before: Value | None
    """None: it was not there."""


@dataclass(slots=True)
class FirstBootPlan:
    """Steps in the order they run; restoring comes after installing, removing the service last.

    ``held`` is what `Context.hold` changed, for an image that is composed again without a boot.
    """

    deadline_seconds: int = 1200
    attempts: int = 3
    steps: list[PlanStep] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)

    def add(
        self,
        verb: str,
        *arguments: str,
        required: bool = True,
        control_sets: tuple[str, ...] = (),
    ) -> None:
        """Add a step; who writes the plan sees to it that there are at most `MAX_STEPS`.

        Raises:
            InputError: an argument could mean something to a command shell.
        """
        for argument in arguments:
            if not _ARGUMENT.fullmatch(argument):
                raise InputError(f"Bad first-boot argument '{argument}': needed a plain name.")
        number = len(self.steps) + 1
        self.steps.append(PlanStep(number, required, verb, arguments, control_sets))

    def ordered(self) -> FirstBootPlan:
        """Return the plan with steps in running order, numbered anew."""
        order = {verb: place for place, verb in enumerate(VERBS)}
        plan = FirstBootPlan(self.deadline_seconds, self.attempts, held=list(self.held))
        for step in sorted(self.steps, key=lambda step: (order[step.verb], step.number)):
            plan.add(
                step.verb,
                *step.arguments,
                required=step.required,
                control_sets=step.control_sets,
            )
        return plan

    def render(self) -> bytes:
        """Return plan.txt."""
        head = [HEADER, f"deadline {self.deadline_seconds}", f"attempts {self.attempts}"]
        lines = head + [step.line() for step in self.steps]
        return "".join(line + "\r\n" for line in lines).encode("ascii")


def parse_plan(data: bytes) -> FirstBootPlan:
    """Read plan.txt.

    Raises:
        InputError: it is none.
    """
    lines = data.decode("ascii", "replace").split("\r\n")
    if lines[0] != HEADER or len(lines) < 3:
        raise InputError(f"Bad first-boot plan: found '{lines[0][:40]}', needed '{HEADER}'.")
    plan = FirstBootPlan(_number(lines[1], "deadline"), _number(lines[2], "attempts"))
    for line in filter(None, lines[3:]):
        words = line.split(" ")
        is_known = len(words) > 2 and words[1] in {"required", "optional"} and words[2] in VERBS
        if not is_known or len(words) - 3 not in _COUNTS.get(words[2], (1,)):
            raise InputError(f"Bad first-boot plan: found line '{line[:80]}'.")
        plan.add(words[2], *words[3:], required=words[1] == "required")
    if len(plan.steps) > MAX_STEPS:
        raise InputError(f"Bad first-boot plan: found {len(plan.steps)} steps, needed {MAX_STEPS}.")
    return plan


def read_plan(files: GuestFiles) -> FirstBootPlan:
    """Read the guest's plan.txt.

    Raises:
        InputError: it is none.
        EngineFailed: it is not there.
    """
    return parse_plan(files.read(PLAN_FILE, _MAX_PLAN_BYTES))


def _number(line: str, key: str) -> int:
    name, _, text = line.partition(" ")
    if name != key or not re.fullmatch(r"[0-9]{1,9}", text):
        raise InputError(f"Bad first-boot plan: found '{line[:40]}', needed '{key} NUMBER'.")
    return int(text)
