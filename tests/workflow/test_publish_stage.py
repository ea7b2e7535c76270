"""Publish: the store's file, its name and the catalogue agree after a power cut at any change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from imageport.citrix.manifest import parse_manifest
from imageport.citrix.vdisk_store import IfExists, VdiskStore
from imageport.compose.contract import EngineOptions
from imageport.errors import NameTaken, ShareRefused, TransferCancelled, VerificationFailed
from imageport.model import MIB
from imageport.state.records import Generation
from imageport.storage.memory import MemoryFolder
from imageport.workflow.choices import PrepareChoices
from imageport.workflow.prepare import prepare
from imageport.workflow.publish import publish, published_as
from imageport.workflow.verify import verify_publication
from tests.workflow.small_site import SmallSite


@pytest.fixture
def prepared(site: SmallSite) -> Generation:
    return site.prepared(site.uploaded())


def listed(site: SmallSite) -> list[str]:
    text = site.store.folder.read_bytes("gold.xml", MIB)
    return [entry.disk_file_name for entry in parse_manifest(text, "gold.xml").versions]


def test_what_is_published_is_what_was_prepared(site: SmallSite, prepared: Generation):
    publication = site.published(prepared)
    assert site.files() == ["gold.vhdx", "gold.xml"]
    content = site.content("gold.vhdx")
    assert [content[index * MIB // 2] for index in range(4)] == [1, 2, 0, 3]
    assert verify_publication(site.place(), prepared.id, site.store, publication.file_name)
    assert site.published(prepared, "run-2") == publication


def test_verifying_ends_when_it_is_cancelled(site: SmallSite, prepared: Generation):
    publication = site.published(prepared)
    place = replace(site.place(), cancelled=lambda: True)
    with pytest.raises(TransferCancelled, match="verifying 'gold"):
        verify_publication(place, prepared.id, site.store, publication.file_name)


def test_a_power_cut_at_any_change_ends_in_one_vdisk():
    cuts = 0
    while True:
        site = SmallSite()
        site.write_vdisk(1, 2, 0, 3)
        prepared = site.prepared(site.uploaded())
        if not site.killed(cuts, lambda: site.published(prepared)):  # noqa: B023 - called now
            break
        publication = site.published(prepared)
        assert site.files() == ["gold.vhdx", "gold.xml"], cuts
        assert listed(site) == ["gold.vhdx"], cuts
        assert published_as(site.place(), prepared.id, site.store, "gold") == publication, cuts
        assert verify_publication(site.place(), prepared.id, site.store, "gold.vhdx"), cuts
        assert site.state.journals.keys() == [], cuts
        cuts += 1
    assert cuts > 15


def test_a_manifest_that_cannot_be_written_is_written_by_the_next_run(
    site: SmallSite, prepared: Generation, monkeypatch: pytest.MonkeyPatch
):
    complete = site.store.complete

    def refused(*_: object) -> None:
        raise ShareRefused("Cannot write 'gold.xml': access denied.")

    monkeypatch.setattr(site.store, "complete", refused)
    with pytest.raises(ShareRefused):
        site.published(prepared)
    assert site.files() == ["gold.vhdx"]
    monkeypatch.setattr(site.store, "complete", complete)
    site.published(prepared, "run-2")
    assert site.files() == ["gold.vhdx", "gold.xml"]
    assert listed(site) == ["gold.vhdx"]


def test_a_half_whose_number_was_taken_meanwhile_does_not_stay(
    site: SmallSite, prepared: Generation
):
    part = site.store.begin_file(site.store.choose_target("gold"), prepared.id)
    site.store.folder.write_bytes(part, b"half")
    site.store.folder.write_bytes("gold.vhdx", b"somebody else's")
    assert site.published(prepared).file_name == "gold.1.vhdx"
    assert site.files() == ["gold.1.vhdx", "gold.vhdx", "gold.xml"]
    assert site.store.folder.read_bytes("gold.vhdx", MIB) == b"somebody else's"


def test_a_name_that_exists_is_refused_when_told_so(site: SmallSite, prepared: Generation):
    site.store.folder.write_bytes("gold.vhdx", b"somebody else's")
    with pytest.raises(NameTaken, match="gold"):
        publish(site.place(), prepared.id, site.store, "gold", if_exists=IfExists.REFUSE)
    assert site.files() == ["gold.vhdx"]


def test_a_published_file_that_somebody_replaced_is_published_anew(
    site: SmallSite, prepared: Generation
):
    site.published(prepared)
    site.store.folder.set_last_write("gold.vhdx", 10**18)
    assert site.published(prepared, "run-2").file_name == "gold.1.vhdx"


def test_an_earlier_image_chosen_again_is_not_left_under_the_later_version(
    site: SmallSite, prepared: Generation
):
    other = PrepareChoices(engine=EngineOptions(list_of_ddcs=("ddc1.example",)))
    later = prepare(site.place("run-2"), prepared.parent_id, other)
    names = [site.published(item).file_name for item in (prepared, later, later, prepared)]
    assert names == ["gold.vhdx", "gold.1.vhdx", "gold.1.vhdx", "gold.2.vhdx"]
    assert site.published(prepared).file_name == "gold.2.vhdx"


def test_one_image_in_two_stores_is_verified_in_each(site: SmallSite, prepared: Generation):
    other = VdiskStore(MemoryFolder("other-store"))
    first = site.published(prepared)
    second = publish(site.place(), prepared.id, other, "gold")
    other.folder.set_last_write(second.file_name, 10**18)
    assert second.file_name == first.file_name
    assert verify_publication(site.place(), prepared.id, site.store, "gold.vhdx")
    with pytest.raises(VerificationFailed, match="other-store"):
        verify_publication(site.place(), prepared.id, other, "gold.vhdx")


def test_a_published_block_that_rotted_is_found(site: SmallSite, prepared: Generation):
    site.published(prepared)
    written = site.store.folder.stat("gold.vhdx")
    assert written is not None
    content = site.store.folder.read_bytes("gold.vhdx", 64 * MIB)
    at = content.index(bytes([3]) * 4096)
    with site.store.folder.open_write("gold.vhdx") as file:
        file.write_at(at, b"rot")
    site.store.folder.set_last_write("gold.vhdx", written.last_write_ns)
    with pytest.raises(VerificationFailed, match="gold"):
        verify_publication(site.place(), prepared.id, site.store, "gold.vhdx")


def test_the_same_image_under_another_name_is_another_vdisk(site: SmallSite, prepared: Generation):
    site.published(prepared)
    other = publish(site.place(), prepared.id, site.store, "silver")
    assert other.file_name == "silver.vhdx"
    assert "silver.vhdx" in site.files()
    assert published_as(site.place(), prepared.id, site.store, "bronze") is None
