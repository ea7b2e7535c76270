"""XenServer keeps what every hypervisor promises; what is its own is tested beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imageport.sandbox.xenserver.pool import EmulatedPool
from tests.hypervisors.hypervisor_contract import HypervisorContract
from tests.hypervisors.xenserver_lab import PASSWORD, USER, XenServerLab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[XenServerLab]:
    users = {USER: (PASSWORD, "vm-power-admin"), "root": ("toor", "")}
    with EmulatedPool(tmp_path, users) as pool:
        yield XenServerLab(pool)


class TestXenServer(HypervisorContract):
    pass
