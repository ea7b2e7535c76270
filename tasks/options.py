"""What the operator chooses for the prepare stage, as a form; equal to the engine's options.

All but ``cloud``: the target block says which one it is, so nobody can choose another.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict, Field

from imageport.clouds.registry import CLOUDS
from imageport.compose.contract import EngineOptions
from imageport.workflow.choices import PrepareChoices

BOOT_MARGIN_SECONDS = 1800.0
"""Firmware, Plug and Play and shutdown around the steps, which have a deadline of their own."""


class TargetProvisioning(StrEnum):
    """How machines run from the image at the target."""

    PVS = "pvs"


class PrepareOptions(BaseModel):
    """Options of the compositing engine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
        "below aws/ or azure/ counts for that cloud only.",
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

    def choices(self, cloud: str) -> PrepareChoices:
        """Return the library's own options for a cloud."""
        values = self.model_dump(mode="json") | self._payload_for(cloud)
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        defaults = PrepareChoices()
        # The engine's deadline counts for each try.
        tries = self.first_boot_deadline_seconds * self.first_boot_attempts
        boot_seconds = tries + BOOT_MARGIN_SECONDS
        return replace(
            defaults,
            engine=EngineOptions(**{**values, **lists}, cloud=cloud),
            boot_deadline_seconds=max(defaults.boot_deadline_seconds, boot_seconds),
        )

    def uses_payload(self, cloud: str) -> bool:
        """Tell whether the operator's files matter: not if all that is named is another cloud's."""
        agent = cloud == "azure" and self.azure_vm_agent
        return bool(not self.drivers or self._drivers_of(cloud) or agent)

    def _payload_for(self, cloud: str) -> dict[str, tuple[str, ...] | str]:
        # No name at all would mean the whole payload: foreign names stay, and bring nothing.
        drivers = self._drivers_of(cloud) or self.drivers
        agent = self.azure_vm_agent if cloud == "azure" else ""
        return {"drivers": drivers, "azure_vm_agent": agent}

    def _drivers_of(self, cloud: str) -> tuple[str, ...]:
        others = {name for name in CLOUDS if name != cloud}
        return tuple(name for name in self.drivers if _first_folder(name) not in others)


def _first_folder(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).parts[0].lower() if name else ""
