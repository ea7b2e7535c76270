"""Storage drivers that the target's machines boot from."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.cloud_target import INBOX_STORAGE
from imageport.compose.contract import Tier
from imageport.compose.registry import service_path
from imageport.compose.registry_value import Value
from imageport.compose.step import Context, Step

BOOT_START = 0


class EnableBootDrivers(Step):
    """Let Windows' own storage drivers for the target start at boot, in every control set."""

    name: ClassVar[str] = "enable_boot_drivers"
    tier: ClassVar[Tier] = Tier.REQUIRED
    needs: ClassVar[tuple[str, ...]] = ("vmware-idle",)
    provides: ClassVar[tuple[str, ...]] = ("boot-storage",)

    def run(self, context: Context) -> None:
        """Set Start 0 on the target's drivers; drop StartOverride from all in-box storage.

        A StartOverride of 3 lies under every driver that the old hardware did not use, and keeps
        it from starting at boot whatever Start says.
        """
        registry, recorder = context.registry, context.recorder
        wanted = (*context.target.boot_drivers, *context.target.old_boot_drivers)
        for control_set in registry.control_sets:
            for driver in dict.fromkeys((*INBOX_STORAGE, *wanted)):
                path = service_path(control_set, driver)
                if registry.service(control_set, driver) is None:
                    continue
                if driver in wanted:
                    recorder.set_value("SYSTEM", path, "Start", Value.dword(BOOT_START))
                recorder.delete_key("SYSTEM", f"{path}\\StartOverride")
