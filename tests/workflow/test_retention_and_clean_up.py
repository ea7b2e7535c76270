"""What stays: the newest upload, two prepared images; and what the janitor may take."""

from __future__ import annotations

import pytest

from imageport.errors import LeaseHeld
from imageport.model import GenerationRole
from imageport.workflow.clean_up import clean_up
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
