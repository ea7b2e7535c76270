"""Which groups keep a guest alone, rule by rule."""

from __future__ import annotations

from typing import Any

import pytest

from imageport.sandbox.azure.isolation import network_problems
from tests.sandbox.azure.conftest import DENIED_TAGS, isolated_rules, rule

NIC = {
    "name": "nic",
    "properties": {
        "networkSecurityGroup": {"id": "/Group"},
        "ipConfigurations": [{"name": "a", "properties": {}}],
    },
}


def problems(rules: list[dict[str, Any]]) -> list[str]:
    return network_problems(
        [NIC], {"/group": {"name": "g", "properties": {"securityRules": rules}}}
    )


def test_a_group_that_denies_everything_by_name_has_no_problem():
    assert problems(isolated_rules()) == []


def test_the_rules_of_azure_alone_let_everything_through():
    assert problems([]) == [
        *[f"group g does not keep the guest from {tag}" for tag in DENIED_TAGS],
        "group g lets traffic out to everywhere",
        "group g lets traffic in",
    ]


@pytest.mark.parametrize("tag", DENIED_TAGS)
def test_every_platform_address_has_to_be_denied_by_its_own_tag(tag: str):
    rules = [item for item in isolated_rules() if item["name"] != f"no-{tag}"]
    assert problems(rules) == [f"group g does not keep the guest from {tag}"]


@pytest.mark.parametrize(
    "narrow",
    [{"protocol": "Tcp"}, {"destinationPortRange": "53"}, {"sourceAddressPrefix": "10.0.0.0/8"}],
)
def test_a_platform_address_denied_in_part_is_not_denied(narrow: dict[str, str]):
    rules = isolated_rules()
    rules[0]["properties"] |= narrow
    assert problems(rules) == ["group g does not keep the guest from AzurePlatformDNS"]


def test_a_platform_address_allowed_before_it_is_denied_is_open():
    tag = "AzurePlatformIMDS"
    first = rule("yes", 99 + 1, "Outbound", "Allow", destinationAddressPrefix=tag)
    rules = isolated_rules()
    for item in rules[:3]:
        item["properties"]["priority"] += 100
    assert f"group g does not keep the guest from {tag}" in problems([first, *rules])


@pytest.mark.parametrize(
    ("destination", "alone"),
    [
        ("192.0.2.7", True),
        ("10.1.0.0/16", True),
        ("10.0.0.0/8", False),
        ("0.0.0.0/0", False),
        ("VirtualNetwork", False),
        ("Internet", False),
        ("*", False),
    ],
)
def test_a_named_destination_was_asked_for_and_everywhere_was_not(destination: str, alone: bool):
    way = rule("out-named", 200, "Outbound", "Allow", destinationAddressPrefix=destination)
    found = problems([*isolated_rules(), way])
    assert found == ([] if alone else ["group g lets traffic out to everywhere"])


def test_what_follows_the_rule_that_denies_everything_does_not_count():
    late = rule("late", 4096, "Outbound", "Allow")
    rules = isolated_rules()
    rules[3]["properties"]["priority"] = 4000
    assert problems([*rules, late]) == []


def test_a_way_in_is_a_problem_even_from_one_address():
    way = rule("rdp", 200, "Inbound", "Allow", sourceAddressPrefix="192.0.2.7")
    assert problems([*isolated_rules(), way]) == ["group g lets traffic in"]


def test_no_group_and_a_public_address_are_problems():
    public = {"name": "a", "properties": {"publicIPAddress": {"id": "/p"}}}
    nic = {"name": "n", "properties": {"ipConfigurations": [public]}}
    assert network_problems([nic], {}) == [
        "interface n has a public address",
        "interface n has no network security group",
    ]
