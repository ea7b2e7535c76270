# References: GoogleCloudPlatform/compute-image-import (translate.ps1).
"""Disks of Google Cloud: their physical sectors, which Windows learns only when the driver asks."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import Tier
from imageport.compose.hives.registry import service_path
from imageport.compose.hives.registry_value import Value
from imageport.compose.step import Context, Facts, Step

_DRIVER = "vioscsi"


class QueryDiskAlignment(Step):
    """Let Windows ask for the disks' physical sector size, by which it aligns what it writes."""

    name: ClassVar[str] = "query_disk_alignment"
    tier: ClassVar[Tier] = Tier.RECOMMENDED
    clouds: ClassVar[tuple[str, ...]] = ("gcp",)

    def reason(self, facts: Facts) -> str:
        """Run where the driver is installed; on NVMe machines there is none."""
        sets = facts.registry.control_sets
        is_there = any(facts.registry.service(name, _DRIVER) is not None for name in sets)
        return "asked for" if is_there else ""

    def run(self, context: Context) -> None:
        """Set the driver's parameter in every control set that has the driver."""
        for control_set in context.registry.control_sets:
            if context.registry.service(control_set, _DRIVER) is None:
                continue
            path = f"{service_path(control_set, _DRIVER)}\\Parameters\\Device"
            name, value = "EnableQueryAccessAlignment", Value.dword(1)
            context.recorder.set_value("SYSTEM", path, name, value)
