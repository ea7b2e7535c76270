from __future__ import annotations

import threading

import pytest

from imageport.hypervisors.vsphere.session import VsphereSession
from tests.hypervisors.hypervisor_contract import HypervisorContract
from tests.hypervisors.vsphere_laboratory import VsphereLab


@pytest.fixture
def lab(vsphere_lab: VsphereLab) -> VsphereLab:
    return vsphere_lab


class TestVsphereHypervisor(HypervisorContract):
    pass


def test_a_call_under_way_at_the_logout_leaves_no_connection_open(lab: VsphereLab):
    session = VsphereSession(lab.settings())
    root = session.content.rootFolder
    stub = root._stub
    keep = stub.ReturnConnection
    answered, ended = threading.Event(), threading.Event()
    returned = []

    def keep_late(connection: object) -> None:
        answered.set()
        assert ended.wait(30)
        returned.append(connection)
        keep(connection)

    stub.ReturnConnection = keep_late
    beat = threading.Thread(target=lambda: root.name, daemon=True)
    beat.start()
    assert answered.wait(30)
    stub.ReturnConnection = keep
    session.close()
    ended.set()
    beat.join(30)
    assert [one.sock for one in returned] == [None]
