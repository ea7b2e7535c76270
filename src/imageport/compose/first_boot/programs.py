"""Programs of the first-boot folder that are the engine's own: plain text, by the plan's verbs."""

from __future__ import annotations

from imageport.compose.first_boot.plan import (
    INSTALL_AGENT,
    PROGRAM_VERBS,
    PROGRAMS,
    WAIT_DEVICES,
    FirstBootPlan,
)
from imageport.compose.first_boot.script import carriage_returned, text

_OWN = {
    WAIT_DEVICES: ("wait-devices.cmd", "wait-devices.ps1"),
    INSTALL_AGENT: ("install-vm-agent.cmd",),
}


def own_programs(plan: FirstBootPlan) -> dict[str, bytes]:
    """Return path and content of the programs that the plan's verbs bring with them."""
    names = sorted({name for step in plan.steps for name in _OWN.get(step.verb, ())})
    return {f"{PROGRAMS}/{name}": carriage_returned(text(name)) for name in names}


def needed_programs(plan: FirstBootPlan) -> list[str]:
    """Return the path of every program that the plan runs; without them its steps fail."""
    named = [step.arguments[0] for step in plan.steps if step.verb in PROGRAM_VERBS]
    return sorted({*own_programs(plan), *(f"{PROGRAMS}/{name}.cmd" for name in named)})
