"""What stays: the newest upload, two prepared images; and what the janitor may take."""

from __future__ import annotations

import time

import pytest

from imageport.errors import LeaseHeld
from imageport.model import GenerationRole
from imageport.workflow.clean_up import RESUME_SECONDS, clean_up, clear_store
from imageport.workflow.publish import publish
from imageport.workflow.retention import retire_superseded
from tests.workflow.small_site import SmallSite


def handles(site: SmallSite) -> set[str]:
    return {item.handle["snapshot_id"] for item in site.state.catalogue.list()}


def test_the_newest_upload_and_two_prepared_images_stay(site: SmallSite):
    prepared = []
    for number in range(1, 5):
        site.write_vdisk(number)
        prepared.append(site.brought(f"run-{number}").id)
    assert site.kept(GenerationRole.PREPARED) == prepared[-2:]
    assert len(site.kept(GenerationRole.UPLOADED)) == 1
    assert set(site.account.snapshots) == handles(site)


def test_an_upload_that_nobody_wants_to_keep_goes_once_it_is_prepared(site: SmallSite):
    uploaded = site.uploaded(keep_parent=False)
    assert site.kept(GenerationRole.UPLOADED) == [uploaded.id]
    site.prepared(uploaded)
    assert site.kept(GenerationRole.UPLOADED) == []
    assert set(site.account.snapshots) == handles(site)


def test_the_operators_last_word_on_keeping_an_upload_counts(site: SmallSite):
    site.uploaded("run-1", keep_parent=True)
    site.prepared(site.uploaded("run-2", keep_parent=False), "run-2")
    assert site.kept(GenerationRole.UPLOADED) == []


def test_an_unwanted_upload_whose_run_was_killed_goes_with_the_publication(site: SmallSite):
    uploaded = site.uploaded(keep_parent=False)
    prepared = site.prepared(uploaded)
    # The power went between the catalogue entry of P and the deletion of U.
    site.state.catalogue.add(uploaded)
    assert retire_superseded(site.place(), prepared.image) == [uploaded.id]
    assert site.kept(GenerationRole.UPLOADED) == []


def test_the_janitor_waits_for_the_lease_of_a_run_that_was_just_killed(site: SmallSite):
    place = site.place("killed")
    place.cloud.make_disk(site.uploaded().handle["snapshot_id"], "")
    with place.holding("gold"), pytest.raises(LeaseHeld, match="killed"):
        clean_up(site.state, place.cloud, "site-b", run="killed")
    assert len(site.account.volumes) == 1
    (deleted,) = clean_up(site.state, place.cloud, "site-b", run="killed")
    assert deleted.startswith("volume ")
    assert site.account.volumes == {}


def test_the_janitor_takes_nothing_that_the_catalogue_holds(site: SmallSite):
    site.brought("run-1")
    before = set(site.account.snapshots)
    assert clean_up(site.state, site.place("run-2").cloud, "site-b", run="run-1") == []
    assert set(site.account.snapshots) == before


def half_file(site: SmallSite, age_seconds: float) -> str:
    store = site.store
    name = store.begin_file(store.choose_target("gold"), "p-of-a-killed-run")
    with store.folder.create(name) as file:
        file.write_at(0, b"half")
    store.folder.set_last_write(name, int((time.time() - age_seconds) * 1e9))
    return name


def test_the_janitor_takes_a_half_file_that_nobody_comes_back_for(site: SmallSite):
    name = half_file(site, RESUME_SECONDS + 60)
    assert clear_store(site.state, site.store) == [name]
    assert site.store.leftovers() == []


def test_the_janitor_leaves_a_half_file_whose_run_may_be_resumed(site: SmallSite):
    name = half_file(site, 30)
    assert clear_store(site.state, site.store) == []
    assert clear_store(site.state, site.store, at_once=True) == [name]


def test_the_janitor_takes_no_half_file_while_somebody_publishes(site: SmallSite):
    half_file(site, RESUME_SECONDS + 60)
    store = site.store
    with site.place("other").holding(f"gold>{store.location}"):
        assert clear_store(site.state, store, at_once=True) == []
    assert len(store.leftovers()) == 1


def test_nothing_is_retired_while_another_run_works_on_the_image(site: SmallSite):
    site.write_vdisk(1)
    site.brought("run-1")
    site.write_vdisk(2)
    prepared = site.prepared(site.uploaded("run-2"), "run-2")
    with site.place("run-3").holding("gold"):
        publish(site.place("run-2"), prepared.id, site.store, "gold")
    assert len(site.kept(GenerationRole.UPLOADED)) == 2
    publish(site.place("run-2"), prepared.id, site.store, "gold")
    assert len(site.kept(GenerationRole.UPLOADED)) == 1
