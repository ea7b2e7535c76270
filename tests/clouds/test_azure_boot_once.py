"""The one boot: the composed disk as the system disk of a machine that reaches nothing."""

from __future__ import annotations

from typing import Any

import pytest

from imageport.clouds.azure.arm_http import NETWORK_API
from imageport.clouds.azure.network import isolated_group, isolated_rules
from imageport.sandbox.azure.account import RESOURCE_GROUP
from tests.clouds.azure_laboratory import AzureLab
from tests.clouds.boot_contract import DEADLINE_SECONDS, BootOnceContract
from tests.clouds.cloud_contract import disk_of
from tests.clouds.machine_lab import ChooseGuest, MachineLab


class TestAzureBootOnce(BootOnceContract):
    @pytest.fixture
    def lab(self, azure_lab: AzureLab) -> MachineLab:
        return azure_lab

    def look(self, lab: MachineLab, machine: str) -> Any:
        assert isinstance(lab, AzureLab)
        name = machine.rsplit("/", maxsplit=1)[-1]
        return lab.clients.compute.virtual_machines.get(RESOURCE_GROUP, name).as_dict()

    def check_alone(self, seen: Any) -> None:
        properties = seen["properties"]
        assert "identity" not in seen
        assert "osProfile" not in properties
        assert "securityProfile" not in properties
        assert "licenseType" not in properties
        assert "publicIPAddress" not in str(properties)
        disk = properties["storageProfile"]["osDisk"]
        assert (disk["createOption"], disk["deleteOption"]) == ("Attach", "Detach")

    @pytest.mark.slow
    def test_without_a_job_container_the_boot_works_and_says_that_it_has_no_screenshot(
        self, azure_lab: AzureLab, guest: ChooseGuest
    ):
        guest("hang")
        disk = disk_of(azure_lab.cloud("run-1"))
        cloud = azure_lab.azure_cloud("run-1", job_container_url="")
        outcome = cloud.boot_once(disk, deadline_seconds=4)
        assert outcome.reason == "still running after 4 s; no screenshot (no job_container_url)"
        assert azure_lab.only_disk_is_left(disk)

    @pytest.mark.slow
    def test_a_lost_answer_leaves_nothing_twice(self, azure_lab: AzureLab, guest: ChooseGuest):
        guest("work")
        cloud = azure_lab.cloud("run-1")
        disk, before = disk_of(cloud), azure_lab.started()
        azure_lab.service.turn(lost_answers=2)
        assert cloud.boot_once(disk, deadline_seconds=DEADLINE_SECONDS).stopped_by_itself
        assert len(azure_lab.started() - before) == 1
        assert azure_lab.only_disk_is_left(disk)


def group_rules(lab: AzureLab, group_id: str) -> list[dict[str, Any]]:
    action = "Microsoft.Network/networkSecurityGroups/read"
    group = lab.clients.arm.get(group_id, NETWORK_API, action)
    assert group is not None
    return [item["properties"] for item in group["properties"]["securityRules"]]


def test_named_destinations_are_the_only_way_out(azure_lab: AzureLab):
    named = ("10.0.0.5/32", "10.1.0.0/16")
    account = azure_lab.account("run-1", boot_egress_cidrs=named)
    group = isolated_group(account)
    for _again in range(2):
        group.make(isolated_rules(account.settings))
        assert isolated_group(account).id == group.id
    rules = sorted(group_rules(azure_lab, group.id), key=lambda rule: rule["priority"])
    outbound = [rule for rule in rules if rule["direction"] == "Outbound"]
    # The platform's own addresses come before what is opened.
    assert [rule["access"] for rule in outbound] == ["Deny", "Deny", "Deny", "Allow", "Deny"]
    assert outbound[3]["destinationAddressPrefixes"] == list(named)
    assert outbound[4]["destinationAddressPrefix"] == "*"
    assert [rule["access"] for rule in rules if rule["direction"] == "Inbound"] == ["Deny"]
    for _again in range(2):
        group.remove()
    assert azure_lab.state.ledger.open_entries() == []


def test_a_group_that_the_operator_names_is_used_and_kept(azure_lab: AzureLab):
    kind = "Microsoft.Network/networkSecurityGroups"
    mine = f"{azure_lab.settings().group_id}/providers/{kind}/mine"
    account = azure_lab.account("run-1", isolated_network_security_group_id=mine)
    group = isolated_group(account)
    group.make(isolated_rules(account.settings))
    group.remove()
    assert group.id == mine
    assert azure_lab.state.ledger.open_entries() == []
