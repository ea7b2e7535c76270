"""The Azure cloud keeps the contract, against an emulator as strict as Azure's documentation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from imageport.clouds.azure.cloud import AzureCloud
from imageport.clouds.azure.names import SNAPSHOTS, resource_id
from tests.clouds.azure_laboratory import AzureConnections, AzureLab
from tests.clouds.cloud_contract import BadPlace, CloudContract, CloudLab


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

    def turn(self, **knobs: object) -> None:
        self.service.turn(**knobs)


class TestAzureCloud(CloudContract):
    @pytest.fixture
    def lab(self, azure_connections: AzureConnections) -> Iterator[CloudLab]:
        lab = AzureContractLab(azure_connections)
        try:
            yield lab
        finally:
            lab.empty()
