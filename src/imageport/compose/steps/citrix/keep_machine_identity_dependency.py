"""Machine identity: the workstation service waits for Citrix' agent, where there is one.

Without that dependency the agent misses a change of the machine's password, and the domain no
longer trusts the machine; with it but without the agent the workstation service does not start.
"""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import Tier
from imageport.compose.guest_paths import guest_path
from imageport.compose.hives.registry import DISABLED, Registry, service_path
from imageport.compose.hives.registry_value import Value
from imageport.compose.step import Context, Facts, Step
from imageport.compose.steps.citrix.provisioning_state import (
    IDENTITY_AGENT,
    WORKSTATION,
    dependencies_of,
)
from imageport.compose.volumes.guest_files import GuestFiles


class KeepMachineIdentityDependency(Step):
    """Let the workstation service wait for the machine identity agent exactly where it can start.

    A set of services in which the workstation service does not exist is left alone.
    """

    name: ClassVar[str] = "keep_machine_identity_dependency"
    tier: ClassVar[Tier] = Tier.REQUIRED

    def reason(self, facts: Facts) -> str:
        """Say in which control sets the dependency is wrong, and how."""
        wrong = wrong_dependencies(facts.registry, facts.files)
        said = {True: "lacks", False: "dangles in"}
        return "; ".join(f"{name} {said[is_needed]} it" for name, is_needed in wrong)

    def run(self, context: Context) -> None:
        """Add or take away the agent in what the service depends on; the others stay."""
        for control_set, is_needed in wrong_dependencies(context.registry, context.files):
            names = dependencies_of(context.registry, control_set, WORKSTATION)
            kept = [name for name in names if name.lower() != IDENTITY_AGENT.lower()]
            wanted = [*kept, IDENTITY_AGENT] if is_needed else kept
            path = service_path(control_set, WORKSTATION)
            context.recorder.set_value("SYSTEM", path, "DependOnService", Value.texts(wanted))


def wrong_dependencies(registry: Registry, files: GuestFiles) -> list[tuple[str, bool]]:
    """Return (control set, whether the dependency is missing rather than dangling)."""
    wrong = []
    for control_set in registry.control_sets:
        if registry.service(control_set, WORKSTATION) is None:
            continue
        names = [n.lower() for n in dependencies_of(registry, control_set, WORKSTATION)]
        can_start = agent_can_start(registry, files, control_set)
        if can_start is not (IDENTITY_AGENT.lower() in names):
            wrong.append((control_set, can_start))
    return wrong


def agent_can_start(registry: Registry, files: GuestFiles, control_set: str) -> bool:
    """Say whether the agent is a service of that control set, not disabled, with its program."""
    if registry.start_of(control_set, IDENTITY_AGENT) in {None, DISABLED}:
        return False
    image = registry.text("SYSTEM", service_path(control_set, IDENTITY_AGENT), "ImagePath")
    return bool(image) and files.exists(guest_path(image))
