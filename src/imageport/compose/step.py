"""What a step of composing is: one small unit that says what it does, needs and changes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from imageport.compose.cloud_target import CloudTarget
from imageport.compose.contract import EngineOptions, Inspection, Refusal, Tier
from imageport.compose.drivers.driver_packages import DriverPackage
from imageport.compose.first_boot.plan import FirstBootPlan, Held
from imageport.compose.first_boot.vm_agent import VmAgentPackage
from imageport.compose.hives.registry import Registry
from imageport.compose.hives.registry_value import Value
from imageport.compose.installers import InstallerPackage
from imageport.compose.recorder import Recorder
from imageport.compose.volumes.guest_files import GuestFiles
from imageport.compose.volumes.uefi_layout import UefiPlan


@dataclass(slots=True)
class Facts:
    """What a step decides by.

    ``boot_files`` is the volume that firmware starts from: the EFI partition, or the active one of
    an MBR disk, which may be the Windows volume itself (then it is ``files``); None when there is
    none to read. ``payload`` is the operator's folder, in which ``packages``, ``vm_agent`` and
    ``installers`` were found. ``uefi`` is how an MBR disk becomes a GPT one, None when that is not
    asked for or is so already; while steps run, ``inspection`` and ``boot_files`` are then those of
    the disk as it will be.
    """

    options: EngineOptions
    target: CloudTarget
    inspection: Inspection
    registry: Registry
    files: GuestFiles
    boot_files: GuestFiles | None = None
    payload: Path | None = None
    packages: tuple[DriverPackage, ...] = ()
    vm_agent: VmAgentPackage | None = None
    uefi: UefiPlan | None = None
    installers: tuple[InstallerPackage, ...] = ()


@dataclass(slots=True)
class Context(Facts):
    """What steps work on.

    The files are overlays and the hives are copies: nothing a step does reaches the disk before
    all steps have succeeded. ``plan`` collects what first boot has to do.
    """

    plan: FirstBootPlan = field(default_factory=FirstBootPlan)
    recorder: Recorder = field(init=False)

    def __post_init__(self) -> None:
        self.recorder = Recorder(
            self.registry, self.files, self.boot_files, firmware=self.inspection.firmware
        )

    def hold(self, hive: str, key: str, name: str, value: Value) -> None:
        """Set a value for the one boot only; a step of the plan puts back what was there."""
        self.remember(hive, key, name)
        self.recorder.set_value(hive, key, name, value)

    def remember(self, hive: str, key: str, name: str) -> None:
        """Keep a value that is about to be changed for the one boot only.

        Composing again without a boot in between puts it back before any step looks.
        """
        self.plan.held.append(Held(hive, key, name, self.registry.value(hive, key, name)))


class Step(ABC):
    """One step; its class docstring's first line is its summary for people.

    ``needs`` and ``provides`` name facts, and `steps.order` checks that each need is provided
    earlier. ``options`` names the fields of `EngineOptions` that the step reads, ``clouds`` the
    targets that it is for, none named meaning all. ``run`` changes hives and files only through
    ``context.recorder``, and on a guest that is already so it changes nothing.
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
        """Say whether the options let the step run."""
        wanted = self.tier is Tier.REQUIRED or self.name in options.recommended
        return wanted and self.is_for(options.cloud)

    def reason(self, facts: Facts) -> str:
        """Return why a chosen step runs on this guest, "" when it has nothing to do there."""
        del facts
        return "always" if self.tier is Tier.REQUIRED else "asked for"

    def problems(self, options: EngineOptions) -> list[str]:
        """Return what is wrong with the options this step reads."""
        del options
        return []

    def guest_problems(self, facts: Facts) -> list[Refusal]:
        """Return why the step cannot do its work in this guest; asked only when it is chosen."""
        del facts
        return []

    @abstractmethod
    def run(self, context: Context) -> None:
        """Make the step's changes."""
