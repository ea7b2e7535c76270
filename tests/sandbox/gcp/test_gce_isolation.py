"""Which rules isolate a guest of the emulated Compute Engine."""

from __future__ import annotations

from typing import Any

import pytest

from imageport.sandbox.gcp.gce_isolation import network_problems

NET, OTHER = "https://x/networks/lab", "https://x/networks/other"
ALL = [{"IPProtocol": "all"}]
Json = dict[str, Any]


def rule(direction: str, priority: int, *ranges: str, **facts: Any) -> Json:
    side = "sourceRanges" if direction == "INGRESS" else "destinationRanges"
    return {
        "name": f"{direction}-{priority}".lower(),
        "network": NET,
        "direction": direction,
        "priority": priority,
        "targetTags": ["alone"],
        side: list(ranges or ("0.0.0.0/0",)),
        "imageport": {"applies": True},
        **({} if "allowed" in facts else {"denied": ALL}),
        **facts,
    }


def machine(**facts: Any) -> Json:
    nic = {"name": "nic0", "network": NET, **facts.pop("nic", {})}
    return {"networkInterfaces": [nic], "tags": {"items": ["alone"]}, **facts}


IN, OUT = rule("INGRESS", 0), rule("EGRESS", 0)
INTERNAL = rule("INGRESS", 65534, "10.0.0.0/8", allowed=[{"IPProtocol": "tcp"}], targetTags=[])
HTTPS = [{"IPProtocol": "tcp", "ports": ["443"]}]
NAMED = rule("EGRESS", 0, "10.1.0.0/16", allowed=ALL)

ISOLATED: dict[str, list[Json]] = {
    "both ways shut": [IN, OUT, INTERNAL],
    "nothing lets in by itself": [OUT],
    "a named destination": [IN, NAMED, rule("EGRESS", 1)],
    "an allowance behind the denial": [IN, OUT, rule("EGRESS", 5, allowed=ALL)],
    "a denial wins at its priority": [IN, OUT, rule("EGRESS", 0, allowed=ALL)],
    "an allowance for others": [IN, OUT, rule("EGRESS", 0, allowed=ALL, targetTags=["else"])],
    "an allowance in another network": [IN, rule("EGRESS", 9), rule(
        "EGRESS", 0, allowed=ALL, network=OTHER)],
    "an allowance that is off": [IN, rule("EGRESS", 9), rule(
        "EGRESS", 0, allowed=ALL, disabled=True)],
    "halves that make a whole": [IN, rule("EGRESS", 0, "0.0.0.0/1", "128.0.0.0/1")],
    "all that is not named, denied first": [
        IN, rule("EGRESS", 0, "0.0.0.0/1", "128.0.0.0/2", "192.0.0.0/3", "224.0.0.0/3"),
        rule("EGRESS", 1, allowed=ALL)],
}  # fmt: skip

LEAKING: dict[str, tuple[list[Json], str]] = {
    "no rules": ([], "rule implied lets traffic out"),
    "only one way shut": ([IN, INTERNAL], "rule implied lets traffic out"),
    "the network's own way in": ([OUT, INTERNAL], "rule ingress-65534 lets traffic in"),
    "a denial of one protocol": ([IN, rule("EGRESS", 0, denied=HTTPS)], "implied lets traffic out"),
    "a denial of a part": ([IN, rule("EGRESS", 0, "0.0.0.0/1")], "implied lets traffic out"),
    "a denial for others": ([IN, rule("EGRESS", 0, targetTags=["else"])], "implied"),
    "a denial that is off": ([IN, rule("EGRESS", 0, disabled=True)], "implied"),
    "a denial that does not apply yet": ([IN, rule("EGRESS", 0, imageport={"applies": False})],
        "implied"),
    "a denial in another network": ([IN, rule("EGRESS", 0, network=OTHER)], "implied"),
    "an allowance before the denial": ([IN, rule("EGRESS", 9), rule("EGRESS", 8, allowed=HTTPS)],
        "rule egress-8 lets traffic out to everywhere"),
    "a destination too wide": (
        [IN, rule("EGRESS", 9), rule("EGRESS", 8, "10.0.0.0/8", allowed=ALL)],
        "to everywhere"),
    "a way in before the denial": ([rule("INGRESS", 7), OUT, rule(
        "INGRESS", 6, "10.1.2.3/32", allowed=HTTPS)], "rule ingress-6 lets traffic in"),
    "a way in for tags": ([IN, OUT, rule("INGRESS", 5, allowed=ALL, sourceTags=["friend"])],
        "lets traffic in"),
    "a way in for an account": ([IN, OUT, rule(
        "INGRESS", 5, allowed=ALL, sourceServiceAccounts=["friend@x"], sourceRanges=[])],
        "lets traffic in"),
}  # fmt: skip

MACHINES: dict[str, tuple[Json, str]] = {
    "external address": (machine(nic={"accessConfigs": [{}]}), "has an external address"),
    "IPv6": (machine(nic={"stackType": "IPV4_IPV6"}), "speaks IPv6"),
    "identity": (machine(serviceAccounts=[{"email": "x"}]), "has a service account"),
    "no tag": (machine(tags={}), "implied lets traffic out"),
}


@pytest.mark.parametrize("case", ISOLATED)
def test_these_rules_isolate(case: str):
    assert network_problems(machine(), ISOLATED[case]) == []


@pytest.mark.parametrize("case", LEAKING)
def test_these_rules_do_not(case: str):
    rules, text = LEAKING[case]
    assert text in "; ".join(network_problems(machine(), rules))


@pytest.mark.parametrize("case", MACHINES)
def test_no_rule_isolates_such_a_machine(case: str):
    body, text = MACHINES[case]
    assert text in "; ".join(network_problems(body, [IN, OUT]))
