"""The DVD drive, through which Azure hands a new machine its settings."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import Tier
from imageport.compose.hives.registry import DISABLED, service_path
from imageport.compose.hives.registry_value import Value
from imageport.compose.step import Context, Step

_SYSTEM_START = 1


class EnableDvdDrive(Step):
    """Enable the DVD drive's driver where it was disabled: Azure hands over settings on a disc."""

    name: ClassVar[str] = "enable_dvd_drive"
    tier: ClassVar[Tier] = Tier.REQUIRED
    clouds: ClassVar[tuple[str, ...]] = ("azure",)

    def run(self, context: Context) -> None:
        """Let cdrom start as Windows installs it, in every control set that disables it."""
        for control_set in context.registry.control_sets:
            if context.registry.start_of(control_set, "cdrom") == DISABLED:
                path = service_path(control_set, "cdrom")
                context.recorder.set_value("SYSTEM", path, "Start", Value.dword(_SYSTEM_START))
