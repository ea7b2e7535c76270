# References: Azure REST API, Network Security Groups - Create Or Update, Delete, List; "Network
# security groups": limits of priorities, default rules.
"""Network security groups."""

from __future__ import annotations

import copy
import ipaddress
import re
import uuid
from typing import Any

from imageport.sandbox.azure.arm_body import (
    READ_ONLY,
    Members,
    check_location,
    check_members,
    check_name,
    check_tags,
    one_of,
)
from imageport.sandbox.azure.arm_errors import ArmError, not_found
from imageport.sandbox.azure.arm_messages import ArmAnswer, ArmRequest
from imageport.sandbox.azure.emulator import Emulator
from imageport.sandbox.azure.isolation import prefixes
from imageport.sandbox.azure.storage_resources import page_of

Json = dict[str, Any]
NETWORK_OPERATIONS = "Microsoft.Network/operations"
TYPE = "Microsoft.Network/networkSecurityGroups"
INTERFACES = "Microsoft.Network/networkInterfaces"
TAGS = (
    "VirtualNetwork", "AzureLoadBalancer", "Internet", "AzurePlatformDNS", "AzurePlatformIMDS",
    "AzurePlatformLKM", "Storage", "AzureCloud", "AzureActiveDirectory", "AzureResourceManager",
)  # fmt: skip
PROTOCOLS = ("*", "Tcp", "Udp", "Icmp", "Esp", "Ah")
PRIORITIES = range(100, 4097)
_PORTS = re.compile(r"\*|\d{1,5}(-\d{1,5})?")
RULE: Members = {
    **READ_ONLY,
    "properties": {
        "description": None, "protocol": None, "access": None, "priority": None,
        "direction": None, "provisioningState": None,
        "sourcePortRange": None, "sourcePortRanges": None,
        "sourceAddressPrefix": None, "sourceAddressPrefixes": None,
        "destinationPortRange": None, "destinationPortRanges": None,
        "destinationAddressPrefix": None, "destinationAddressPrefixes": None,
    },
}  # fmt: skip
BODY: Members = {
    **READ_ONLY,
    "location": None,
    "tags": None,
    "properties": {
        "securityRules": [RULE], "flushConnection": None, "defaultSecurityRules": None,
        "provisioningState": None, "resourceGuid": None, "networkInterfaces": None,
        "subnets": None,
    },
}  # fmt: skip
_DEFAULTS = (
    ("AllowVnetInBound", 65000, "Inbound", "Allow", "VirtualNetwork", "VirtualNetwork"),
    ("AllowAzureLoadBalancerInBound", 65001, "Inbound", "Allow", "AzureLoadBalancer", "*"),
    ("DenyAllInBound", 65500, "Inbound", "Deny", "*", "*"),
    ("AllowVnetOutBound", 65000, "Outbound", "Allow", "VirtualNetwork", "VirtualNetwork"),
    ("AllowInternetOutBound", 65001, "Outbound", "Allow", "*", "Internet"),
    ("DenyAllOutBound", 65500, "Outbound", "Deny", "*", "*"),
)


def put(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer PUT: a new group, or other rules for one that exists."""
    body = request.json()
    check_members(body, BODY, "NetworkSecurityGroup")
    check_name(request.name, "networkSecurityGroupName")
    existing = emulator.resources.get(request.key)
    location = check_location(body, TYPE, existing)
    asked = (body.get("properties") or {}).get("securityRules") or []
    rules = [_rule(request.scope, item) for item in asked]
    _check_conflicts(rules)
    document: Json = {
        "id": request.scope if existing is None else existing["id"],
        "name": request.name if existing is None else existing["name"],
        "type": TYPE,
        "location": location,
        "etag": f'W/"{uuid.uuid4()}"',
        "tags": check_tags(body.get("tags")),
        "properties": {
            "provisioningState": "Updating",
            "resourceGuid": str(uuid.uuid4()),
            "securityRules": rules,
            "defaultSecurityRules": [_default(request.scope, *row) for row in _DEFAULTS],
        },
    }
    emulator.resources.put(document)

    def finish() -> None:
        document["properties"]["provisioningState"] = "Succeeded"
        emulator.resources.put(document)

    def failed() -> None:
        document["properties"]["provisioningState"] = "Failed"
        emulator.resources.put(document)

    operation = emulator.begin(NETWORK_OPERATIONS, finish, failed)
    return ArmAnswer(201 if existing is None else 200, _show(emulator, document), operation)


def patch(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer PATCH: other tags, at once."""
    body = request.json()
    check_members(body, {"tags": None}, "TagsObject")
    document = emulator.resources.get(request.key)
    if document is None:
        raise not_found(request.scope)
    document["tags"] = check_tags(body.get("tags"))
    emulator.resources.put(document)
    return ArmAnswer(200, _show(emulator, document))


def get(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer GET of a group."""
    document = emulator.resources.get(request.key)
    if document is None:
        raise not_found(request.scope)
    return ArmAnswer(200, _show(emulator, document))


def list_group(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer GET of all groups of the resource group."""
    found = [_show(emulator, item) for item in emulator.resources.of_type(TYPE)]
    return page_of(emulator, request, found)


def delete(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer DELETE: refused while an interface uses the group."""
    document = emulator.resources.get(request.key)
    if document is None:
        return ArmAnswer(204)
    users = _users(emulator, request.key)
    if users:
        text = (
            f"Network security group {document['id']} cannot be deleted because it is in use by "
            f"the following resources: {', '.join(users)}. In order to delete the Network security "
            "group, remove the association with the resource(s)."
        )
        raise ArmError(400, "InUseNetworkSecurityGroupCannotBeDeleted", text)
    document["properties"]["provisioningState"] = "Deleting"
    operation = emulator.begin(NETWORK_OPERATIONS, lambda: emulator.resources.drop(request.key))
    return ArmAnswer(202, None, operation, final_state="location")


def _users(emulator: Emulator, key: str) -> list[str]:
    return [
        str(item["id"])
        for item in emulator.resources.of_type(INTERFACES)
        if (item["properties"].get("networkSecurityGroup") or {}).get("id", "").lower() == key
    ]


def _show(emulator: Emulator, document: Json) -> Json:
    shown = copy.deepcopy(document)
    users = _users(emulator, str(document["id"]).lower())
    if users:
        shown["properties"]["networkInterfaces"] = [{"id": item} for item in users]
    return shown


def _rule(scope: str, asked: Json) -> Json:
    name = str(asked.get("name") or "")
    if not name:
        raise ArmError(400, "InvalidRequestFormat", "A security rule has no name.")
    check_name(name, "securityRules.name")
    rule = dict(asked.get("properties") or {})
    rule["protocol"] = one_of(rule.get("protocol"), PROTOCOLS, f"{name}.protocol")
    rule["access"] = one_of(rule.get("access"), ("Allow", "Deny"), f"{name}.access")
    rule["direction"] = one_of(rule.get("direction"), ("Inbound", "Outbound"), f"{name}.direction")
    if rule.get("priority") not in PRIORITIES:
        text = f"Security rule has invalid priority. Value provided: {rule.get('priority')}"
        raise ArmError(400, "SecurityRuleInvalidPriority", f"{text}. Priority range: 100 - 4096.")
    for side in ("source", "destination"):
        _check_side(name, rule, side)
    rule["provisioningState"] = "Succeeded"
    return {
        "name": name,
        "id": f"{scope}/securityRules/{name}",
        "etag": f'W/"{uuid.uuid4()}"',
        "type": f"{TYPE}/securityRules",
        "properties": rule,
    }


def _check_side(name: str, rule: Json, side: str) -> None:
    places = prefixes(rule, side)
    ports = [rule.get(f"{side}PortRange"), *(rule.get(f"{side}PortRanges") or [])]
    ports = [str(item) for item in ports if item]
    if not places or not ports:
        missing = "AddressPrefix" if not places else "PortRange"
        text = (
            f"Required security rule parameters are missing for security rule with Id: {name}. "
            f"Security rule must specify {side}{missing} or {side}{missing}es."
        )
        raise ArmError(400, "SecurityRuleParameterMissing", text)
    for place in places:
        if place != "*" and place.lower() not in {tag.lower() for tag in TAGS}:
            _check_cidr(name, place)
    if "*" in places and len(places) > 1:
        text = f"Security rule {name} has '*' beside other {side} address prefixes."
        raise ArmError(400, "SecurityRuleInvalidAddressPrefix", text)
    for port in ports:
        if not _PORTS.fullmatch(port):
            text = f"Security rule {name} has invalid port range. Value provided: {port}."
            raise ArmError(400, "SecurityRuleInvalidPortRange", text)


def _check_cidr(name: str, place: str) -> None:
    try:
        ipaddress.ip_network(place, strict=False)
    except ValueError as error:
        text = f"Security rule {name} has invalid address prefix. Value provided: {place}."
        raise ArmError(400, "SecurityRuleInvalidAddressPrefix", text) from error


def _check_conflicts(rules: list[Json]) -> None:
    taken: dict[tuple[str, int], str] = {}
    names: set[str] = set()
    for rule in rules:
        place = (rule["properties"]["direction"], rule["properties"]["priority"])
        if place in taken:
            text = (
                f"Security rule {rule['name']} conflicts with rule {taken[place]}. Rules cannot "
                "have the same Priority and Direction."
            )
            raise ArmError(400, "SecurityRuleConflict", text)
        if rule["name"].lower() in names:
            text = f"Security rule names must be unique: {rule['name']}."
            raise ArmError(400, "InvalidRequestFormat", text)
        taken[place] = str(rule["name"])
        names.add(rule["name"].lower())


def _default(
    scope: str, name: str, priority: int, direction: str, access: str, *sides: str
) -> Json:
    return {
        "name": name,
        "id": f"{scope}/defaultSecurityRules/{name}",
        "type": f"{TYPE}/defaultSecurityRules",
        "properties": {
            "protocol": "*",
            "sourcePortRange": "*",
            "destinationPortRange": "*",
            "sourceAddressPrefix": sides[0],
            "destinationAddressPrefix": sides[1],
            "access": access,
            "priority": priority,
            "direction": direction,
            "provisioningState": "Succeeded",
        },
    }
