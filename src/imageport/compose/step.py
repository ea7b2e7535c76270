"""What a step of composing is: one small unit that says what it does, needs and changes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from imageport.compose.cloud_target import CloudTarget
from imageport.compose.contract import EngineOptions, Inspection, Refusal, Tier
from imageport.compose.drivers.driver_packages import DriverPackage
from imageport.compose.first_boot.plan import FirstBootPlan
from imageport.compose.first_boot.vm_agent import VmAgentPackage
from imageport.compose.hives.registry import Registry
from imageport.compose.recorder import Recorder
from imageport.compose.volumes.guest_files import GuestFiles


@dataclass(slots=True)
class Context:
    """What steps work on.

    ``files`` is an overlay and the hives are copies: nothing a step does reaches the disk before
    all steps have succeeded. ``plan`` collects what first boot has to do.
    """

    options: EngineOptions
    target: CloudTarget
    inspection: Inspection
    registry: Registry
    files: GuestFiles
    packages: tuple[DriverPackage, ...] = ()
    vm_agent: VmAgentPackage | None = None
    plan: FirstBootPlan = field(default_factory=FirstBootPlan)
    recorder: Recorder = field(init=False)

    def __post_init__(self) -> None:
        self.recorder = Recorder(self.registry, self.files)


class Step(ABC):
    """One step; its class docstring's first line is its summary for people.

    ``needs`` and ``provides`` name facts, and `steps.order` checks that each need is provided
    earlier. ``options`` names the fields of `EngineOptions` that the step reads, ``clouds`` the
    targets that it is for, none named meaning all. ``run`` changes hives and files only through
    ``context.recorder``, and may run on a guest that is already so.
    """

    name: ClassVar[str]
    tier: ClassVar[Tier]
    needs: ClassVar[tuple[str, ...]] = ()
    provides: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[tuple[str, ...]] = ()
    clouds: ClassVar[tuple[str, ...]] = ()

    @property
    def summary(self) -> str:
        """Return one sentence for people."""
        return (type(self).__doc__ or "").partition("\n")[0]

    def is_for(self, cloud: str) -> bool:
        """Say whether the step has anything to do for a cloud."""
        return not self.clouds or cloud in self.clouds

    def is_chosen(self, options: EngineOptions) -> bool:
        """Say whether the step runs with these options."""
        wanted = self.tier is Tier.REQUIRED or self.name in options.recommended
        return wanted and self.is_for(options.cloud)

    def problems(self, options: EngineOptions) -> list[str]:
        """Return what is wrong with the options this step reads."""
        del options
        return []

    def guest_problems(self, registry: Registry, target: CloudTarget) -> list[Refusal]:
        """Return why the step cannot do its work in this guest; asked only when it is chosen."""
        del registry, target
        return []

    @abstractmethod
    def run(self, context: Context) -> None:
        """Make the step's changes."""
