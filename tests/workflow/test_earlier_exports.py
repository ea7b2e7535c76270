"""What lies in the export folder already: whose it is, what of it counts, and what may go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from imageport.errors import NameTaken
from imageport.formats.vhdx_writer import VhdxWriter
from imageport.hypervisor import ExportTraits
from imageport.model import MIB
from imageport.workflow import export_bytes
from imageport.workflow.export import export
from imageport.workflow.export_preflight import identify
from imageport.workflow.facts import opened_source
from imageport.workflow.master import WantedMaster, export_target
from tests.workflow.export_site import SIZE_BYTES, VM, ExportSite

RETIRE = "imageport.workflow.export.retire_exports"
LONG_AGO_NS = 1_700_000_000_000_000_000


@pytest.fixture
def site() -> ExportSite:
    return ExportSite()


def given(site: ExportSite) -> bytes:
    """What the next stage reads of the image."""
    with opened_source(site.store, "win11", accept_lock=False) as (_facts, disk):
        return disk.read_at(0, disk.size_bytes)


def put_foreign(site: ExportSite, name: str) -> None:
    with site.store.folder.create(name) as file:
        VhdxWriter(file, SIZE_BYTES).finish()


def damage(site: ExportSite, name: str, content: bytes) -> None:
    """Change bytes of a file so that neither its size nor its time tells."""
    stat = site.store.folder.stat(name)
    assert stat is not None
    with site.store.folder.open_write(name) as file:
        place = file.read_at(0, file.size_bytes).index(content)
        file.write_at(place, bytes(len(content)))
    site.store.folder.set_last_write(name, stat.last_write_ns)


def two_exports(site: ExportSite, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, bytes]:
    """Export two snapshots; the run of the second is killed before the first can go."""
    site.machine.snapshot("one")
    one = site.master()
    site.exported(snapshot="one")
    site.write(6 * MIB, b"\x09" * 4096)
    site.machine.snapshot("two")
    with monkeypatch.context() as patch:
        patch.setattr(RETIRE, lambda *_: [])
        site.exported("run-2", snapshot="two")
    assert site.files() == ["win11.1.vhdx", "win11.vhdx", "win11.xml"]
    return one, site.master()


@pytest.mark.parametrize("traits", [ExportTraits(), ExportTraits(differences=True), None])
def test_an_older_snapshot_that_is_asked_for_again_is_what_is_brought(
    site: ExportSite, monkeypatch: pytest.MonkeyPatch, traits: ExportTraits | None
) -> None:
    site.pool.traits = traits or site.pool.traits
    one, two = two_exports(site, monkeypatch)
    assert given(site) == two
    assert identify(site.place("run-3"), WantedMaster(VM, snapshot="one")).exported_id == ""
    site.exported("run-3", snapshot="one")
    assert given(site) == one
    assert site.files() == ["win11.2.vhdx", "win11.xml"]
    assert len(site.state.catalogue.list()) == 1


def test_what_changed_since_is_never_asked_of_a_younger_snapshot(site: ExportSite) -> None:
    site.pool.traits = ExportTraits(differences=True)
    site.machine.snapshot("one")
    site.write(6 * MIB, b"\x09" * 4096)
    site.machine.snapshot("two")
    site.exported(snapshot="two")
    found = site.exported("run-2", snapshot="one")
    assert found.details["way"] == "as a stream"
    assert site.content(found)[6 * MIB :] == bytes(2 * MIB)


def test_a_vdisk_that_took_the_name_meanwhile_stays(site: ExportSite) -> None:
    def arrive(received: int) -> None:
        if received and site.store.folder.stat("win11.vhdx") is None:
            put_foreign(site, "win11.vhdx")

    site.pool.faults.on_piece = arrive
    with pytest.raises(NameTaken, match="it exists"):
        site.exported()
    site.pool.faults.on_piece = lambda _received: None
    with pytest.raises(NameTaken, match="was not exported"):
        site.exported("run-2")
    assert site.files() == ["win11.vhdx"]
    assert not site.left_behind()


def test_an_export_that_somebody_changed_is_his_from_then_on(site: ExportSite) -> None:
    site.exported()
    site.store.folder.set_last_write("win11.vhdx", LONG_AGO_NS)
    site.write(6 * MIB, b"\x09" * 4096)
    with pytest.raises(NameTaken, match="or was changed since"):
        site.exported("run-2")
    assert site.files() == ["win11.vhdx", "win11.xml"]


def test_an_export_that_is_changed_while_the_next_is_written_stays(site: ExportSite) -> None:
    site.pool.traits = ExportTraits()
    site.exported()
    site.write(6 * MIB, b"\x09" * 4096)

    def change(received: int) -> None:
        if received:
            site.store.folder.set_last_write("win11.vhdx", LONG_AGO_NS)

    site.pool.faults.on_piece = change
    site.exported("run-2")
    assert site.files() == ["win11.1.vhdx", "win11.vhdx", "win11.xml"]


@pytest.mark.parametrize("beside", ["WIN11.lok", "win11.pvp"])
def test_an_export_that_a_pvs_server_has_stays_until_it_lets_go(
    site: ExportSite, beside: str
) -> None:
    site.exported()
    site.store.folder.write_bytes(beside, b"pvs")
    site.write(6 * MIB, b"\x09" * 4096)
    site.exported("run-2")
    assert "win11.vhdx" in site.files()
    listed = site.store.folder.read_bytes("win11.xml")
    assert b"win11.vhdx" in listed
    site.store.folder.delete(beside)
    site.exported("run-3")
    assert site.files() == ["win11.1.vhdx", "win11.xml"]


def test_an_export_that_was_deleted_by_hand_is_made_again(site: ExportSite) -> None:
    site.machine.snapshot("golden")
    site.exported(snapshot="golden")
    site.store.folder.delete("win11.vhdx")
    found = site.exported("run-2", snapshot="golden")
    assert site.content(found) == given(site) == site.master()
    assert site.files() == ["win11.1.vhdx", "win11.xml"]
    assert [item.id for item in site.state.catalogue.list()] == [found.id]


def test_an_entry_that_a_killed_run_left_unfinished_gets_the_key_of_its_own_file(
    site: ExportSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = site.exported()
    site.state.catalogue.update(first.id, source_key="")  # killed when it had just got its name
    site.write(6 * MIB, b"\x09" * 4096)
    other = replace(site.place("run-2"), site="other", target=export_target("other"))
    export(other, WantedMaster(VM))  # another site, and the same folder
    monkeypatch.setattr(RETIRE, lambda *_: [])
    site.exported("run-3")
    assert site.state.catalogue.get(first.id).source_key == first.source_key


def test_an_earlier_file_that_is_damaged_is_not_built_on(
    site: ExportSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_bytes, "SAMPLE_BLOCKS", 4)
    site.exported()
    damage(site, "win11.vhdx", b"\x02" * 4096)
    site.write(6 * MIB, b"\x09" * 4096)
    found = site.exported("run-2")
    assert site.content(found) == site.master()
    assert site.files() == ["win11.1.vhdx", "win11.xml"]
    assert "cannot be built on" in site.notes()
    assert not site.left_behind()


def test_a_difference_to_a_damaged_file_becomes_a_whole_export(site: ExportSite) -> None:
    site.pool.traits = ExportTraits(differences=True)
    site.machine.snapshot("one")
    site.exported(snapshot="one")
    damage(site, "win11.vhdx", b"\x02" * 4096)
    site.write(6 * MIB, b"\x09" * 4096)
    site.machine.snapshot("two")
    found = site.exported("run-2", snapshot="two")
    assert site.content(found) == site.master()
    assert found.details["way"] == "as a stream"
