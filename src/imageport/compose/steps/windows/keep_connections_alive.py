# References: Google, VPC firewall rules (idle connections are dropped after ten minutes);
# GoogleCloudPlatform/compute-image-import (translate.ps1).
"""Idle connections: Google's firewall forgets them long before Windows would ask."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import Tier
from imageport.compose.hives.registry import service_path
from imageport.compose.hives.registry_value import Value
from imageport.compose.step import Context, Step

_KEEP_ALIVE_MILLISECONDS = 5 * 60 * 1000
"""Half of the ten minutes; Windows' own default is two hours."""


class KeepConnectionsAlive(Step):
    """Ask on an idle connection every five minutes, before Google's firewall drops it."""

    name: ClassVar[str] = "keep_connections_alive"
    tier: ClassVar[Tier] = Tier.RECOMMENDED
    clouds: ClassVar[tuple[str, ...]] = ("gcp",)

    def run(self, context: Context) -> None:
        """Set KeepAliveTime of TCP in every control set."""
        for control_set in context.registry.control_sets:
            path = f"{service_path(control_set, 'Tcpip')}\\Parameters"
            value = Value.dword(_KEEP_ALIVE_MILLISECONDS)
            context.recorder.set_value("SYSTEM", path, "KeepAliveTime", value)
