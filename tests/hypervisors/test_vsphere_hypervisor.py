from __future__ import annotations

import pytest

from tests.hypervisors.hypervisor_contract import HypervisorContract
from tests.hypervisors.vsphere_laboratory import VsphereLab


@pytest.fixture
def lab(vsphere_lab: VsphereLab) -> VsphereLab:
    return vsphere_lab


class TestVsphereHypervisor(HypervisorContract):
    pass
