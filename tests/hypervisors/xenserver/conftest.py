"""A pool of its own for every test: faults and leftovers are counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imageport.hypervisors.xenserver.hypervisor import XenServerHypervisor
from imageport.sandbox.xenserver.pool import EmulatedPool
from tests.hypervisors.xenserver.xenserver_lab import PASSWORD, USER, XenServerLab

USERS = {
    USER: (PASSWORD, "vm-power-admin"),
    "admin": (PASSWORD, "vm-admin"),
    "nobody": (PASSWORD, ""),
    "root": (PASSWORD, ""),
}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[XenServerLab]:
    with EmulatedPool(tmp_path, USERS) as pool:
        yield XenServerLab(pool)


@pytest.fixture
def link(lab: XenServerLab) -> Iterator[XenServerHypervisor]:
    with lab.connect() as connection:
        yield connection
