# References: VPC, "VPC firewall rules": priority, implied rules, target tags; "Always blocked
# traffic", "Always allowed traffic" (the metadata server).
"""Judges whether a guest behind firewall rules could reach, or be reached by, anything.

A destination that somebody named by its address was asked for; the way to everywhere that every
network has was not. The metadata server is part of each machine and reached whatever the rules say.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from imageport.sandbox.gcp.gce_firewalls import EGRESS, EVERYWHERE, INGRESS, LAST_PRIORITY
from imageport.sandbox.gcp.gce_messages import Json
from imageport.sandbox.gcp.gce_table import PRIVATE

LARGEST_NAMED_ADDRESSES: Final = 2**16
"""A named destination with more addresses than a /16 is no destination any more."""
_IMPLIED: Final[Json] = {
    "name": "implied",
    "direction": EGRESS,
    "priority": LAST_PRIORITY + 1,
    "allowed": [{"IPProtocol": "all"}],
    "destinationRanges": [EVERYWHERE],
}
"""What every network lets out when no rule speaks of it; nothing is let in so."""
_OF_DIRECTION: Final = {INGRESS: "sourceRanges", EGRESS: "destinationRanges"}
Range = ipaddress.IPv4Network


def network_problems(machine: Json, rules: Iterable[Json]) -> list[str]:
    """Return why a guest on this machine would not be alone, by these rules of its project."""
    problems = []
    if machine.get("serviceAccounts"):
        problems.append("the machine has a service account")
    known = list(rules)
    for interface in machine["networkInterfaces"]:
        name = interface["name"]
        if interface.get("accessConfigs") or interface.get("ipv6AccessConfigs"):
            problems.append(f"interface {name} has an external address")
        if interface.get("stackType", "IPV4_ONLY") != "IPV4_ONLY":
            problems.append(f"interface {name} speaks IPv6")
        mine = [rule for rule in known if _applies(rule, machine, interface)]
        problems += [f"interface {name}: {text}" for text in _gaps(mine)]
    return problems


def _applies(rule: Json, machine: Json, interface: Json) -> bool:
    if rule.get("disabled") or not rule[PRIVATE]["applies"]:
        return False
    if rule["network"] != interface["network"]:
        return False
    tags = set(machine.get("tags", {}).get("items", []))
    accounts = {item["email"] for item in machine.get("serviceAccounts", [])}
    by_tag, by_account = set(rule.get("targetTags", [])), set(rule.get("targetServiceAccounts", []))
    return not (by_tag or by_account) or bool(by_tag & tags) or bool(by_account & accounts)


def _gaps(rules: list[Json]) -> list[str]:
    gaps = []
    for direction, side in _OF_DIRECTION.items():
        mine = [item for item in rules if item["direction"] == direction]
        if direction == EGRESS:
            mine.append(_IMPLIED)
        for rule in mine:
            if not rule.get("allowed"):
                continue
            left = _reached(rule, mine, side)
            if direction == INGRESS and (left or _is_narrowed(rule)):
                gaps.append(f"rule {rule['name']} lets traffic in")
            elif any(item.num_addresses > LARGEST_NAMED_ADDRESSES for item in left):
                gaps.append(f"rule {rule['name']} lets traffic out to everywhere")
    return gaps


def _reached(rule: Json, rules: list[Json], side: str) -> list[Range]:
    """Return the addresses that a rule opens and that none denies before it, or beside it."""
    left = _ranges(rule, side)
    for other in rules:
        if other["priority"] <= rule["priority"] and _denies_all_protocols(other):
            for denied in _ranges(other, side):
                left = [part for item in left for part in _without(item, denied)]
    return left


def _ranges(rule: Json, side: str) -> list[Range]:
    found = [ipaddress.ip_network(text) for text in rule.get(side, [])]
    return [item for item in found if isinstance(item, Range)]


def _without(whole: Range, hole: Range) -> list[Range]:
    if whole.subnet_of(hole):
        return []
    return list(whole.address_exclude(hole)) if hole.subnet_of(whole) else [whole]


def _denies_all_protocols(rule: Json) -> bool:
    denied = rule.get("denied", [])
    return not _is_narrowed(rule) and any(item["IPProtocol"] == "all" for item in denied)


def _is_narrowed(rule: Json) -> bool:
    """Tell whether a rule is of certain machines, whose addresses it does not say."""
    return bool(rule.get("sourceTags") or rule.get("sourceServiceAccounts"))
