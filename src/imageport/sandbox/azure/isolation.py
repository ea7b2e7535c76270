# References: "Network security groups": order of rules, default rules; "Virtual network service
# tags": AzurePlatformDNS, AzurePlatformIMDS, AzurePlatformLKM.
"""Judges whether a guest behind a security group could reach, or be reached by, anything.

A destination that somebody named by its address was asked for; the way to everywhere that Azure
gives every machine was not. The platform's own name server, metadata and licence servers are
reached in spite of every rule but those that name them.
"""

from __future__ import annotations

import ipaddress
from typing import Any

Json = dict[str, Any]
PLATFORM_TAGS = ("AzurePlatformDNS", "AzurePlatformIMDS", "AzurePlatformLKM")
ANY = {"*", "any"}
LARGEST_NAMED_ADDRESSES = 2**16
"""A named destination with more addresses than a /16 is no destination any more."""


def network_problems(interfaces: list[Json], groups: dict[str, Json]) -> list[str]:
    """Return why a guest with these interfaces would not be alone; ``groups`` by lower-case id."""
    problems = []
    for interface in interfaces:
        name = interface["name"]
        addresses = interface["properties"]["ipConfigurations"]
        if any(item["properties"].get("publicIPAddress") for item in addresses):
            problems.append(f"interface {name} has a public address")
        group_id = (interface["properties"].get("networkSecurityGroup") or {}).get("id", "")
        group = groups.get(group_id.lower())
        if group is None:
            problems.append(f"interface {name} has no network security group")
        else:
            problems += _group_problems(group)
    return problems


def _group_problems(group: Json) -> list[str]:
    name = group["name"]
    problems = []
    outbound = _ordered(group, "outbound")
    problems += [
        f"group {name} does not keep the guest from {tag}"
        for tag in PLATFORM_TAGS
        if not _denies(outbound, tag)
    ]
    wide = next((rule for rule in outbound if _lets_far(rule)), None)
    shut = next((rule for rule in outbound if _is_shut(rule, "destination")), None)
    if shut is None or (wide is not None and outbound.index(wide) < outbound.index(shut)):
        problems.append(f"group {name} lets traffic out to everywhere")
    inbound = _ordered(group, "inbound")
    if not inbound or not _is_shut(inbound[0], "source"):
        problems.append(f"group {name} lets traffic in")
    return problems


def _ordered(group: Json, direction: str) -> list[Json]:
    rules = [rule["properties"] for rule in group["properties"]["securityRules"]]
    found = [rule for rule in rules if rule["direction"].lower() == direction]
    return sorted(found, key=lambda rule: int(rule["priority"]))


def prefixes(rule: Json, side: str) -> list[str]:
    """Return the addresses or tags of one side of a rule."""
    many = [str(item) for item in rule.get(f"{side}AddressPrefixes") or []]
    one = rule.get(f"{side}AddressPrefix")
    return ([str(one)] if one else []) + many


def _allows(rule: Json) -> bool:
    return str(rule["access"]).lower() == "allow"


def _covers_all_traffic(rule: Json) -> bool:
    """Tell whether a rule speaks of every protocol and port, from every source port."""
    ports = [rule.get("destinationPortRange"), *(rule.get("destinationPortRanges") or [])]
    sources = [rule.get("sourcePortRange"), *(rule.get("sourcePortRanges") or [])]
    return str(rule["protocol"]) == "*" and "*" in ports and "*" in sources


def _denies(rules: list[Json], tag: str) -> bool:
    """Tell whether the first rule that names the tag denies all of it."""
    for rule in rules:
        if tag.lower() in [item.lower() for item in prefixes(rule, "destination")]:
            from_anywhere = ANY & {item.lower() for item in prefixes(rule, "source")}
            return not _allows(rule) and _covers_all_traffic(rule) and bool(from_anywhere)
    return False


def _is_shut(rule: Json, side: str) -> bool:
    """Tell whether a rule denies everything."""
    other = "source" if side == "destination" else "destination"
    both = all(ANY & {item.lower() for item in prefixes(rule, name)} for name in (side, other))
    return not _allows(rule) and _covers_all_traffic(rule) and both


def _lets_far(rule: Json) -> bool:
    """Tell whether a rule lets traffic out to more than a place that somebody named."""
    if not _allows(rule):
        return False
    for prefix in prefixes(rule, "destination"):
        try:
            addresses = ipaddress.ip_network(prefix, strict=False).num_addresses
        except ValueError:
            return True  # a service tag or *: more than one place
        if addresses > LARGEST_NAMED_ADDRESSES:
            return True
    return False
