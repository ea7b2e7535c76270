"""How the tools of any source platform are removed; one step for each platform says which."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import Tier
from imageport.compose.first_boot.plan import RESET_WINSOCK
from imageport.compose.step import Context, Facts, Step
from imageport.compose.steps.source.control_set_removal import ControlSetRemoval
from imageport.compose.steps.source.old_tools import OldTools, find_old_tools, old_files
from imageport.compose.steps.source.platform_files import empty_parents
from imageport.compose.steps.source.platform_packages import forget_packages
from imageport.compose.steps.source.platform_software import SoftwareRemoval, old_classes
from imageport.compose.steps.source.source_platform import SourcePlatform
from imageport.compose.steps.source.winsock_catalog import remove_providers


class RemovePlatform(Step):
    """Remove one platform's guest tools, where they are."""

    tier: ClassVar[Tier] = Tier.REQUIRED
    platform: ClassVar[SourcePlatform]

    def reason(self, facts: Facts) -> str:
        """Return what was found and what of it stays."""
        tools = find_old_tools(facts, self.platform)
        return tools.summary() if tools.is_there else ""

    def run(self, context: Context) -> None:
        """Remove what leads to a service before the service, and a driver's file last."""
        tools = find_old_tools(context, self.platform)
        paths = old_files(context, tools)
        removals = [_removal(context, tools, name) for name in context.registry.control_sets]
        for removal in removals:
            removal.strip_filters()
        libraries = frozenset(path.rpartition("/")[2].lower() for path in paths)
        classes = old_classes(context.registry, self.platform)
        for removal in removals:
            self._from_control_set(context, removal, libraries, classes)
        self.mend(context)
        forget_packages(context.registry, context.recorder, tools.gone_packages)
        software = SoftwareRemoval(
            context.registry, context.recorder, self.platform, tools.software, classes
        )
        software.stop_autostart()
        software.forget_classes()
        software.forget_products()
        software.forget_folders()
        for path in paths:
            context.recorder.remove(path)
        for path in list(empty_parents(context.files, self.platform)):
            context.recorder.remove(path)

    def mend(self, context: Context) -> None:
        """Do what a platform needs beyond the others; its services are gone by then."""

    def _from_control_set(
        self,
        context: Context,
        removal: ControlSetRemoval,
        libraries: frozenset[str],
        classes: frozenset[str],
    ) -> None:
        removal.strip_network_providers()
        providers = frozenset(self.platform.winsock_libraries)
        if not remove_providers(context.registry, context.recorder, removal.control_set, providers):
            _reset_winsock(context)
        removal.mend_dependencies()
        removal.strip_co_installers(libraries)
        removal.delete_snapshot_providers(classes)
        removal.forget_traces()
        removal.delete_services()
        removal.forget_devices()
        removal.disown()


def _reset_winsock(context: Context) -> None:
    if all(step.verb != RESET_WINSOCK for step in context.plan.steps):
        context.plan.add(RESET_WINSOCK, required=True)


def _removal(context: Context, tools: OldTools, control_set: str) -> ControlSetRemoval:
    return ControlSetRemoval(
        context.registry,
        context.recorder,
        tools.platform,
        control_set,
        tools.services[control_set],
        tools.gone(control_set),
        frozenset(name for package in tools.gone_packages for name in package.owner_names),
    )
