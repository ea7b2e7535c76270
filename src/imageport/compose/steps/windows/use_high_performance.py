"""Power: a cloud machine has no battery to spare."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import Refusal, Tier
from imageport.compose.hives.registry_value import Value
from imageport.compose.refusals import refusal
from imageport.compose.step import Context, Facts, Step

HIGH_PERFORMANCE = "8c5e7fda-e8bf-4a96-9a85-a6e23a8c635c"
"""GUID_MIN_POWER_SAVINGS (winnt.h), what ``powercfg /setactive SCHEME_MIN`` chooses."""


class UseHighPerformance(Step):
    """Make "High performance" the active power scheme."""

    name: ClassVar[str] = "high_performance"
    tier: ClassVar[Tier] = Tier.RECOMMENDED
    clouds: ClassVar[tuple[str, ...]] = ("azure",)

    def guest_problems(self, facts: Facts) -> list[Refusal]:
        """Refuse where the scheme is gone: Windows would fall back to another one silently."""
        gone = [
            name
            for name in facts.registry.control_sets
            if facts.registry.key("SYSTEM", f"{_schemes(name)}\\{HIGH_PERFORMANCE}") is None
        ]
        if not gone:
            return []
        return [refusal("no_power_scheme", f"{', '.join(gone)}: no scheme {HIGH_PERFORMANCE}.")]

    def run(self, context: Context) -> None:
        """Set ActivePowerScheme in every control set."""
        for control_set in context.registry.control_sets:
            context.recorder.set_value(
                "SYSTEM", _schemes(control_set), "ActivePowerScheme", Value.text(HIGH_PERFORMANCE)
            )


def _schemes(control_set: str) -> str:
    return f"{control_set}\\Control\\Power\\User\\PowerSchemes"
