"""The Google cloud keeps the contract, against an emulator as strict as Google's documentation."""

from __future__ import annotations

from typing import Any

import pytest

from imageport.clouds.gcp.names import image_id
from imageport.clouds.sweep import sweep
from tests.clouds.cloud_contract import (
    BLOCKS,
    SITE,
    BadPlace,
    CloudContract,
    CloudLab,
    generation,
    in_days,
    plan_of,
    uploaded,
)
from tests.clouds.fault_contract import CloudFaultContract
from tests.clouds.gcp_laboratory import GcpConnections, GcpLab


class GcpContractLab(GcpLab):
    """The project, with what is its own of all that the contract leaves open."""

    def __init__(self, connections: GcpConnections) -> None:
        super().__init__(connections)
        self.nowhere = image_id(self.settings(), "nowhere")

    def bad_place(self) -> BadPlace:
        wrong: dict[str, Any] = {
            "site": "frankfurt/köln",
            "subnet": f"{self.settings().subnet}-no",
            "bucket": "imageport-nowhere",
            "boot_machine_type": "n9-standard-2",
            "disk_type": "pd-no",
            "engine_image": image_id(self.settings(), "nowhere"),
            "kms_key": "projects/k-1/locations/us/keyRings/r/cryptoKeys/k",
        }
        return BadPlace(self.gcp_cloud("run-1", **wrong), frozenset(wrong))


@pytest.fixture
def contract_lab(gcp_lab: GcpLab) -> CloudLab:
    """Emptied with the laboratory that it shares a project with."""
    return GcpContractLab(gcp_lab.connections)


class TestGcpCloud(CloudContract):
    @pytest.fixture
    def lab(self, contract_lab: CloudLab) -> CloudLab:
        return contract_lab


class TestGcpCloudInTrouble(CloudFaultContract):
    @pytest.fixture
    def lab(self, contract_lab: CloudLab) -> CloudLab:
        return contract_lab


def test_what_lies_in_another_region_or_bucket_is_left_to_the_sweep_of_that(gcp_lab: GcpLab):
    marker = gcp_lab.cloud("run-1").upload_target("gold").begin(plan_of(BLOCKS), "t-1")
    elsewhere = gcp_lab.gcp_cloud("run-2", region="europe-west1", zone="europe-west1-b", subnet="")
    assert elsewhere.scope != gcp_lab.cloud("run-1").scope
    assert [item.id for item in gcp_lab.cloud("run-2").list_ours(SITE)] == [marker]


def test_a_sweep_of_one_sites_parent_never_harms_an_image_that_shares_its_blocks(gcp_lab: GcpLab):
    cloud = gcp_lab.cloud("run-1")
    parent = uploaded(cloud, BLOCKS)
    child = uploaded(cloud, {5: BLOCKS[0]}, token="t-2", parent=parent, unchanged=BLOCKS)
    gcp_lab.state.catalogue.add(generation(child))
    swept = sweep(gcp_lab.cloud("sweep"), gcp_lab.state, SITE, in_days(400))
    assert [item.id for item in swept] == [parent]
    with cloud.open_snapshot(child) as disk:
        for index, data in {**BLOCKS, 5: BLOCKS[0]}.items():
            assert disk.read_at(index * len(data), len(data)) == data
