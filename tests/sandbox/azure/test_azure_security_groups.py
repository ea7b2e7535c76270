"""Network security groups by plain requests, as a program without the network client asks."""

from __future__ import annotations

from typing import Any

import pytest

from imageport.sandbox.azure.account import GROUP_ID, LOCATION
from tests.sandbox.azure.conftest import isolated_rules, rule

NEVER = f"{GROUP_ID}/providers/Microsoft.Network/networkSecurityGroups/never-was"


def put(azure: Any, rules: Any, name: str = "refused"):
    path = NEVER.replace("never-was", name)
    body = {"location": LOCATION, "properties": {"securityRules": rules}}
    return azure.ask("PUT", path, body)


def test_a_group_has_its_rules_and_those_of_azure(azure: Any):
    group_id = azure.group()
    status, found, _ = azure.ask("GET", group_id)
    assert status == 200
    names = [item["name"] for item in found["properties"]["securityRules"]]
    assert names == [item["name"] for item in isolated_rules()]
    defaults = {item["name"] for item in found["properties"]["defaultSecurityRules"]}
    assert {"AllowVnetInBound", "AllowInternetOutBound", "DenyAllOutBound"} < defaults
    _, listed, _ = azure.ask("GET", group_id.rsplit("/", 1)[0])
    assert group_id in [item["id"] for item in listed["value"]]


def test_a_new_group_is_made_by_an_operation(azure: Any):
    azure.service.turn(state_seconds=0.5)
    status, document, headers = put(azure, isolated_rules(), "slow")
    assert status == 201
    assert document["properties"]["provisioningState"] == "Updating"
    assert "/providers/Microsoft.Network/locations/" in headers["Azure-AsyncOperation"]
    url = headers["Azure-AsyncOperation"]
    azure.until(lambda: azure.ask("GET", url, version="")[1]["status"] == "Succeeded")
    assert put(azure, [], "slow")[0] == 200


def test_tags_of_a_group_are_changed_by_patch(azure: Any):
    group_id = azure.group()
    status, document, _ = azure.ask("PATCH", group_id, {"tags": {"imageport:run": "r"}})
    assert (status, document["tags"]) == (200, {"imageport:run": "r"})
    assert azure.ask("PATCH", NEVER, {"tags": {}})[0] == 404


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"priority": 99}, "SecurityRuleInvalidPriority"),
        ({"priority": 4097}, "SecurityRuleInvalidPriority"),
        ({"direction": "Sideways"}, "InvalidParameter"),
        ({"protocol": "Smtp"}, "InvalidParameter"),
        ({"destinationAddressPrefix": None}, "SecurityRuleParameterMissing"),
        ({"sourcePortRange": None}, "SecurityRuleParameterMissing"),
        ({"destinationAddressPrefix": "AzureMoon"}, "SecurityRuleInvalidAddressPrefix"),
        ({"destinationAddressPrefix": "10.0.0.0/40"}, "SecurityRuleInvalidAddressPrefix"),
        ({"destinationAddressPrefixes": ["10.0.0.0/8"]}, "SecurityRuleInvalidAddressPrefix"),
        ({"destinationPortRange": "http"}, "SecurityRuleInvalidPortRange"),
        ({"destinationPorts": "80"}, "BadRequest"),
    ],
)
def test_rules_that_azure_does_not_take_are_refused(azure: Any, change: Any, code: str):
    wrong = rule("wrong", 200, "Outbound", "Deny")
    wrong["properties"] |= change
    status, document, _ = put(azure, [wrong])
    assert (status, document["error"]["code"]) == (400, code)


def test_two_rules_do_not_share_a_priority(azure: Any):
    rules = [rule("a", 200, "Outbound", "Deny"), rule("b", 200, "Outbound", "Allow")]
    assert put(azure, rules)[1]["error"]["code"] == "SecurityRuleConflict"
    rules[1]["properties"]["direction"] = "Inbound"
    assert put(azure, rules)[0] == 201


def test_a_group_in_use_is_not_deleted(azure: Any):
    group_id = azure.group()
    disk = azure.disk()
    storage = {
        "osDisk": {
            "createOption": "Attach",
            "osType": "Windows",
            "managedDisk": {"id": azure.disk_id(disk)},
        }
    }
    machine = azure.make_machine(azure.machine_body(group_id, storage))
    status, document, _ = azure.ask("DELETE", group_id)
    code = document["error"]["code"]
    assert (status, code) == (400, "InUseNetworkSecurityGroupCannotBeDeleted")
    assert "networkInterfaces" in azure.ask("GET", group_id)[1]["properties"]
    azure.delete_machine(machine)
    assert azure.ask("DELETE", group_id)[0] == 202
    azure.until(lambda: azure.ask("GET", group_id)[0] == 404)
    assert azure.ask("DELETE", group_id)[0] == 204
