"""What the operator chooses for the prepare stage, as a form; equal to the engine's options.

All but ``cloud``: the target block says which one it is, so nobody can choose another.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from imageport.compose.cloud_target import TARGETS
from imageport.compose.contract import EngineOptions, Installer, OwnPoint, OwnStep, Software
from imageport.workflow.choices import PrepareChoices

BOOT_MARGIN_SECONDS = 1800.0
"""Firmware, Plug and Play and shutdown around the steps, which have a deadline of their own."""


class TargetProvisioning(StrEnum):
    """How machines run from the image at the target."""

    PVS = "pvs"


class Rearm(StrEnum):
    """Whether licences get a new grace period at first boot."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class SerialConsole(StrEnum):
    """Emergency management services at the end."""

    KEEP = "keep"
    ON = "on"
    OFF = "off"


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InstallerOptions(_Options):
    """Software of the payload that first boot installs, silently."""

    software: Software = Field(
        description="What it brings: the verdict knows what each must leave behind."
    )
    name: str = Field(min_length=1, description="Name for log and report.")
    version: str = Field(
        min_length=1,
        description="Version that must be there afterwards, or its beginning in whole numbers.",
    )
    sha256: str = Field(
        pattern=r"^[0-9a-fA-F]{64}$", description="Digest that the program must have."
    )
    path: str = Field(
        min_length=1,
        description="Program or MSI inside the source site's payload; one below aws/, azure/ or "
        "gcp/ counts for that cloud only.",
    )
    arguments: tuple[str, ...] = Field(
        default=(),
        description="What the program gets, beside what an MSI is started with. No passwords: "
        "every API client reads run parameters.",
    )
    restart_codes: tuple[str, ...] = Field(
        default=("3010", "1641"),
        description="Exit codes that mean: installed, a restart completes it.",
    )
    timeout_seconds: int = Field(default=1800, ge=1, description="How long it may take.")


class OwnStepOptions(_Options):
    """A step of your own, from the payload."""

    point: OwnPoint = Field(description="When it runs.")
    path: str = Field(
        min_length=1,
        description="File inside the source site's payload; one below aws/, azure/ or gcp/ "
        "counts for that cloud only.",
    )
    required: bool = Field(default=False, description="Whether its failure ends the run.")
    timeout_seconds: int = Field(default=600, ge=1, description="How long it may take.")


class PrepareOptions(_Options):
    """Options of the compositing engine."""

    provisioning: TargetProvisioning = Field(
        default=TargetProvisioning.PVS, description="How machines run from the image there."
    )
    list_of_ddcs: tuple[str, ...] = Field(
        default=(),
        title="Delivery Controllers",
        description="Delivery Controllers for the VDA; empty leaves the image's own list alone.",
    )
    recommended: tuple[str, ...] = Field(
        default=(),
        title="Recommended steps",
        description="Names of recommended steps to run as well; required steps always run.",
    )
    drivers: tuple[str, ...] = Field(
        default=(),
        title="Driver folders",
        description="Folders inside the source site's payload that hold driver packages; one "
        "below aws/, azure/ or gcp/ counts for that cloud only.",
    )
    required_nic_ids: tuple[str, ...] = Field(
        default=(),
        title="Network adapters",
        description="Hardware ids of which one must have a driver; empty takes the cloud's own.",
    )
    first_boot_deadline_seconds: int = Field(
        default=1200, ge=60, le=7200, description="How long the steps of the one boot may take."
    )
    first_boot_attempts: int = Field(
        default=3, ge=1, le=10, description="How often a step of the one boot is tried."
    )
    azure_vm_agent: str = Field(
        default="",
        title="Azure VM agent",
        description="The Azure VM agent's installer inside the source site's payload, for images "
        "in Azure; empty installs none.",
    )

    installers: tuple[InstallerOptions, ...] = Field(
        default=(), description="Software that first boot installs, in this order."
    )
    own_steps: tuple[OwnStepOptions, ...] = Field(
        default=(), title="Own steps", description="Steps of your own, in this order."
    )
    vda_reconfigure: tuple[str, ...] = Field(
        default=(),
        title="VDA reconfiguration",
        description="Arguments for XenDesktopVdaSetup /reconfigure at first boot; empty: not run. "
        "No passwords: every API client reads run parameters.",
    )
    rearm: Rearm = Field(
        default=Rearm.AUTO,
        description="New licence grace for Windows and volume Office at first boot: auto means for "
        "Provisioning; never the last one that is left.",
    )
    leave_domain: bool = Field(
        default=False,
        description="Leave the domain at first boot; the account in the directory stays.",
    )
    serial_console: SerialConsole = Field(
        default=SerialConsole.KEEP,
        description="Emergency management services at the end; while preparing they are off.",
    )
    convert_to_uefi: bool = Field(
        default=False,
        title="Convert to UEFI",
        description="Turn an MBR disk that boots by BIOS into GPT and UEFI.",
    )
    leave_no_trace: bool = Field(
        default=False, description="Take the first-boot folder away after the verdict."
    )

    def choices(self, cloud: str) -> PrepareChoices:
        """Return the library's own options for a cloud."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        nested = {
            "drivers": self._drivers_of(cloud) or self.drivers,
            "azure_vm_agent": self.azure_vm_agent if cloud == "azure" else "",
            "installers": tuple(Installer(**dict(one)) for one in _of(cloud, self.installers)),
            "own_steps": tuple(OwnStep(**dict(one)) for one in _of(cloud, self.own_steps)),
        }
        defaults = PrepareChoices()
        # The engine's deadline counts for each try.
        tries = self.first_boot_deadline_seconds * self.first_boot_attempts
        boot_seconds = tries + BOOT_MARGIN_SECONDS
        return replace(
            defaults,
            engine=EngineOptions(**{**values, **nested}, cloud=cloud),
            boot_deadline_seconds=max(defaults.boot_deadline_seconds, boot_seconds),
        )

    def uses_payload(self, cloud: str) -> bool:
        """Tell whether the operator's files matter: not if all that is named is another cloud's.

        No driver folder at all means the drivers of the whole payload.
        """
        named = (
            self._drivers_of(cloud),
            cloud == "azure" and self.azure_vm_agent,
            _of(cloud, self.installers),
            _of(cloud, self.own_steps),
        )
        return not self.drivers or any(named)

    def _drivers_of(self, cloud: str) -> tuple[str, ...]:
        return tuple(name for name in self.drivers if _is_for(cloud, name))


class _Named(Protocol):
    @property
    def path(self) -> str:
        """Return the path inside the payload."""


Named = TypeVar("Named", bound=_Named)


def _of(cloud: str, items: tuple[Named, ...]) -> tuple[Named, ...]:
    return tuple(item for item in items if _is_for(cloud, item.path))


def _is_for(cloud: str, name: str) -> bool:
    """Tell whether a path of the payload counts for a cloud: not below another one's folder."""
    first = PurePosixPath(name.replace("\\", "/")).parts[0].lower() if name else ""
    return first not in {other for other in TARGETS if other != cloud}
