"""Export from a pool: VHD over HTTPS becomes a VHDX; nothing of ours stays in the pool."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imageport.citrix.vdisk_store import VdiskStore
from imageport.errors import ExportInterrupted
from imageport.formats.opening import open_disk
from imageport.model import MIB
from imageport.progress import Event
from imageport.sandbox.xenserver.pool import EmulatedPool
from imageport.state.records import Generation
from imageport.state.store import StateStore
from imageport.storage.memory import MemoryFolder
from imageport.workflow.export import export
from imageport.workflow.master import ExportPlace, WantedMaster, export_target
from tests.hypervisors.xenserver.xenserver_lab import PASSWORD, USER, XenServerLab


class PoolSite:
    """A pool, an export folder and a state store; every export is a process of its own."""

    def __init__(self, lab: XenServerLab) -> None:
        self.lab = lab
        self.state = StateStore(MemoryFolder())
        self.folder = MemoryFolder()
        self.events: list[Event] = []

    def exported(self, run: str, **wanted: Any) -> Generation:
        with self.lab.connect() as link:
            place = ExportPlace(
                "onprem", export_target("onprem"), run, self.state, link,
                VdiskStore(self.folder), events=self.events.append,
            )  # fmt: skip
            return export(place, WantedMaster(self.lab.path, **wanted))

    def content(self, generation: Generation) -> bytes:
        name = generation.handle["file_name"]
        with open_disk(self.folder.open_read(name), self.folder) as disk:
            return disk.read_at(0, disk.size_bytes)

    def notes(self) -> str:
        return "\n".join(event.note for event in self.events if event.note)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[PoolSite]:
    with EmulatedPool(tmp_path, {USER: (PASSWORD, "vm-power-admin")}) as pool:
        yield PoolSite(XenServerLab(pool))


def test_the_folder_holds_the_masters_disk_and_the_pool_nothing_of_ours(site: PoolSite):
    assert site.content(site.exported("run-1")) == site.lab.content()
    assert site.lab.pool.left_behind() == []


def test_an_export_that_was_cut_is_finished_by_the_next_try(site: PoolSite):
    site.lab.pool.knobs.cuts = [5_000_000]
    site.lab.pool.knobs.keeps_disk_attached = True
    with pytest.raises(ExportInterrupted):
        site.exported("run-1")
    assert site.content(site.exported("run-1")) == site.lab.content()
    assert site.lab.pool.left_behind() == []


def test_between_snapshots_that_are_kept_only_what_changed_is_sent(site: PoolSite):
    site.lab.take_foreign_snapshot("month 1")
    site.exported("run-1", snapshot="month 1")
    site.lab.write(6 * MIB, bytes(MIB))
    site.lab.write(9 * MIB, b"new")
    site.lab.take_foreign_snapshot("month 2")
    second = site.exported("run-2", snapshot="month 2")
    assert "base" in site.lab.pool.exports.requests[-1]
    assert "2 of 6 blocks came" in site.notes()
    assert site.content(second) == site.lab.content()
    assert site.lab.snapshot_names() == ["month 1", "month 2"]


def test_without_the_earlier_snapshot_all_is_sent_and_said(site: PoolSite):
    site.lab.take_foreign_snapshot("month 1")
    site.exported("run-1", snapshot="month 1")
    site.lab.forget_snapshot("month 1")
    site.lab.write(0, b"new boot sector")
    assert site.content(site.exported("run-2")) == site.lab.content()
    assert "All is read" in site.notes()
