"""Firewall rules of a run: what they let through, whose they are, and that they go."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imageport.clouds.gcp import named_resources
from imageport.clouds.gcp.network import (
    EGRESS,
    INGRESS,
    RulesOfRun,
    engine_rules,
    isolated_rules,
    isolation_gaps,
    network_of,
    outside,
    require_isolation,
)
from imageport.clouds.gcp.operations import ended, finished
from imageport.errors import CloudRefused, InputError, PermissionMissing
from imageport.sandbox.gcp.account import NETWORK, PROJECT, SUBNET
from tests.clouds.cloud_contract import SITE, Killed, LedgerOfAKilledRun
from tests.clouds.gcp_laboratory import GcpLab

NAMED = ("10.0.0.5/32", "10.1.0.0/16")


def rules_of(lab: GcpLab, rules: RulesOfRun) -> list[Any]:
    listed = lab.clients.firewalls.list(project=PROJECT)
    return [item for item in listed if set(item.target_tags) & set(rules.tags)]


def operators_rule(lab: GcpLab, name: str, **facts: Any) -> None:
    """Make a rule as an operator would, with the tag ``mine``."""
    body: dict[str, Any] = {
        "name": f"imageport-{name}", "network": NETWORK, "priority": 0, "target_tags": ["mine"],
    }  # fmt: skip
    operation = lab.clients.firewalls.insert_unary(
        {"project": PROJECT, "firewall_resource": body | facts}
    )
    finished(lab.account("operator"), operation, "compute.firewalls.create", name)


ALL_IN = {
    "direction": INGRESS, "source_ranges": ["0.0.0.0/0"], "denied": [{"I_p_protocol": "all"}],
}  # fmt: skip
ALL_OUT = {
    "direction": EGRESS, "destination_ranges": ["0.0.0.0/0"], "denied": [{"I_p_protocol": "all"}],
}  # fmt: skip
SOME_OUT = {
    "direction": EGRESS, "destination_ranges": ["10.9.0.0/16"],
    "allowed": [{"I_p_protocol": "tcp", "ports": ["443"]}],
}  # fmt: skip


def test_the_boot_reaches_nothing_and_nothing_reaches_it(gcp_lab: GcpLab):
    rules = isolated_rules(gcp_lab.account("run-1"))
    rules.make()
    made = {item.direction: item for item in rules_of(gcp_lab, rules)}
    assert set(made) == {INGRESS, EGRESS}
    for rule in made.values():
        assert rule.priority == 0
        assert [item.I_p_protocol for item in rule.denied] == ["all"]
        assert not rule.allowed
        assert rule.network.endswith(NETWORK)
    assert list(made[INGRESS].source_ranges) == ["0.0.0.0/0"]
    assert list(made[EGRESS].destination_ranges) == ["0.0.0.0/0"]
    assert isolation_gaps(gcp_lab.account("look"), SUBNET, rules.tags[0]) == []
    rules.remove()
    assert rules_of(gcp_lab, rules) == []


def test_named_destinations_are_the_only_way_out(gcp_lab: GcpLab):
    account = gcp_lab.account("run-1", boot_egress_cidrs=NAMED)
    rules = isolated_rules(account)
    for _again in range(2):
        rules.make()
        assert isolated_rules(account).tags == rules.tags
    made = rules_of(gcp_lab, rules)
    assert len(made) == 4
    [allowed] = [item for item in made if item.allowed]
    assert (allowed.priority, list(allowed.destination_ranges)) == (0, list(NAMED))
    shut = sorted(
        (item.priority, len(item.destination_ranges))
        for item in made
        if item.denied and item.direction == EGRESS
    )
    assert shut == [(0, len(outside(NAMED))), (1, 1)]
    for _again in range(2):
        rules.remove()
    assert gcp_lab.state.ledger.open_entries() == []


@pytest.mark.slow
def test_an_engine_gets_out_by_https_alone(gcp_lab: GcpLab):
    rules = engine_rules(gcp_lab.account("run-1"), installs=False)
    rules.make()
    made = rules_of(gcp_lab, rules)
    allowed = [(list(item.allowed[0].ports), item.direction) for item in made if item.allowed]
    assert allowed == [(["443"], EGRESS)]
    assert sorted(item.direction for item in made if item.denied) == [EGRESS, INGRESS]
    rules.remove()
    installing = engine_rules(gcp_lab.account("run-1"), installs=True)
    installing.make()
    ports = [list(item.allowed[0].ports) for item in rules_of(gcp_lab, installing) if item.allowed]
    assert ports == [["443", "80"]]
    installing.remove()


def test_what_was_made_but_never_recorded_is_found_again(gcp_lab: GcpLab):
    ledger = LedgerOfAKilledRun(gcp_lab.state.folder)
    with pytest.raises(Killed):
        isolated_rules(gcp_lab.account("run-1", ledger=ledger)).make()
    [left] = gcp_lab.cloud("look").list_ours(SITE)
    assert left.kind == "security-group"
    rules = isolated_rules(gcp_lab.account("run-1"))
    rules.make()
    assert len(rules_of(gcp_lab, rules)) == 2
    rules.remove()
    assert gcp_lab.cloud("look").list_ours(SITE) == []
    assert gcp_lab.state.ledger.open_entries() == []


def test_an_insertion_that_a_killed_process_began_is_waited_for(
    gcp_lab: GcpLab, monkeypatch: pytest.MonkeyPatch
):
    """A rule that is there may not apply yet, and only its operation tells."""
    begun, waited = [], []

    def die(_account: object, operation: Any, *_more: object, **_options: object) -> Any:
        begun.append(operation.name)
        raise Killed

    def note(account: Any, operation: Any, *more: Any, **options: Any) -> Any:
        waited.append(operation.name)
        return ended(account, operation, *more, **options)

    monkeypatch.setattr(named_resources, "ended", die)
    with pytest.raises(Killed):
        isolated_rules(gcp_lab.account("run-1")).make()
    monkeypatch.setattr(named_resources, "ended", note)
    rules = isolated_rules(gcp_lab.account("run-1"))
    rules.make()
    assert waited[0] == begun[0]
    rules.remove()
    assert rules_of(gcp_lab, rules) == []
    waited.clear()
    rules.make()
    assert len(rules_of(gcp_lab, rules)) == 2
    assert begun[0] not in waited
    rules.remove()


@pytest.mark.slow
def test_lost_answers_make_no_second_rule(gcp_lab: GcpLab):
    rules = isolated_rules(gcp_lab.account("run-1"))
    gcp_lab.service.turn(lost_answers=2)
    rules.make()
    assert len(rules_of(gcp_lab, rules)) == 2
    gcp_lab.service.turn(lost_answers=2)
    rules.remove()
    assert rules_of(gcp_lab, rules) == []


def test_tags_that_the_operator_names_are_used_and_their_rules_kept(gcp_lab: GcpLab):
    operators_rule(gcp_lab, "in", **ALL_IN)
    operators_rule(gcp_lab, "out", **ALL_OUT)
    account = gcp_lab.account("run-1", isolated_network_tag="mine", engine_network_tags=("a", "b"))
    require_isolation(account)
    rules = isolated_rules(account)
    rules.make()
    rules.remove()
    assert rules.tags == ("mine",)
    assert engine_rules(account, installs=True).tags == ("a", "b")
    assert len(rules_of(gcp_lab, rules)) == 2
    assert gcp_lab.state.ledger.open_entries() == []


def test_an_operators_tag_that_lets_something_out_is_refused(gcp_lab: GcpLab):
    account = gcp_lab.account("run-1", isolated_network_tag="mine")
    with pytest.raises(CloudRefused, match="no rule that denies all ingress; no rule that denies"):
        require_isolation(account)
    operators_rule(gcp_lab, "in", **ALL_IN)
    operators_rule(gcp_lab, "out", **ALL_OUT | {"priority": 100})
    require_isolation(account)
    operators_rule(gcp_lab, "behind", **SOME_OUT | {"priority": 100})
    require_isolation(account)  # a denial wins at its priority
    operators_rule(gcp_lab, "before", **SOME_OUT | {"priority": 99, "target_tags": []})
    with pytest.raises(CloudRefused, match="egress that 'imageport-before' allows before"):
        require_isolation(account)


def test_rules_that_may_not_be_looked_at_are_not_taken_for_good(gcp_lab: GcpLab):
    gcp_lab.service.turn(denied=["compute.firewalls.list"])
    with pytest.raises(PermissionMissing, match=r"compute\.firewalls\.list"):
        require_isolation(gcp_lab.account("run-1", isolated_network_tag="mine"))


def test_a_subnet_tells_its_network(gcp_lab: GcpLab):
    account = gcp_lab.account("run-1")
    assert network_of(account, SUBNET) == NETWORK
    with pytest.raises(InputError, match="Bad subnet: found 'machines'"):
        network_of(account, "machines")


def test_no_rules_are_made_in_somebody_elses_network(
    gcp_lab: GcpLab, monkeypatch: pytest.MonkeyPatch
):
    shared = "projects/their-host/global/networks/shared"
    monkeypatch.setattr("imageport.clouds.gcp.network.network_of", lambda *_: shared)
    with pytest.raises(InputError, match=r"its network is projects/their-host") as caught:
        isolated_rules(gcp_lab.account("run-1")).make()
    assert "isolated_network_tag" in caught.value.hint


@st.composite
def networks(draw: st.DrawFn) -> str:
    address = draw(st.integers(0, 2**32 - 1))
    length = draw(st.integers(0, 32))
    return str(ipaddress.IPv4Network((address, length), strict=False))


@settings(max_examples=40)
@given(st.lists(networks(), min_size=1, max_size=4))
def test_what_lies_outside_of_ranges_is_all_the_rest(cidrs: list[str]):
    named = list(ipaddress.collapse_addresses(ipaddress.IPv4Network(item) for item in cidrs))
    rest = [ipaddress.IPv4Network(item) for item in outside(cidrs)]
    assert sum(item.num_addresses for item in (*named, *rest)) == 2**32
    assert not any(item.overlaps(other) for item in rest for other in named)
