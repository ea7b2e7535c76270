from __future__ import annotations

import pytest

from imageport.cloud import PermissionGap
from imageport.errors import (
    ExportInterrupted,
    HypervisorRefused,
    HypervisorUnreachable,
    VerificationFailed,
    VmMissing,
)
from imageport.hypervisor import ExportTraits, FrozenDisk
from imageport.hypervisors.memory import MemoryHypervisor
from imageport.hypervisors.memory_pool import MemoryPool
from imageport.model import MIB
from tests.hypervisors.hypervisor_contract import (
    SNAPSHOT,
    HypervisorContract,
    HypervisorLab,
    received,
)

CONTENT = b"boot" + bytes(MIB) + b"\x11" * MIB + bytes(MIB) + bytes(range(256)) * 8192


class MemoryLab(HypervisorLab):
    """One pool; every connection is a client of it."""

    path = "/site/masters/gold"
    twin_name = "twin"
    secret = "never there"

    def __init__(self) -> None:
        self.pool = MemoryPool()
        self.machine = self.pool.add(self.path, size_bytes=8 * MIB, content=CONTENT)
        for place in ("a", "b"):
            self.pool.add(f"/site/{place}/{self.twin_name}")

    def connect(self) -> MemoryHypervisor:
        return MemoryHypervisor(self.pool)

    def content(self) -> bytes:
        disk = self.machine.disks[0]
        return disk.read_at(0, disk.size_bytes)

    def write(self, offset_bytes: int, data: bytes) -> None:
        self.machine.disks[0].write_at(offset_bytes, data)

    def take_foreign_snapshot(self, name: str) -> None:
        self.machine.snapshot(name)

    def snapshot_names(self) -> list[str]:
        return [snapshot.name for snapshot, _ in self.machine.snapshots.values()]

    def exports_under_way(self) -> int:
        return len(self.pool.exports)

    def forget_snapshot(self, name: str) -> None:
        for key, (snapshot, _) in list(self.machine.snapshots.items()):
            if snapshot.name == name:
                del self.machine.snapshots[key]

    def take_privilege_away(self) -> str:
        self.pool.faults.gaps.append(PermissionGap("disk.read", "export", "not granted"))
        return "disk.read"

    def cut_next_stream(self, after_bytes: int) -> None:
        self.pool.faults.cut_after_bytes.append(after_bytes)


@pytest.fixture
def lab() -> MemoryLab:
    return MemoryLab()


class TestMemoryHypervisor(HypervisorContract):
    pass


def frozen_of(link: MemoryHypervisor, lab: MemoryLab) -> FrozenDisk:
    vm = link.find_vm(lab.path)
    return link.freeze(vm, link.take_snapshot(vm, SNAPSHOT), vm.disk())


def test_a_damaged_stream_is_found_at_its_end(lab: MemoryLab):
    lab.pool.faults.wrong_checksums = 1
    with lab.connect() as link:
        frozen = frozen_of(link, lab)
        with pytest.raises(VerificationFailed, match="another checksum"):
            received(link.open_stream(frozen))
        assert received(link.open_stream(frozen)) == lab.content()


def test_calls_without_an_answer_are_tried_again_by_the_caller(lab: MemoryLab):
    lab.pool.faults.unreachable = 1
    with lab.connect() as link:
        with pytest.raises(HypervisorUnreachable):
            link.find_vm(lab.path)
        assert link.find_vm(lab.path)


def test_ranges_can_be_refused_while_streams_go_on(lab: MemoryLab):
    lab.pool.faults.ranges_refused = "its parent is a delta"
    with lab.connect() as link:
        frozen = frozen_of(link, lab)
        with pytest.raises(HypervisorRefused, match="its parent is a delta"):
            link.open_ranges(frozen)
        assert received(link.open_stream(frozen)) == lab.content()


def test_a_snapshot_removed_under_a_reader_interrupts_it(lab: MemoryLab):
    def remove(received_bytes: int) -> None:
        if received_bytes > MIB:
            lab.forget_snapshot(SNAPSHOT)

    lab.pool.faults.on_piece = remove
    with lab.connect() as link:
        frozen = frozen_of(link, lab)
        with pytest.raises(ExportInterrupted, match="its snapshot is gone"):
            received(link.open_stream(frozen))
        with pytest.raises(VmMissing):
            link.open_stream(frozen)
    assert not lab.pool.exports


def test_exports_of_a_killed_run_end_with_their_snapshot(lab: MemoryLab):
    killed, link = lab.connect(), lab.connect()
    frozen = frozen_of(killed, lab)
    pieces = killed.open_stream(frozen).pieces()
    next(pieces)
    link.remove_snapshot(frozen.vm, frozen.snapshot)
    assert not lab.pool.exports
    with pytest.raises(ExportInterrupted, match="the export was ended"):
        next(pieces)
    for one in (killed, link):
        one.close()
    assert lab.pool.connections == 0


def test_a_pool_without_tracking_gives_no_change_ids(lab: MemoryLab):
    lab.pool.traits = ExportTraits(ranges=True)
    with lab.connect() as link:
        frozen = frozen_of(link, lab)
        assert frozen.change_id == ""
        assert link.changed_areas(frozen, "") is None
