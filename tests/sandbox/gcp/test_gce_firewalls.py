"""Firewall rules of the emulated Compute Engine."""

from __future__ import annotations

from typing import Any

import pytest

from imageport.sandbox.gcp.account import NETWORK, PROJECT
from tests.sandbox.gcp.gce_lab import CLOSED, DENIED, GceLab, refused

TCP = [{"I_p_protocol": "tcp", "ports": ["443"]}]


def test_a_rule_is_made_with_what_it_leaves_out(gce: GceLab):
    name = gce.name("rule")
    body = {"name": name, "network": NETWORK, "allowed": TCP}
    gce.made("Firewalls", "insert", "global", firewall_resource=body)
    found = gce.ask("Firewalls", "get", "global", firewall=name)
    assert (found.direction, found.priority, list(found.source_ranges)) == (
        "INGRESS", 1000, ["0.0.0.0/0"],
    )  # fmt: skip
    assert name in [item.name for item in gce.ask("Firewalls", "list", "global")]
    with refused(409, "alreadyExists"):
        gce.ask("Firewalls", "insert", "global", firewall_resource=body)
    gce.made("Firewalls", "delete", "global", firewall=name)
    for ask in ("get", "delete"):
        with refused(404, "notFound", f"projects/{PROJECT}/global/firewalls/{name}"):
            gce.ask("Firewalls", ask, "global", firewall=name)


REFUSED: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "network": ({"network": f"{NETWORK}-none"}, 404, "notFound", "networks/lab-none"),
    "direction": ({"direction": "SIDEWAYS"}, 400, "invalid", "direction"),
    "priority": ({"priority": 65536}, 400, "invalid", "between 0 and 65535"),
    "nothing said": ({"denied": []}, 400, "required", "allowed"),
    "both said": ({"allowed": DENIED}, 400, "invalid", "both"),
    "protocol": ({"denied": [{"I_p_protocol": "http"}]}, 400, "invalid", "Unknown protocol"),
    "ports of all": ({"denied": [{"I_p_protocol": "all", "ports": ["1"]}]}, 400,
        "invalid", "Ports"),
    "port": ({"denied": [{"I_p_protocol": "tcp", "ports": ["99999"]}]}, 400, "invalid", "port"),
    "port range": ({"denied": [{"I_p_protocol": "tcp", "ports": ["9-1"]}]}, 400,
        "invalid", "range"),
    "range": ({"destination_ranges": ["10.0.0.1/8"]}, 400, "invalid", "CIDR"),
    "sources of a way out": ({"source_tags": ["a"]}, 400, "invalid", "EGRESS"),
    "tag": ({"target_tags": ["A"]}, 400, "invalid", "network tag"),
    "many tags": ({"target_tags": [f"t{i}" for i in range(71)]}, 400, "invalid", "At most 70"),
    "tags and accounts": ({"target_tags": ["a"], "target_service_accounts": ["b"]},
        400, "invalid", "exclude"),
    "tags of targets and accounts of sources": (
        CLOSED["in"] | {"target_tags": ["a"], "source_service_accounts": ["b"]},
        400, "invalid", "exclude"),
    "tags of sources and accounts of targets": (
        CLOSED["in"] | {"source_tags": ["a"], "target_service_accounts": ["b"]},
        400, "invalid", "exclude"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_body_that_makes_no_rule_is_refused(gce: GceLab, case: str):
    facts, status, reason, text = REFUSED[case]
    body = {"name": gce.name("rule"), "network": NETWORK} | CLOSED["out"] | facts
    with refused(status, reason, text):
        gce.ask("Firewalls", "insert", "global", firewall_resource=body)


@pytest.mark.parametrize(
    "permission", ["compute.firewalls.create", "compute.networks.updatePolicy"]
)
def test_a_rule_needs_the_right_to_change_its_network_too(gce: GceLab, permission: str):
    gce.knobs.denied = [permission]
    with refused(403, "forbidden", permission):
        gce.rule("out", "a")


def test_the_quota_of_rules_is_kept(gce: GceLab):
    gce.knobs.quotas = {"FIREWALLS": 1.0}
    with refused(403, "quotaExceeded", "Quota 'FIREWALLS' exceeded.  Limit: 1.0 globally."):
        gce.rule("out", "a")
