"""The memory cloud keeps the contract, and acts like a cloud where tests need it to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from imageport.cloud import BootOutcome, Cloud, PlaceProblem
from imageport.clouds.memory import MemoryBehaviour, MemoryCloud
from imageport.clouds.memory_blocks import GARBAGE_BLOCK, MemoryAccount, MemoryVolume
from imageport.compose.contract import Action, EngineDisk, EngineJob, EngineReport
from imageport.errors import CloudRefused, EngineFailed, ResourceGone, TransferCancelled
from imageport.model import BLOCK_BYTES
from imageport.state.ledger import Ledger
from tests.clouds.cloud_contract import (
    BLOCKS,
    SITE,
    BadPlace,
    CloudContract,
    CloudLab,
    disk_of,
)
from tests.clouds.fault_contract import CloudFaultContract
from tests.clouds.faulty_memory import Trouble, in_trouble
from tests.transfer.target_contract import PLAN, BlockTargetContract, ChildFactory, TargetFactory
from tests.transfer.target_contract import put_all as put_targets


class MemoryLab(CloudLab):
    def __init__(self, behaviour: MemoryBehaviour | None = None) -> None:
        super().__init__()
        self.account = MemoryAccount()
        self.behaviour = behaviour
        self.unwritten_reads_zero = behaviour is not None and not behaviour.starts_from_parent

    def cloud(self, run: str, *, site: str = SITE, ledger: Ledger | None = None) -> Cloud:
        return MemoryCloud(
            ledger or self.state.ledger,
            run,
            site=site,
            account=self.account,
            behaviour=self.behaviour,
        )

    def bad_place(self) -> BadPlace:
        image, problem = "g" * 300, PlaceProblem("shelf", "none", "one")
        of_image = (
            PlaceProblem(f"name of '{image[:40]}'", "300", "256"),
            PlaceProblem(f"size of '{image[:40]}'", "70000 GiB", "1 GiB"),
        )
        behaviour = MemoryBehaviour(problems=(problem, *of_image))
        return BadPlace(MemoryLab(behaviour).cloud("run-1"), frozenset({"shelf"}), image)


class TestMemoryCloud(CloudContract):
    @pytest.fixture
    def lab(self) -> CloudLab:
        return MemoryLab()


class TestMemoryCloudWhereUploadsStartEmpty(CloudContract):
    @pytest.fixture
    def lab(self) -> CloudLab:
        return MemoryLab(MemoryBehaviour(starts_from_parent=False))

    def test_what_was_never_written_reads_as_zeros_on_a_disk(self, lab: CloudLab):
        disk = disk_of(lab.cloud("run-1"))
        assert isinstance(lab, MemoryLab)
        assert lab.account.volumes[disk.id].read_at(BLOCK_BYTES, 4) == bytes(4)


class TroubledMemoryLab(MemoryLab):
    """Every request of its clouds goes through the trouble of the moment."""

    def __init__(self, behaviour: MemoryBehaviour | None = None) -> None:
        super().__init__(behaviour)
        self._trouble = Trouble()

    def cloud(self, run: str, *, site: str = SITE, ledger: Ledger | None = None) -> Cloud:
        found: Cloud = in_trouble(super().cloud(run, site=site, ledger=ledger), self._trouble)
        return found

    @contextlib.contextmanager
    def trouble(self, name: str) -> Iterator[None]:
        self._trouble.turn(name)
        try:
            yield
        finally:
            self._trouble.turn("")


class TestMemoryCloudInTrouble(CloudFaultContract):
    @pytest.fixture
    def lab(self) -> CloudLab:
        return TroubledMemoryLab()


class TestMemoryCloudInTroubleWhereUploadsStartEmpty(CloudFaultContract):
    @pytest.fixture
    def lab(self) -> CloudLab:
        return TroubledMemoryLab(MemoryBehaviour(starts_from_parent=False))


class TestMemorySnapshotTarget(BlockTargetContract):
    starts_from_parent = True

    @pytest.fixture
    def cloud(self) -> Cloud:
        behaviour = MemoryBehaviour(starts_from_parent=self.starts_from_parent)
        return MemoryLab(behaviour).cloud("run-1")

    @pytest.fixture
    def make_target(self, cloud: Cloud) -> TargetFactory:
        return lambda: cloud.upload_target("gold")

    @pytest.fixture
    def make_child(self, cloud: Cloud) -> ChildFactory:
        return lambda parent: cloud.upload_target("gold", parent=parent)


class TestMemorySnapshotTargetThatStartsEmpty(TestMemorySnapshotTarget):
    starts_from_parent = False

    def test_what_the_parent_never_held_cannot_be_taken(
        self, make_target: TargetFactory, make_child: ChildFactory
    ):
        parent = make_target()
        parent.begin(PLAN, "token-parent")
        child = make_child(parent.commit(put_targets(parent, {0: 1})))
        child.begin(PLAN, "token-child")
        for first, count in ((1, 1), (0, 2), (-1, 1), (2047, 2)):
            with pytest.raises(CloudRefused):
                child.take_from_parent(first, count)

    def test_a_parent_that_was_deleted_is_gone_for_its_children(
        self, cloud: Cloud, make_target: TargetFactory, make_child: ChildFactory
    ):
        parent = make_target()
        parent.begin(PLAN, "token-parent")
        reference = parent.commit(put_targets(parent, {0: 1}))
        child = make_child(reference)
        child.begin(PLAN, "token-child")
        cloud.delete_snapshot(reference)
        with pytest.raises(ResourceGone):
            child.take_from_parent(0, 1)


JOB = EngineJob(action=Action.COMPOSE, disk=EngineDisk(path=""))


def test_the_engine_edits_the_real_blocks_of_the_disk(tmp_path: Path):
    seen = []

    def engine(volume: MemoryVolume, job: EngineJob, payload: Path | None) -> EngineReport:
        seen.append((volume.read_at(0, BLOCK_BYTES), payload))
        volume.write_at(BLOCK_BYTES - 2, b"edit")
        return EngineReport(action=job.action, ok=True)

    cloud = MemoryLab(MemoryBehaviour(run_job=engine)).cloud("run-1")
    disk = disk_of(cloud)
    report = cloud.run_engine(disk, JOB, tmp_path, deadline_seconds=1)
    assert (report.ok, report.action) == (True, Action.COMPOSE)
    assert seen == [(BLOCKS[0], tmp_path)]
    with cloud.open_snapshot(cloud.snapshot(disk, "P")) as opened:
        assert opened.read_at(BLOCK_BYTES - 3, 6) == BLOCKS[0][-3:-2] + b"edit" + GARBAGE_BLOCK[2:3]


def test_what_was_never_written_reads_as_garbage_on_a_disk_unless_told_otherwise():
    for behaviour, expected in (
        (MemoryBehaviour(), GARBAGE_BLOCK[:4]),
        (MemoryBehaviour(unwritten=bytes(BLOCK_BYTES)), bytes(4)),
    ):
        lab = MemoryLab(behaviour)
        disk = disk_of(lab.cloud("run-1"))
        assert lab.account.volumes[disk.id].read_at(BLOCK_BYTES, 4) == expected


def test_an_engine_that_crashes_is_an_engine_that_failed():
    def engine(_volume: MemoryVolume, _job: EngineJob, _payload: Path | None) -> EngineReport:
        raise OSError("no device")

    cloud = MemoryLab(MemoryBehaviour(run_job=engine)).cloud("run-1")
    with pytest.raises(EngineFailed, match="no device"):
        cloud.run_engine(disk_of(cloud), JOB, deadline_seconds=1)


def test_the_boot_is_what_the_test_says():
    outcome = BootOutcome(stopped_by_itself=False, seconds=3.0, console_text="0x7B", reason="hung")
    cloud = MemoryLab(MemoryBehaviour(boot=lambda _volume: outcome)).cloud("run-1")
    assert cloud.boot_once(disk_of(cloud), deadline_seconds=1) is outcome


def test_a_cancelled_run_starts_neither_engine_nor_boot():
    cloud = MemoryLab().cloud("run-1")
    disk = disk_of(cloud)
    with pytest.raises(TransferCancelled):
        cloud.run_engine(disk, JOB, deadline_seconds=1, cancelled=lambda: True)
    with pytest.raises(TransferCancelled):
        cloud.boot_once(disk, deadline_seconds=1, cancelled=lambda: True)
