"""The network that the guest knew: what a cloud's DHCP replaces, kept for people."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from imageport.compose.hives.registry import Registry, service_path
from imageport.compose.volumes.guest_files import GuestFiles
from imageport.errors import EngineFailed

_ADAPTERS = "Control\\Network\\{4D36E972-E325-11CE-BFC1-08002BE10318}"
_CONNECTIONS = "Microsoft\\Windows\\CurrentVersion\\Internet Settings\\Connections"
_HOSTS = "Windows/System32/drivers/etc/hosts"
_MAX_HOSTS_BYTES = 1024 * 1024
_MAX_INTERFACES = 100
WINS_SERVERS = "NameServerList"
_IPV6_ADDRESSES = "Control\\Nsi\\{eb004a01-9b1a-11d4-9123-0050047759bc}\\10"
"""What netsh keeps of IPv6 for good: one value an address."""
_IPV6_NAME = re.compile(r"[0-9a-f]{16}([0-9a-f]{32})", re.IGNORECASE)
"""Such a value's name: the interface's LUID, then the address."""


def network_facts(registry: Registry, files: GuestFiles, current: str) -> tuple[str, ...]:
    """Return one line per interface with an address, per route, and on proxy and hosts file."""
    return (
        *_interfaces(registry, current),
        *(f"static IPv6 {one}, which stays" for one in static_ipv6(registry, current)),
        *_routes(registry, current),
        *_search_list(registry, current),
        *_proxy(registry),
        *_hosts(files),
    )


def static_ipv6(registry: Registry, control_set: str) -> Iterator[str]:
    """Yield the IPv6 addresses that were given to interfaces for good."""
    key = registry.key("SYSTEM", f"{control_set}\\{_IPV6_ADDRESSES}")
    for name in sorted(key.values())[:_MAX_INTERFACES] if key else []:
        match = _IPV6_NAME.fullmatch(name)
        if match:
            yield str(ipaddress.IPv6Address(bytes.fromhex(match[1])))


def netbios_path(control_set: str, interface: str) -> str:
    """Return the key of NetBIOS over TCP/IP for an interface: its WINS servers are there."""
    return f"{service_path(control_set, 'NetBT')}\\Parameters\\Interfaces\\Tcpip_{interface}"


def _interfaces(registry: Registry, current: str) -> Iterator[str]:
    path = f"{service_path(current, 'Tcpip')}\\Parameters\\Interfaces"
    key = registry.key("SYSTEM", path)
    for interface in (key.children() if key else [])[:_MAX_INTERFACES]:
        place = f"{path}\\{interface.name}"
        is_static = registry.number("SYSTEM", place, "EnableDHCP") == 0
        prefix = "" if is_static else "Dhcp"
        addresses = _texts(registry, place, f"{prefix}IPAddress")
        masks = _texts(registry, place, f"{prefix}SubnetMask")
        shown = [f"{a}/{m}" for a, m in zip(addresses, masks, strict=False) if a != "0.0.0.0"]  # noqa: S104 - what Windows stores for "none", not a bind
        if not shown:
            continue
        facts = [f"{'static' if is_static else 'DHCP'} {' '.join(shown)}"]
        for word, name in (("gateway", "DefaultGateway"), ("name servers", "NameServer")):
            values = _texts(registry, place, prefix + name)
            facts += [f"{word} {' '.join(values)}"] if values else []
        wins = _texts(registry, netbios_path(current, interface.name), prefix + WINS_SERVERS)
        facts += [f"WINS servers {' '.join(wins)}"] if wins else []
        yield f"{_adapter_name(registry, current, interface.name)}: {', '.join(facts)}"


def _adapter_name(registry: Registry, current: str, interface: str) -> str:
    place = f"{current}\\{_ADAPTERS}\\{interface}\\Connection"
    return registry.text("SYSTEM", place, "Name") or interface


def _routes(registry: Registry, current: str) -> Iterator[str]:
    path = f"{service_path(current, 'Tcpip')}\\Parameters\\PersistentRoutes"
    key = registry.key("SYSTEM", path)
    for name in sorted(key.values()) if key else []:
        parts = name.split(",")
        if len(parts) == 4:
            yield f"route to {parts[0]}/{parts[1]} by {parts[2]}, metric {parts[3]}"


def _search_list(registry: Registry, current: str) -> Iterator[str]:
    path = f"{service_path(current, 'Tcpip')}\\Parameters"
    names = registry.text("SYSTEM", path, "SearchList")
    if names:
        yield f"name suffixes {names}"


def _proxy(registry: Registry) -> Iterator[str]:
    """The proxy of services may hold a name and a password, so only its digest is told."""
    value = registry.value("SOFTWARE", _CONNECTIONS, "WinHttpSettings")
    if value is not None:
        yield f"proxy of services {value.digest()}"


def _hosts(files: GuestFiles) -> Iterator[str]:
    if not files.exists(_HOSTS):
        return
    try:
        text = files.read(_HOSTS, _MAX_HOSTS_BYTES).decode("utf-8", "replace")
    except EngineFailed:  # compressed in a way that NTFS' driver cannot read
        yield "a hosts file that cannot be read"
        return
    lines = [line for line in text.splitlines() if line.partition("#")[0].strip()]
    if lines:
        yield f"hosts file of {len(lines)} entries"


def _texts(registry: Registry, place: str, name: str) -> list[str]:
    """Return a list however it is kept: many texts, or one with spaces or commas."""
    value = registry.value("SYSTEM", place, name)
    found = value.as_texts() if value else []
    return [word for text in found for word in text.replace(",", " ").split()]
