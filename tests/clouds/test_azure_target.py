"""The managed disk target keeps the contract of block targets, also when Azure fails or forgets."""

from __future__ import annotations

import pytest

from imageport.clouds.azure.managed_disk_target import ManagedDiskTarget
from tests.clouds.azure_laboratory import AzureLab
from tests.transfer.target_contract import BlockTargetContract, ChildFactory, TargetFactory


class TestManagedDiskTarget(BlockTargetContract):
    @pytest.fixture
    def make_target(self, azure_lab: AzureLab) -> TargetFactory:
        return lambda: ManagedDiskTarget(azure_lab.account("run-1"), "gold")

    @pytest.fixture
    def make_child(self, azure_lab: AzureLab) -> ChildFactory:
        return lambda parent: ManagedDiskTarget(azure_lab.account("run-1"), "gold", parent=parent)
