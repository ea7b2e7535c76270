"""Addresses: cloud networks and Provisioning Services both give them by DHCP."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import Tier
from imageport.compose.guest_facts.network import WINS_SERVERS, netbios_path
from imageport.compose.hives.registry import service_path
from imageport.compose.hives.registry_value import Value
from imageport.compose.step import Context, Step

_AUTOMATIC = 2
_STATIC_LISTS = ("IPAddress", "SubnetMask", "DefaultGateway", "DefaultGatewayMetric")


class UseDhcp(Step):
    """Take IPv4 addresses, and fixed ones' name servers, from DHCP; the old ones are reported.

    Static IPv6 addresses and routes stay: they are told, and harm nobody in a network without IPv6.
    """

    name: ClassVar[str] = "use_dhcp"
    tier: ClassVar[Tier] = Tier.REQUIRED

    def run(self, context: Context) -> None:
        """Switch interfaces, drop static addresses and routes, start the DHCP client by itself."""
        for control_set in context.registry.control_sets:
            if context.registry.service(control_set, "Dhcp") is not None:
                path = service_path(control_set, "Dhcp")
                context.recorder.set_value("SYSTEM", path, "Start", Value.dword(_AUTOMATIC))
            parameters = f"{service_path(control_set, 'Tcpip')}\\Parameters"
            self._interfaces(context, control_set, f"{parameters}\\Interfaces")
            self._routes(context, f"{parameters}\\PersistentRoutes")

    @staticmethod
    def _interfaces(context: Context, control_set: str, path: str) -> None:
        key = context.registry.key("SYSTEM", path)
        for interface in key.children() if key else []:
            place = f"{path}\\{interface.name}"
            # Real hives also hold keys of interfaces that have no address at all.
            if context.registry.number("SYSTEM", place, "EnableDHCP") != 0:
                continue
            context.recorder.set_value("SYSTEM", place, "EnableDHCP", Value.dword(1))
            for name in _STATIC_LISTS:
                context.recorder.delete_value("SYSTEM", place, name)
            if context.registry.text("SYSTEM", place, "NameServer"):
                context.recorder.set_value("SYSTEM", place, "NameServer", Value.text(""))
            wins = netbios_path(control_set, interface.name)
            servers = context.registry.value("SYSTEM", wins, WINS_SERVERS)
            if servers and servers.as_texts():
                context.recorder.set_value("SYSTEM", wins, WINS_SERVERS, Value.texts([]))

    @staticmethod
    def _routes(context: Context, path: str) -> None:
        key = context.registry.key("SYSTEM", path)
        for name in sorted(key.values()) if key else []:
            context.recorder.delete_value("SYSTEM", path, name)
