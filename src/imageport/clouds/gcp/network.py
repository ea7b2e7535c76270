# References: VPC, "VPC firewall rules" (priority, target tags, implied rules, always allowed).
"""Firewall rules for one run: nothing comes in, and from the booted image nothing goes out.

Rules belong to a network and apply by tag. At one priority a denial wins, so at 0 nothing of the
network's own rules comes before it. What no rule covers is the metadata server, which is part of
every machine. Hierarchical firewall policies of the organization are looked at before any rule, and
network firewall policies where the network puts them first.
"""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.error_mapping import asked
from imageport.clouds.gcp.named_resources import delete, make
from imageport.clouds.gcp.names import (
    SUBNET,
    TOKEN_CHARACTERS,
    ResourceId,
    description_of,
    resource_name,
)
from imageport.clouds.gcp.settings import GcpSettings
from imageport.clouds.intents import Intent, token_of
from imageport.clouds.waiting import retried
from imageport.errors import CloudRefused, InputError

if TYPE_CHECKING:
    from google.cloud.compute_v1.types import Firewall

EVERYWHERE: Final = "0.0.0.0/0"
FIRST_PRIORITY: Final = 0
USUAL_PRIORITY: Final = 1000
"""Of rules that name none: an operator's stricter ones come before."""
RULE_SECONDS: Final = 300.0
SHARED_NETWORK_HINT: Final = (
    "Make the rules in that network's project, and name their tags in the Google Cloud target "
    "(engine_network_tags, isolated_network_tag)."
)
INGRESS, EGRESS = "INGRESS", "EGRESS"
_NETWORK: Final = re.compile(r"projects/([^/]+)/global/networks/([^/]+)$")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; ``ports`` empty is every protocol, ``ranges`` are where from or where to."""

    name: str
    direction: str
    allows: bool
    priority: int
    ranges: tuple[str, ...] = (EVERYWHERE,)
    tcp_ports: tuple[str, ...] = ()


class RulesOfRun:
    """The rules of a run's machines for a purpose: the operator's own, or made and removed.

    Args:
        account: Of the run.
        role: ``engine`` or ``isolated``.
        subnet: Of the machines.
        rules: What is made unless ``given`` names tags.
        given: The operator's network tags, whose rules exist.
    """

    def __init__(
        self,
        account: GcpAccount,
        role: str,
        subnet: str,
        rules: Sequence[Rule],
        given: tuple[str, ...] = (),
    ) -> None:
        self._account = account
        self._role = role
        self._subnet = subnet
        self._rules = () if given else tuple(rules)
        self.tags = given
        """Network tags that machines get; the rules exist once `make` returned."""
        if not given:
            token = token_of(account.scope, account.site, account.run, role)
            self.tags = (f"imageport-{role}-{token[:TOKEN_CHARACTERS]}",)

    def make(self) -> None:
        """Make the rules and wait until they apply; again is harmless.

        Rules of the operator's are left as they are.

        Raises:
            InputError: the network lies in another project, where none are made.
        """
        if not self._rules:
            return
        network = network_of(self._account, self._subnet)
        project = self._account.settings.project
        if not takes_rules(self._account, network):
            raise InputError(
                f"Cannot make firewall rules for '{self._subnet}': its network is {network}, of "
                f"another project than {project}.",
                hint=SHARED_NETWORK_HINT,
                problems=["engine_network_tags or isolated_network_tag is missing"],
            )
        for rule in self._rules:
            self._make(rule, self._intend(rule), network)

    def remove(self) -> None:
        """Delete the rules that were made for the run, or half made."""
        for rule in self._rules:
            intent = self._intend(rule)
            delete_rule(self._account, self._id(intent))
            self._account.void(intent)

    def _intend(self, rule: Rule) -> Intent:
        """Write down that a rule is about to be made, each time anew: `remove` voids the last."""
        account = self._account
        return account.intend("security-group", self._role, account.run, rule.name)

    def _make(self, rule: Rule, intent: Intent, network: str) -> None:
        account = self._account
        request = {
            "project": account.settings.project,
            "firewall_resource": _firewall(rule, intent, network, self.tags),
        }
        make(
            account,
            "compute.firewalls.create",
            self._id(intent),
            lambda id_: account.clients.firewalls.insert_unary(request | {"request_id": id_}),
            deadline_seconds=RULE_SECONDS,
            request_id="" if intent.entry.resource_id else _request_id(intent),
        )
        account.record(intent, self._id(intent))

    def _id(self, intent: Intent) -> str:
        return firewall_id(self._account.settings, resource_name(intent))


def _request_id(intent: Intent) -> str:
    """Return the id by which a rule is asked for until it is known to apply.

    A rule shows no state: whether one that is there already applies, only the operation tells that
    began it, maybe in a process that was killed. One that was recorded applied; should somebody
    have deleted it since, this id would only bring back the old operation.
    """
    return str(uuid.UUID(intent.client_token[:32]))


def firewall_id(settings: GcpSettings, name: str) -> str:
    """Return the id of a firewall rule."""
    return str(ResourceId(settings.project, "", "firewalls", name))


def engine_rules(account: GcpAccount, *, installs: bool) -> RulesOfRun:
    """Return the rules of engine machines: out by HTTPS alone, to fetch and deliver their job.

    ``installs`` opens HTTP too: Debian's package mirrors, whose packages are signed, speak that.
    """
    ports = ("443", "80") if installs else ("443",)
    rules = [
        Rule("nothing-in", INGRESS, allows=False, priority=FIRST_PRIORITY),
        Rule("out-web", EGRESS, allows=True, priority=USUAL_PRIORITY - 1, tcp_ports=ports),
        Rule("nothing-out", EGRESS, allows=False, priority=USUAL_PRIORITY),
    ]
    settings = account.settings
    return RulesOfRun(account, "engine", settings.subnet, rules, settings.engine_network_tags)


def isolated_rules(account: GcpAccount) -> RulesOfRun:
    """Return the rules of the one boot: out only to what the settings name."""
    settings = account.settings
    named = settings.boot_egress_cidrs
    rules = [Rule("nothing-in", INGRESS, allows=False, priority=FIRST_PRIORITY)]
    if named:
        rules += [
            # A denial wins at its priority: what is not named stays shut whatever the network has.
            Rule(
                "others-out", EGRESS, allows=False, priority=FIRST_PRIORITY, ranges=outside(named)
            ),
            Rule("out-named", EGRESS, allows=True, priority=FIRST_PRIORITY, ranges=named),
        ]
    last = FIRST_PRIORITY + bool(named)
    rules.append(Rule("nothing-out", EGRESS, allows=False, priority=last))
    given = (settings.isolated_network_tag,) if settings.isolated_network_tag else ()
    subnet = settings.boot_subnet or settings.subnet
    return RulesOfRun(account, "isolated", subnet, rules, given)


def outside(cidrs: Iterable[str]) -> tuple[str, ...]:
    """Return the ranges that hold every IPv4 address but those named."""
    left = [ipaddress.IPv4Network(EVERYWHERE)]
    for cidr in cidrs:
        named = ipaddress.IPv4Network(cidr)
        left = [
            part
            for item in left
            if not item.subnet_of(named)
            for part in (item.address_exclude(named) if named.subnet_of(item) else [item])
        ]
    return tuple(str(item) for item in sorted(left))


def network_of(account: GcpAccount, subnet: str) -> str:
    """Return ``projects/P/global/networks/N`` of a subnet."""
    found = SUBNET.fullmatch(subnet)
    if found is None:
        raise InputError(
            f"Bad subnet: found '{subnet}', needed projects/P/regions/R/subnetworks/S.",
            problems=["subnet"],
        )
    project, region, name = found.groups()

    def ask() -> str:
        with asked("compute.subnetworks.get", subnet):
            answer = account.clients.subnetworks.get(
                project=project, region=region, subnetwork=name
            )
        return answer.network

    network = retried(ask)
    return network[network.find("projects/") :]


def takes_rules(account: GcpAccount, network: str) -> bool:
    """Tell whether rules are made in a network: only where it is the project's own."""
    found = _NETWORK.search(network)
    return found is not None and found[1] == account.settings.project


def require_isolation(account: GcpAccount) -> None:
    """Look at the rules of the operator's own tag before anything is booted with it.

    Raises:
        CloudRefused: they let something in or out; says what.
    """
    settings = account.settings
    if not settings.isolated_network_tag:
        return
    gaps = isolation_gaps(
        account, settings.boot_subnet or settings.subnet, settings.isolated_network_tag
    )
    if gaps:
        raise CloudRefused(
            f"Bad isolated_network_tag '{settings.isolated_network_tag}': found "
            f"{'; '.join(gaps)}, needed every way in and out denied.",
            hint="Add rules with this target tag that deny all protocols from and to 0.0.0.0/0 "
            "at priority 0, or leave the tag empty.",
        )


def isolation_gaps(account: GcpAccount, subnet: str, tag: str) -> list[str]:
    """Return what a network lets in or out of machines with a tag; empty is isolated."""
    network = network_of(account, subnet)
    found = _NETWORK.search(network)
    project = found[1] if found else account.settings.project

    def ask() -> list[Firewall]:
        with asked("compute.firewalls.list", network):
            return list(account.clients.firewalls.list(project=project))

    rules = [item for item in retried(ask) if _applies(item, network, tag)]
    gaps = []
    for direction in (INGRESS, EGRESS):
        mine = [item for item in rules if (item.direction or INGRESS) == direction]
        shut = min((item.priority for item in mine if _denies_all(item)), default=None)
        word = direction.lower()
        if shut is None:
            gaps.append(f"no rule that denies all {word}")
            continue
        earlier = [item for item in mine if item.allowed and item.priority < shut]
        gaps += [f"{word} that '{item.name}' allows before" for item in earlier]
    return gaps


def delete_rule(account: GcpAccount, rule_id: str) -> None:
    """Delete a firewall rule and wait; a gone one is no error."""
    named = account.own(rule_id, "firewalls")
    firewalls = account.clients.firewalls
    delete(
        account,
        "compute.firewalls.delete",
        str(named),
        lambda: firewalls.delete_unary(project=named.project, firewall=named.name),
    )


def _firewall(rule: Rule, intent: Intent, network: str, tags: Sequence[str]) -> dict[str, Any]:
    where = "source_ranges" if rule.direction == INGRESS else "destination_ranges"
    what: dict[str, Any] = {"I_p_protocol": "all"}
    if rule.tcp_ports:
        what = {"I_p_protocol": "tcp", "ports": list(rule.tcp_ports)}
    return {
        "name": resource_name(intent),
        "description": description_of(intent.tags),
        "network": network,
        "direction": rule.direction,
        "priority": rule.priority,
        "target_tags": list(tags),
        where: list(rule.ranges),
        "allowed" if rule.allows else "denied": [what],
    }


def _applies(rule: Firewall, network: str, tag: str) -> bool:
    here = rule.network.endswith(f"/{network}") or rule.network == network
    by_account = bool(rule.target_service_accounts)  # our machines have none
    to_tag = tag in rule.target_tags or (not rule.target_tags and not by_account)
    return here and to_tag and not rule.disabled


def _denies_all(rule: Firewall) -> bool:
    ranges = rule.destination_ranges if rule.direction == EGRESS else rule.source_ranges
    narrowed = rule.source_tags or rule.source_service_accounts
    everything = any(item.I_p_protocol == "all" for item in rule.denied)
    return everything and EVERYWHERE in ranges and not narrowed
