# References: Microsoft, Time sync for Windows VMs in Azure (host-only time sync); AWS, default NTP
# settings of Windows AMIs; GoogleCloudPlatform/compute-image-import (translate.ps1).
"""The clock: what the machine's clock holds, and (chosen) whom to ask."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import Refusal, Tier
from imageport.compose.hives.registry import service_path
from imageport.compose.hives.registry_value import Value
from imageport.compose.refusals import refusal
from imageport.compose.step import Context, Facts, Step

_AUTOMATIC = 2
_HOST, _CLIENT = "VMICTimeProvider", "NtpClient"
_POLL_SECONDS = 900
"""What Amazon's and Google's own images ask by; a workgroup's default is nine hours."""


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

    def guest_problems(self, facts: Facts) -> list[Refusal]:
        """Refuse where the host is to tell the time and Windows' part that listens is gone."""
        if facts.target.time_server:
            return []
        gone = [
            control_set
            for control_set in facts.registry.control_sets
            if facts.registry.service(control_set, "W32Time") is not None
            and not facts.registry.text("SYSTEM", _provider(control_set, _HOST), "DllName")
        ]
        if not gone:
            return []
        reason = f"{', '.join(gone)}: W32Time has no {_HOST}, through which the host tells the time"
        return [refusal("no_host_time", f"{reason}.")]

    def run(self, context: Context) -> None:
        """Point W32Time at it and start W32Time by itself, where the service exists."""
        for control_set in context.registry.control_sets:
            if context.registry.service(control_set, "W32Time") is None:
                continue
            path = service_path(control_set, "W32Time")
            context.recorder.set_value("SYSTEM", path, "Start", Value.dword(_AUTOMATIC))
            if context.target.time_server:
                _ask_server(context, control_set)
            else:
                _listen_to_host(context, control_set)


def _ask_server(context: Context, control_set: str) -> None:
    """Ask by the flag 0x9: a client, by the special interval."""
    parameters = f"{service_path(control_set, 'W32Time')}\\Parameters"
    server = f"{context.target.time_server},0x9"
    context.recorder.set_value("SYSTEM", parameters, "Type", Value.text("NTP"))
    context.recorder.set_value("SYSTEM", parameters, "NtpServer", Value.text(server))
    client = _provider(control_set, _CLIENT)
    if context.registry.key("SYSTEM", client) is not None:
        # It is off in an image that took the time from its host.
        context.recorder.set_value("SYSTEM", client, "Enabled", Value.dword(1))
        interval = Value.dword(_POLL_SECONDS)
        context.recorder.set_value("SYSTEM", client, "SpecialPollInterval", interval)


def _listen_to_host(context: Context, control_set: str) -> None:
    """Take the host's time only: Hyper-V's provider on, the one that asks over the network off."""
    for provider, enabled in ((_HOST, 1), (_CLIENT, 0)):
        path = _provider(control_set, provider)
        if context.registry.key("SYSTEM", path) is not None:
            context.recorder.set_value("SYSTEM", path, "Enabled", Value.dword(enabled))


def _provider(control_set: str, name: str) -> str:
    return f"{service_path(control_set, 'W32Time')}\\TimeProviders\\{name}"
