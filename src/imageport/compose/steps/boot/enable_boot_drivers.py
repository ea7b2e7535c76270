# References: Azure/SAP-on-Azure-Scripts-and-Utilities, issue 147: on a machine with SCSI disks
# Windows puts a StartOverride under vpci, and does not start from NVMe disks until it is gone.
"""Drivers on the way to the disk that the target's machines boot from."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.cloud_target import INBOX_STORAGE
from imageport.compose.contract import Tier
from imageport.compose.first_boot.plan import REMOVE_OVERRIDE
from imageport.compose.hives.registry import service_path
from imageport.compose.hives.registry_value import Value
from imageport.compose.step import Context, Step

BOOT_START = 0


class EnableBootDrivers(Step):
    """Let Windows' own drivers on the way to the disk start at boot, in every control set."""

    name: ClassVar[str] = "enable_boot_drivers"
    tier: ClassVar[Tier] = Tier.REQUIRED
    provides: ClassVar[tuple[str, ...]] = ("boot-storage",)

    def run(self, context: Context) -> None:
        """Set Start 0 on the target's drivers; drop StartOverride from all in-box storage.

        A StartOverride of 3 lies under every driver that the old hardware did not use, and keeps
        it from starting at boot whatever Start says. The one boot leaves new ones under the drivers
        that its own machine had no use for, so first boot removes them again: machines of another
        size may need just those.
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
        current = registry.current_control_set
        brought = {s.name.lower() for package in context.packages for s in package.inf.services}
        for driver in wanted:
            # One that a package brings is not there yet, and gets its override all the same.
            if registry.service(current, driver) is not None or driver in brought:
                context.plan.add(REMOVE_OVERRIDE, driver)
