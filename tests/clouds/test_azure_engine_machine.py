"""The engine machine: made without an identity, fetches its job by signed URLs and ends itself."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from imageport.clouds import engine_setup
from imageport.clouds.azure.job_folder import JobFolder
from imageport.clouds.azure.network import GroupOfRun
from imageport.clouds.azure.virtual_machines import MachinePlan, describe_machine
from imageport.errors import CloudRefused, CloudUnavailable
from imageport.sandbox.azure.account import ENGINE_IMAGE_ID, RESOURCE_GROUP
from tests.clouds.azure_laboratory import CALM, AzureLab
from tests.clouds.cloud_contract import disk_of
from tests.clouds.engine_contract import (
    DEADLINE_SECONDS,
    EngineMachineContract,
    MachineThatStaysContract,
    job,
)
from tests.clouds.machine_lab import MachineLab
from tests.clouds.stand_in_guest import guest_of


class TestAzureEngineMachine(EngineMachineContract, MachineThatStaysContract):
    @pytest.fixture
    def lab(self, azure_lab: AzureLab) -> MachineLab:
        return azure_lab

    def is_off(self, lab: MachineLab, machine: str) -> bool:
        """Billed until it is deleted, which is why the sweep does."""
        assert isinstance(lab, AzureLab)
        facts = describe_machine(lab.account("look"), machine)
        return facts is not None and facts.power == "stopped"

    def look(self, lab: MachineLab, machine: str) -> Any:
        assert isinstance(lab, AzureLab)
        name = machine.rsplit("/", maxsplit=1)[-1]
        kind = "Microsoft.Network/networkSecurityGroups"
        path = f"{lab.settings().group_id}/providers/{kind}"
        groups = lab.clients.arm.pages(path, "2024-05-01", f"{kind}/read")
        rules = [
            rule["properties"] for item in groups for rule in item["properties"]["securityRules"]
        ]
        return lab.clients.compute.virtual_machines.get(RESOURCE_GROUP, name).as_dict(), rules

    def check_bounds(self, seen: Any, *, installs: bool) -> None:
        machine, rules = seen
        assert "identity" not in machine
        properties = machine["properties"]
        linux = properties["osProfile"]["linuxConfiguration"]
        assert linux["disablePasswordAuthentication"] is True
        assert linux["provisionVMAgent"] is False
        assert properties["osProfile"]["allowExtensionOperations"] is False
        assert properties["storageProfile"]["dataDisks"][0]["deleteOption"] == "Detach"
        assert "publicIPAddress" not in str(properties)
        inbound = [rule for rule in rules if rule["direction"] == "Inbound"]
        assert [rule["access"] for rule in inbound] == ["Deny"]
        allowed = [rule for rule in rules if rule["access"] == "Allow"]
        # Package mirrors speak plain HTTP; an engine image of one's own needs no packages.
        ports = ["443", "80"] if installs else ["443"]
        assert [rule["destinationPortRanges"] for rule in allowed] == [ports]

    @pytest.mark.slow
    def test_a_machine_of_an_engine_image_needs_no_packages(self, azure_lab: AzureLab):
        cloud = azure_lab.azure_cloud("run-1", engine_image_id=ENGINE_IMAGE_ID)
        report, _, seen = self.run_and_look(azure_lab, cloud, disk_of(cloud))
        assert report.ok
        self.check_bounds(seen, installs=False)

    @pytest.mark.parametrize(
        ("knobs", "error", "message"),
        [
            (
                {"missing_sizes": ["Standard_D2s_v5"]},
                (CloudRefused, CloudUnavailable),
                r"Standard_D2s_v5 is not to be had in germanywestcentral",
            ),
            pytest.param(
                {"quota_vcpus": 1},
                CloudRefused,
                r"Raise the quota of the subscription",
                marks=pytest.mark.slow,
            ),
        ],
    )
    def test_a_machine_that_cannot_be_had_says_what_to_do_and_leaves_nothing(
        self, azure_lab: AzureLab, knobs: dict[str, Any], error: Any, message: str
    ):
        cloud = azure_lab.cloud("run-1")
        disk = disk_of(cloud)
        azure_lab.service.turn(**knobs)
        with pytest.raises(error, match=message):
            cloud.run_engine(disk, job(azure_lab), deadline_seconds=DEADLINE_SECONDS)
        azure_lab.service.turn(**CALM)
        assert azure_lab.only_disk_is_left(disk)

    def test_a_machine_whose_making_fails_at_azure_leaves_nothing(self, azure_lab: AzureLab):
        group = GroupOfRun(azure_lab.account("run-0"), "engine", "")
        group.make([])
        cloud = azure_lab.azure_cloud("run-1", engine_network_security_group_id=group.id)
        disk = disk_of(cloud)
        azure_lab.service.turn(failed_operations=1)
        with pytest.raises(CloudUnavailable, match="Cannot start 'imageport-engine-"):
            cloud.run_engine(disk, job(azure_lab), deadline_seconds=DEADLINE_SECONDS)
        group.remove()
        assert azure_lab.only_disk_is_left(disk)

    @pytest.mark.slow
    def test_a_group_whose_making_fails_once_is_made_again(self, azure_lab: AzureLab):
        cloud = azure_lab.cloud("run-1")
        disk = disk_of(cloud)
        azure_lab.service.turn(failed_operations=1)
        assert cloud.run_engine(disk, job(azure_lab), deadline_seconds=DEADLINE_SECONDS).ok
        assert azure_lab.only_disk_is_left(disk)

    @pytest.mark.slow
    def test_a_series_that_shows_its_disks_as_nvme_serves_for_both_machines(
        self, azure_lab: AzureLab, tmp_path: Path
    ):
        guest_of(azure_lab.service, tmp_path)("work")
        series = {"engine_vm_size": "Standard_D2s_v6", "boot_vm_size": "Standard_D2s_v6"}
        cloud = azure_lab.azure_cloud("run-1", **series)
        disk = disk_of(cloud)
        assert cloud.run_engine(disk, job(azure_lab), deadline_seconds=DEADLINE_SECONDS).ok
        assert cloud.boot_once(disk, deadline_seconds=DEADLINE_SECONDS).stopped_by_itself
        assert azure_lab.only_disk_is_left(disk)


def test_a_url_of_a_job_does_one_thing_to_one_blob_for_the_time_of_the_job(azure_lab: AzureLab):
    folder = JobFolder(azure_lab.account("run-1"), "engine-job", "facts")
    read, write = folder.read_url("in", 600.0), folder.write_url("out", 600.0)
    folder.write("in", b"something")
    assert (fetch("GET", read), fetch("GET", write)) == (200, 403)
    assert fetch("GET", read.replace("/in?", "/out?")) == 403
    assert fetch("PUT", write, b"report") == 201
    assert folder.read("out") == b"report"
    assert fetch("PUT", read, b"report") == 403
    assert fetch("DELETE", write) == 403
    assert "sig=" not in repr(folder) + repr(vars(folder).get("_key"))
    folder.delete()
    assert folder.read("in") is None
    assert azure_lab.state.ledger.open_entries() == []


def fetch(method: str, url: str, body: bytes | None = None) -> int:
    import requests  # noqa: PLC0415 - not what the machine itself uses

    headers = {"x-ms-blob-type": "BlockBlob"} if body is not None else {}
    with requests.Session() as session:
        return session.request(method, url, data=body, headers=headers, timeout=10).status_code


def test_a_plan_that_is_printed_shows_no_custom_data():
    plan = MachinePlan("Standard_D2s_v5", "subnet", "group", {}, {"customData": "5ecre7"})
    assert "5ecre7" not in f"{plan!r}{plan}"


def test_the_custom_data_fits_into_what_azure_takes():
    text = engine_setup.user_data("https://account.blob/" + "x" * 3000, "0" * 64, 60)
    assert len(base64.b64encode(text.encode())) < 64 * 1024
