"""The clock: what the machine's clock holds, and (chosen) whom to ask."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import Tier
from imageport.compose.registry import service_path
from imageport.compose.registry_value import Value
from imageport.compose.step import Context, Step

_AUTOMATIC = 2


class ReadClockAsUtc(Step):
    """Read the machine's clock as UTC, which is what cloud machines keep."""

    name: ClassVar[str] = "read_clock_as_utc"
    tier: ClassVar[Tier] = Tier.REQUIRED

    def run(self, context: Context) -> None:
        """Set RealTimeIsUniversal in every control set."""
        for control_set in context.registry.control_sets:
            context.recorder.set_value(
                "SYSTEM",
                f"{control_set}\\Control\\TimeZoneInformation",
                "RealTimeIsUniversal",
                Value.dword(1),
            )


class UseCloudTimeServer(Step):
    """Ask the cloud's own time server instead of the domain or the internet."""

    name: ClassVar[str] = "cloud_time_server"
    tier: ClassVar[Tier] = Tier.RECOMMENDED

    def run(self, context: Context) -> None:
        """Point W32Time at it and start W32Time by itself, where the service exists."""
        for control_set in context.registry.control_sets:
            if context.registry.service(control_set, "W32Time") is None:
                continue
            path = service_path(control_set, "W32Time")
            parameters = f"{path}\\Parameters"
            server = f"{context.target.time_server},0x9"
            context.recorder.set_value("SYSTEM", path, "Start", Value.dword(_AUTOMATIC))
            context.recorder.set_value("SYSTEM", parameters, "Type", Value.text("NTP"))
            context.recorder.set_value("SYSTEM", parameters, "NtpServer", Value.text(server))
