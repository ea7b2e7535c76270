"""The Virtual Delivery Agent: which Delivery Controllers it registers with."""

from __future__ import annotations

import re
from typing import ClassVar

from imageport.compose.contract import EngineOptions, Refusal, Software, Tier
from imageport.compose.hives.registry_value import Value
from imageport.compose.installers import brings
from imageport.compose.refusals import refusal
from imageport.compose.step import Context, Facts, Step

_KEY = "Citrix\\VirtualDesktopAgent"
_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


class PointVdaAtControllers(Step):
    """Register the VDA with the Delivery Controllers named in the options.

    One that an installer brings at first boot finds the list there, as one that is upgraded does.
    """

    name: ClassVar[str] = "point_vda_at_controllers"
    tier: ClassVar[Tier] = Tier.REQUIRED
    options: ClassVar[tuple[str, ...]] = ("list_of_ddcs", "installers")

    def is_chosen(self, options: EngineOptions) -> bool:
        """Say whether the option names any."""
        return bool(options.list_of_ddcs)

    def problems(self, options: EngineOptions) -> list[str]:
        """Refuse names that are no host names: they go into a list separated by spaces."""
        bad = [name for name in options.list_of_ddcs if not _HOST.fullmatch(name)]
        return [f"list_of_ddcs: '{name}' is no host name" for name in bad]

    def reason(self, facts: Facts) -> str:
        """Name them."""
        return "asked for: " + ", ".join(facts.options.list_of_ddcs)

    def guest_problems(self, facts: Facts) -> list[Refusal]:
        """Refuse where there is no VDA, and no installer brings one."""
        is_there = facts.inspection.vda_version or facts.registry.key("SOFTWARE", _KEY)
        if is_there or brings(facts.options, Software.VDA):
            return []
        return [refusal("vda_missing", "list_of_ddcs names controllers, and there is no VDA.")]

    def run(self, context: Context) -> None:
        """Set ListOfDDCs."""
        value = Value.text(" ".join(context.options.list_of_ddcs))
        context.recorder.set_value("SOFTWARE", _KEY, "ListOfDDCs", value)
