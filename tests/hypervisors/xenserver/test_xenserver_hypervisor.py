"""XenServer keeps what every hypervisor promises."""

from __future__ import annotations

from tests.hypervisors.hypervisor_contract import HypervisorContract


class TestXenServer(HypervisorContract):
    pass
