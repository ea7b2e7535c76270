"""The Virtual Delivery Agent: which Delivery Controllers it registers with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

from imageport.compose.contract import EngineOptions, Refusal, Software, Tier
from imageport.compose.hives.registry import Registry
from imageport.compose.hives.registry_value import Value
from imageport.compose.installers import brings
from imageport.compose.refusals import refusal
from imageport.compose.step import Context, Facts, Step
from imageport.compose.volumes.guest_files import GuestFiles

_KEY = "Citrix\\VirtualDesktopAgent"
_KEY_OF_32_BITS = f"WOW6432Node\\{_KEY}"
_CACHE = "ProgramData/Citrix/PvsAgent/LocallyPersistedData/BrokerAgentInfo"
_CACHED_LIST = re.compile(r"SavedListOf.*\.xml", re.IGNORECASE)
"""Controllers and their SIDs as the last registration gave them: preferred to ListOfDDCs, they
would lead back to the old site."""
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
        is_there = any(facts.registry.key("SOFTWARE", key) for key in vda_keys(facts.registry))
        if facts.inspection.vda_version or is_there or brings(facts.options, Software.VDA):
            return []
        return [refusal("vda_missing", "list_of_ddcs names controllers, and there is no VDA.")]

    def run(self, context: Context) -> None:
        """Set ListOfDDCs in each view of the registry that has the key, drop what is cached."""
        value = Value.text(" ".join(context.options.list_of_ddcs))
        for key in vda_keys(context.registry):
            context.recorder.set_value("SOFTWARE", key, "ListOfDDCs", value)
        for path in cached_controllers(context.files):
            context.recorder.remove(path)


def vda_keys(registry: Registry) -> list[str]:
    """Return the keys of SOFTWARE with the agent's settings: of 64 bits, and of 32 where it is."""
    has_both = registry.key("SOFTWARE", _KEY_OF_32_BITS) is not None
    return [_KEY, _KEY_OF_32_BITS] if has_both else [_KEY]


def cached_controllers(files: GuestFiles) -> Iterator[str]:
    """Yield the files in which the VDA keeps the controllers that it last registered with."""
    for name in files.names(_CACHE):
        if _CACHED_LIST.fullmatch(name):
            yield f"{_CACHE}/{name}"
