r"""``firstboot.cmd``: the plan as plain text for cmd.exe, runnable without any helper program.

``texts/firstboot.cmd`` is the text, in which three lines stand for what a plan brings. Rules that
keep it free of cmd.exe's traps: delayed expansion is off (paths may hold ``!``); no variable is set
and read within one block, because cmd expands a block before it runs it, so there are labels
instead of blocks; redirections stand before ``echo`` (``echo 1>file`` would redirect handle 1);
ERRORLEVEL is kept before anything else, because ``set`` resets it in a .cmd file (though not in a
.bat); only names checked by `FirstBootPlan.add` are written into it.

The service manager ends a process that never reports itself as started, so the service process
only starts two children, which live on: ``run`` does the steps, ``watch`` keeps the deadline.
"""

from __future__ import annotations

import pkgutil

from imageport.compose.first_boot.plan import (
    ADD_DRIVER,
    CLOSING_VERBS,
    INSTALL_AGENT,
    PROGRAM_VERBS,
    REMOVE_DRIVER,
    REMOVE_OVERRIDE,
    REMOVE_SERVICE,
    RESET_WINSOCK,
    RESTORE_SERVICE,
    RESTORE_VALUE,
    SET_EMS,
    WAIT_DEVICES,
    FirstBootPlan,
    PlanStep,
)
from imageport.errors import EngineFailed

IMAGE_PATH = "%SystemRoot%\\System32\\cmd.exe /d /c %SystemRoot%\\ImageportFirstBoot\\firstboot.cmd"
MAX_RESTARTS = 8
"""Restarts that steps may ask for in all; an installation of Citrix' software takes one or two."""
_AGENT_SECONDS = 600
"""Half of the default deadline: the agent is optional, so most of the boot is not its own."""
_CALLED = {
    WAIT_DEVICES: "wait_devices",
    ADD_DRIVER: "add_driver",
    REMOVE_DRIVER: "remove_driver",
    RESET_WINSOCK: "reset_winsock",
    SET_EMS: "set_ems",
}
"""Verbs that are one label of the script, which takes the plan's own arguments."""


def render_script(plan: FirstBootPlan, control_sets: tuple[str, ...]) -> bytes:
    """Return firstboot.cmd for an ordered plan: ASCII, lines ending in CRLF.

    Args:
        plan: as `FirstBootPlan.ordered` returns it.
        control_sets: those that a step acts on which names none.
    """
    lines: list[str] = []
    for line in text("firstboot.cmd").splitlines():
        if line == "rem @settings":
            lines += _settings(plan)
        elif line == "rem @steps":
            lines += [part for step in plan.steps for part in _step(step, plan)]
        elif line == "rem @closing":
            lines += [part for step in plan.steps for part in _closing(step, control_sets)]
        else:
            lines.append(line)
    return carriage_returned("\n".join(lines) + "\n")


def text(name: str) -> str:
    """Return one of the texts that travel with this package; lines end in LF."""
    data = pkgutil.get_data(__package__, f"texts/{name}")
    if data is None:
        raise EngineFailed(f"Cannot read '{name}': the engine does not hold it.")
    return data.decode("ascii")


def carriage_returned(lines: str) -> bytes:
    """Return text as cmd.exe needs it: without CR it loses its labels."""
    return lines.replace("\n", "\r\n").encode("ascii")


def _settings(plan: FirstBootPlan) -> list[str]:
    return [
        f'set "MAX_ATTEMPTS={plan.attempts}"',
        f'set "MAX_RESTARTS={MAX_RESTARTS}"',
        f'set "DEADLINE={plan.deadline_seconds}"',
    ]


def _step(step: PlanStep, plan: FirstBootPlan) -> list[str]:
    """Return the lines of a step of the first half, which goes on where it was after a restart."""
    if step.verb in CLOSING_VERBS:
        return []
    lines = [_begin(step), _work(step, plan), "call :end", 'if not "%NEXT%"=="on" goto %NEXT%']
    if step.verb == WAIT_DEVICES:  # what Plug and Play has found is a matter of this start
        return lines
    number = f"{step.number:02d}"
    return [f"if defined DONE_{number} goto after_{number}", *lines, f":after_{number}"]


def _work(step: PlanStep, plan: FirstBootPlan) -> str:
    if step.verb in PROGRAM_VERBS:
        name, seconds = step.arguments
        return f"call :beside {name} {seconds}"
    if step.verb == INSTALL_AGENT:
        seconds = str(min(_AGENT_SECONDS, plan.deadline_seconds // 2))
        return f"call :beside {INSTALL_AGENT} {seconds} {step.arguments[0]}"
    return " ".join([f"call :{_CALLED[step.verb]}", *step.arguments])


def _closing(step: PlanStep, control_sets: tuple[str, ...]) -> list[str]:
    """Return the lines of a step that ends the boot, in each control set that it acts on."""
    if step.verb not in CLOSING_VERBS:
        return []
    if step.verb == SET_EMS:
        calls = [_ems(step)]
    else:
        calls = [_call(step, name) for name in step.control_sets or control_sets]
    return [_begin(step), *calls, "call :end"]


def _ems(step: PlanStep) -> str:
    state, port, *switches = step.arguments
    if port != "keep":
        return f"call :set_ems {state} {port}"
    command, _, identifier = switches[0].partition(":")
    return f"call :set_ems_switch {state} {command} {identifier}"


def _begin(step: PlanStep) -> str:
    need = "required" if step.required else "optional"
    return f"call :begin {step.number:02d} {need} {step.verb}"


def _call(step: PlanStep, control_set: str) -> str:
    if step.verb == RESTORE_SERVICE:
        name, start = step.arguments
        return f"call :set_dword {control_set}\\Services\\{name} Start {start}"
    if step.verb == RESTORE_VALUE:
        key, name, value = step.arguments
        if value == "absent":
            return f"call :delete_value {control_set}\\{key} {name}"
        return f"call :set_dword {control_set}\\{key} {name} {value.removeprefix('dword:')}"
    if step.verb in {REMOVE_OVERRIDE, REMOVE_SERVICE}:
        below = "\\StartOverride" if step.verb == REMOVE_OVERRIDE else ""
        return f"call :delete_key {control_set}\\Services\\{step.arguments[0]}{below}"
    raise AssertionError(step.verb)
