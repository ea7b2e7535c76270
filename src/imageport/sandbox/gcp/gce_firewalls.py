# References: Compute Engine REST v1, "firewalls"; VPC, "VPC firewall rules" (components).
"""Firewall rules."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from imageport.sandbox.gcp.gce_compute import Compute
from imageport.sandbox.gcp.gce_listing import page_of
from imageport.sandbox.gcp.gce_messages import (
    GceRefusal,
    GceRequest,
    Json,
    already_exists,
    invalid,
    not_ready,
    required,
)
from imageport.sandbox.gcp.gce_names import check_described, check_name, is_name, link, path_of
from imageport.sandbox.gcp.gce_operations import Work
from imageport.sandbox.gcp.gce_quotas import check_quota
from imageport.sandbox.gcp.gce_table import PRIVATE, shown

EVERYWHERE: Final = "0.0.0.0/0"
INGRESS, EGRESS = "INGRESS", "EGRESS"
DEFAULT_PRIORITY: Final = 1000
LAST_PRIORITY: Final = 65535
MOST_TARGET_TAGS: Final = 70
MOST_RANGES: Final = 5000
_PROTOCOLS: Final = {"all", "tcp", "udp", "icmp", "esp", "ah", "sctp", "ipip"}
_WITH_PORTS: Final = {"tcp", "udp", "sctp", "6", "17", "132"}
_PORTS: Final = re.compile(r"\d{1,5}(-\d{1,5})?")


def insert(compute: Compute, request: GceRequest) -> Json:
    """Answer POST: a rule that applies when its operation is done."""
    body = request.body
    path = f"projects/{request.project}/global/firewalls/{check_name(body)}"
    check_described(body)
    network = path_of(str(body.get("network") or "global/networks/default"), "resource.network")
    compute.table.require(network)
    compute.check("compute.networks.updatePolicy", network)
    rule = {
        **body,
        "network": link(network),
        "direction": body.get("direction", INGRESS),
        "priority": body.get("priority", DEFAULT_PRIORITY),
        "disabled": body.get("disabled", False),
    }
    _check_sides(rule)
    _check_ranges(rule)
    _check_traffic(rule)
    _check_targets(rule)
    if not 0 <= rule["priority"] <= LAST_PRIORITY:
        text = f"Must be between 0 and {LAST_PRIORITY}."
        raise invalid("resource.priority", rule["priority"], text)
    if compute.table.get(path) is not None:
        raise already_exists(path)
    check_quota(compute, "FIREWALLS", 1)
    document = compute.new("firewall", path, rule)
    del document["labelFingerprint"]  # rules have no labels
    document[PRIVATE]["applies"] = False
    compute.table.put(path, document)

    def finish() -> None:
        document[PRIVATE]["applies"] = True
        compute.table.put(path, document)

    work = Work(finish, lambda: compute.table.drop(path))
    return compute.begin(request, "insert", path, work).document()


def get(compute: Compute, request: GceRequest) -> Json:
    """Answer GET of a rule."""
    return shown(compute.table.require(_path(request)))


def list_rules(compute: Compute, request: GceRequest) -> Json:
    """Answer GET of the project's rules."""
    path = f"projects/{request.project}/global/firewalls"
    return page_of(request, "firewallList", path, (item for _, item in compute.table.below(path)))


def delete(compute: Compute, request: GceRequest) -> Json:
    """Answer DELETE: the rule applies no more when the operation is done."""
    path = _path(request)
    rule = compute.table.require(path)
    if not rule[PRIVATE]["applies"]:
        raise not_ready(path)
    compute.check("compute.networks.updatePolicy", path_of(rule["network"], "network"))
    work = Work(lambda: compute.table.drop(path))
    return compute.begin(request, "delete", path, work).document()


def _path(request: GceRequest) -> str:
    return f"projects/{request.project}/global/firewalls/{request.fields['firewall']}"


def _check_sides(rule: Json) -> None:
    """Refuse sources and destinations that do not fit the direction; fill in the usual ones."""
    direction = rule["direction"]
    if direction not in {INGRESS, EGRESS}:
        raise invalid("resource.direction", direction, f"Must be {INGRESS} or {EGRESS}.")
    sources = ("sourceRanges", "sourceTags", "sourceServiceAccounts")
    if direction == INGRESS and not any(rule.get(name) for name in sources):
        rule["sourceRanges"] = [EVERYWHERE]
    if direction == EGRESS:
        for name in sources[1:]:
            if rule.get(name):
                raise invalid(f"resource.{name}", rule[name], "Not for rules of direction EGRESS.")
        if not rule.get("destinationRanges"):
            rule["destinationRanges"] = [EVERYWHERE]


def _check_ranges(rule: Json) -> None:
    for name in ("sourceRanges", "destinationRanges"):
        ranges = rule.get(name, [])
        if len(ranges) > MOST_RANGES:
            raise invalid(f"resource.{name}", len(ranges), f"At most {MOST_RANGES} are allowed.")
        for cidr in ranges:
            try:
                ipaddress.ip_network(cidr)
            except ValueError as error:
                text = "Must be a valid CIDR address range."
                raise invalid(f"resource.{name}", cidr, text) from error


def _check_traffic(rule: Json) -> None:
    given = [name for name in ("allowed", "denied") if rule.get(name)]
    if len(given) != 1:
        raise (
            required("resource.allowed")
            if not given
            else GceRefusal(400, "invalid", "Firewall rules cannot have both allowed and denied.")
        )
    for item in rule[given[0]]:
        protocol = str(item.get("IPProtocol", ""))
        number = protocol.isdigit() and int(protocol) < 256
        if protocol not in _PROTOCOLS and not number:
            raise invalid(f"resource.{given[0]}[0].IPProtocol", protocol, "Unknown protocol.")
        ports = item.get("ports", [])
        if ports and protocol not in _WITH_PORTS:
            text = "Ports may only be specified for tcp, udp and sctp."
            raise invalid(f"resource.{given[0]}[0].ports", ports, text)
        for port in ports:
            ends = [int(one) for one in port.split("-")] if _PORTS.fullmatch(port) else []
            if not ends or max(ends) > 65535 or ends != sorted(ends):
                raise invalid(f"resource.{given[0]}[0].ports", port, "Must be a port or a range.")


def _check_targets(rule: Json) -> None:
    tags = rule.get("targetTags", [])
    by_tag = tags or rule.get("sourceTags")
    if by_tag and (rule.get("targetServiceAccounts") or rule.get("sourceServiceAccounts")):
        text = "Tags and service accounts exclude each other, of sources and targets alike."
        raise GceRefusal(400, "invalid", text)
    if len(tags) > MOST_TARGET_TAGS:
        text = f"At most {MOST_TARGET_TAGS} target tags are allowed."
        raise invalid("resource.targetTags", len(tags), text)
    for tag in [*tags, *rule.get("sourceTags", [])]:
        if not is_name(tag):
            raise invalid("resource.targetTags", tag, "Must be a network tag.")
