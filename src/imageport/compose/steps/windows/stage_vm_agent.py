"""The Azure VM agent from the operator's folder, for first boot to install."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import EngineOptions, Refusal, Tier
from imageport.compose.first_boot.plan import FOLDER, INSTALL_AGENT
from imageport.compose.guest_facts.software import DOTNET
from imageport.compose.refusals import refusal
from imageport.compose.step import Context, Facts, Step
from imageport.compose.volumes.descriptors import Access


class StageVmAgent(Step):
    """Put the Azure VM agent's installer where first boot runs it; its failure is never fatal."""

    name: ClassVar[str] = "azure_vm_agent"
    tier: ClassVar[Tier] = Tier.RECOMMENDED
    needs: ClassVar[tuple[str, ...]] = ("first-boot-folder",)
    provides: ClassVar[tuple[str, ...]] = ("agent-staged",)
    options: ClassVar[tuple[str, ...]] = ("azure_vm_agent",)
    clouds: ClassVar[tuple[str, ...]] = ("azure",)

    def is_chosen(self, options: EngineOptions) -> bool:
        """Say whether the option names an installer: it is chosen by that, not by its name."""
        return bool(options.azure_vm_agent) and self.is_for(options.cloud)

    def problems(self, options: EngineOptions) -> list[str]:
        """Refuse an installer for another cloud."""
        if options.azure_vm_agent and not self.is_for(options.cloud):
            return [f"azure_vm_agent: '{options.azure_vm_agent}' is for azure, not {options.cloud}"]
        return []

    def guest_problems(self, facts: Facts) -> list[Refusal]:
        """Refuse a guest in which the agent could not run."""
        if facts.registry.number("SOFTWARE", DOTNET, "Install") == 1:
            return []
        return [
            refusal("dotnet_missing", ".NET Framework 4 is not installed; the VM agent needs it.")
        ]

    def run(self, context: Context) -> None:
        """Add the installer and an optional step of the plan."""
        package = context.vm_agent
        if package is None:
            return
        context.recorder.add_folder(f"{FOLDER}/agent", Access.ADMINISTRATORS_ONLY)
        context.recorder.add_file(
            f"{FOLDER}/agent/{package.name}",
            package.path.read_bytes(),
            Access.ADMINISTRATORS_ONLY,
        )
        context.plan.add(INSTALL_AGENT, package.name, required=False)
