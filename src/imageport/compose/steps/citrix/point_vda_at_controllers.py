"""The Virtual Delivery Agent: which Delivery Controllers it registers with."""

from __future__ import annotations

import re
from typing import ClassVar

from imageport.compose.contract import EngineOptions, Tier
from imageport.compose.hives.registry_value import Value
from imageport.compose.step import Context, Step

_KEY = "Citrix\\VirtualDesktopAgent"
_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


class PointVdaAtControllers(Step):
    """Register the VDA with the Delivery Controllers named in the options, if any are."""

    name: ClassVar[str] = "point_vda_at_controllers"
    tier: ClassVar[Tier] = Tier.REQUIRED
    options: ClassVar[tuple[str, ...]] = ("list_of_ddcs",)

    def problems(self, options: EngineOptions) -> list[str]:
        """Refuse names that are no host names: they go into a list separated by spaces."""
        bad = [name for name in options.list_of_ddcs if not _HOST.fullmatch(name)]
        return [f"list_of_ddcs: '{name}' is no host name" for name in bad]

    def run(self, context: Context) -> None:
        """Set ListOfDDCs where a VDA is installed."""
        if context.options.list_of_ddcs and context.registry.key("SOFTWARE", _KEY):
            value = Value.text(" ".join(context.options.list_of_ddcs))
            context.recorder.set_value("SOFTWARE", _KEY, "ListOfDDCs", value)
