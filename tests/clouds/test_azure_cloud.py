"""The Azure cloud keeps the contract, against an emulator as strict as Azure's documentation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from imageport.clouds.azure.access_grant import AccessGrant
from imageport.clouds.azure.cloud import AzureCloud
from imageport.clouds.azure.names import SNAPSHOTS, resource_id
from imageport.clouds.sweep import sweep
from tests.clouds.azure_laboratory import AzureConnections, AzureLab
from tests.clouds.cloud_contract import (
    BLOCKS,
    SITE,
    TOKEN,
    BadPlace,
    CloudContract,
    CloudLab,
    Killed,
    generation,
    in_days,
    plan_of,
    uploaded,
)
from tests.clouds.fault_contract import CloudFaultContract


class AzureContractLab(AzureLab):
    """The subscription, with what is its own of all that the contract leaves open."""

    unwritten_reads_zero = True
    handle_is_reference = False
    gives_access = True

    def __init__(self, connections: AzureConnections) -> None:
        super().__init__(connections)
        self._bad: AzureCloud | None = None
        self.nowhere = resource_id(self.settings(), SNAPSHOTS, "nowhere")

    def bad_place(self) -> BadPlace:
        group = f"{self.settings().group_id}/providers/Microsoft.Network/networkSecurityGroups/no"
        wrong: dict[str, Any] = {
            "site": "frankfurt/main",
            "subnet_id": f"{self.settings().subnet_id}-no",
            "boot_vm_size": "Standard_No_v9",
            "engine_network_security_group_id": group,
            "job_container_url": f"{self.settings().job_container_url}-no",
            "disk_sku": "UltraSSD_LRS",
        }
        # With clients of its own: those that are shared know the right container.
        credential, ledger = self.connections.credential, self.state.ledger
        self._bad = AzureCloud(self.settings(**wrong), credential, ledger, "run-1")
        return BadPlace(self._bad, frozenset(wrong))

    def empty(self) -> None:
        if self._bad is not None:
            self._bad.close()
        super().empty()


class TestAzureCloud(CloudContract):
    @pytest.fixture
    def lab(self, azure_connections: AzureConnections) -> Iterator[CloudLab]:
        lab = AzureContractLab(azure_connections)
        try:
            yield lab
        finally:
            lab.empty()


class TestAzureCloudInTrouble(CloudFaultContract):
    @pytest.fixture
    def lab(self, azure_lab: AzureLab) -> CloudLab:
        return azure_lab


def test_an_upload_killed_before_its_footer_is_swept_although_azure_takes_it_for_no_disk(
    azure_lab: AzureLab, monkeypatch: pytest.MonkeyPatch
):
    real = AccessGrant.url

    def granted_and_killed(grant: AccessGrant) -> str:
        real(grant)
        raise Killed(grant.arm_id)

    with monkeypatch.context() as patch:
        patch.setattr(AccessGrant, "url", granted_and_killed)
        with pytest.raises(Killed):
            azure_lab.cloud("run-1").upload_target("gold").begin(plan_of(BLOCKS), TOKEN)
    cloud = azure_lab.cloud("run-2")
    assert [item.kind for item in cloud.list_ours(SITE)] == ["disk", "access"]
    swept = sweep(cloud, azure_lab.state, SITE, in_days(2))
    assert [item.kind for item in swept] == ["access", "disk"]
    assert cloud.list_ours(SITE) == []
    assert azure_lab.state.ledger.open_entries() == []


def test_a_catalogue_that_writes_an_id_in_another_case_still_keeps_its_image(azure_lab: AzureLab):
    cloud = azure_lab.cloud("run-1")
    reference = uploaded(cloud, BLOCKS)
    azure_lab.state.catalogue.add(generation(reference.upper()))
    assert sweep(cloud, azure_lab.state, SITE, in_days(400)) == []
    assert cloud.exists(reference)
    assert azure_lab.state.ledger.open_entries() == []


def test_what_lies_in_another_location_is_left_to_the_sweep_of_that_location(azure_lab: AzureLab):
    disk = azure_lab.cloud("run-1").upload_target("gold").begin(plan_of(BLOCKS), TOKEN)
    elsewhere = azure_lab.azure_cloud("run-2", location="westeurope")
    assert sweep(elsewhere, azure_lab.state, SITE, in_days(400)) == []
    assert elsewhere.list_ours(SITE) == []
    assert azure_lab.disks() == [disk]
