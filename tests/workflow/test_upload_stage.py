"""Upload: what is sent, what is not, and what is kept for the next one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from imageport.clouds.memory import MemoryCloud
from imageport.clouds.memory_target import MemorySnapshotTarget
from imageport.errors import CloudUnavailable, LeaseHeld, SourceChanged, TransferCancelled
from imageport.model import BLOCK_BYTES, MIB, GenerationRole
from imageport.workflow.clean_up import clean_up
from imageport.workflow.facts import source_facts
from imageport.workflow.upload import stats_of, upload
from tests.workflow.small_site import SmallSite


def test_an_unchanged_vdisk_is_not_sent_again(site: SmallSite):
    first = site.uploaded("run-1")
    second = site.uploaded("run-2")
    assert second.id == first.id
    assert len(site.account.snapshots) == 1
    assert "nothing had to move" in site.events[-1].note


def test_the_next_upload_sends_only_what_changed(site: SmallSite):
    first = site.uploaded("run-1")
    site.write_vdisk(1, 2, 0, 9)
    second = site.uploaded("run-2")
    assert second.parent_id == first.id
    assert stats_of(second).bytes_sent == BLOCK_BYTES
    blocks = site.account.snapshots[second.handle["snapshot_id"]].blocks
    assert [blocks[index][0] for index in (0, 1, 3)] == [1, 2, 9]


def test_a_smaller_vdisk_is_sent_without_the_larger_parent(site: SmallSite):
    site.uploaded("run-1")
    site.write_vdisk(1, 2, size_bytes=4 * MIB)
    second = site.uploaded("run-2")
    assert (second.parent_id, second.size_bytes) == ("", 4 * MIB)


def test_an_upload_that_no_child_may_follow_is_kept_and_not_built_upon(
    site: SmallSite, monkeypatch: pytest.MonkeyPatch
):
    first = site.uploaded("run-1")
    monkeypatch.setattr(MemoryCloud, "fits_as_parent", lambda *_: False)
    site.write_vdisk(1, 2, 0, 9)
    second = site.uploaded("run-2")
    assert second.parent_id == ""
    assert stats_of(second).bytes_sent == stats_of(first).bytes_sent
    assert first.handle["snapshot_id"] in site.account.snapshots


def test_an_upload_that_lost_the_cloud_goes_on_where_it_was(
    site: SmallSite, monkeypatch: pytest.MonkeyPatch
):
    commit = MemorySnapshotTarget.commit

    def unreachable(*_: object) -> str:
        raise CloudUnavailable("Cannot reach the cloud.")

    monkeypatch.setattr(MemorySnapshotTarget, "commit", unreachable)
    monkeypatch.setattr("imageport.transfer.running.retried", lambda call, _stop: call())
    with pytest.raises(CloudUnavailable):
        site.uploaded("run-1")
    (pending,) = site.account.snapshots.values()
    put_before = set(pending.put)
    assert len(put_before) >= 3
    monkeypatch.setattr(MemorySnapshotTarget, "commit", commit)
    puts: list[int] = []
    put = MemorySnapshotTarget.put

    def counted(self: MemorySnapshotTarget, index: int, data: bytes, digest: bytes) -> None:
        puts.append(index)
        put(self, index, data, digest)

    monkeypatch.setattr(MemorySnapshotTarget, "put", counted)
    assert site.uploaded("run-1").handle["snapshot_id"] == pending.id
    assert puts == []
    assert site.state.journals.keys() == []


def test_a_cancelled_upload_leaves_nothing(site: SmallSite, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("imageport.transfer.running.POLL_SECONDS", 0.0)
    place = replace(site.place(), cancelled=lambda: True)
    key = source_facts(site.source, "gold").source_key
    with pytest.raises(TransferCancelled):
        upload(place, site.source, "gold", source_key=key)
    assert site.account.snapshots == {}
    assert site.state.journals.keys() == []
    assert site.kept(GenerationRole.UPLOADED) == []


def test_another_run_that_works_on_the_image_is_waited_for(site: SmallSite):
    with site.place("run-2").holding("gold"), pytest.raises(LeaseHeld, match="run-2"):
        site.uploaded("run-1")
    assert site.account.snapshots == {}


def test_a_vdisk_that_preflight_did_not_see_is_not_uploaded(site: SmallSite):
    with pytest.raises(SourceChanged, match="gold"):
        upload(site.place(), site.source, "gold", source_key="another")


def test_a_snapshot_deleted_outside_is_uploaded_again(site: SmallSite):
    first = site.uploaded("run-1")
    del site.account.snapshots[first.handle["snapshot_id"]]
    second = site.uploaded("run-2")
    assert second.handle["snapshot_id"] in site.account.snapshots
    assert stats_of(second).bytes_sent == stats_of(first).bytes_sent


def test_a_power_cut_at_any_change_ends_in_one_snapshot():
    cuts = 0
    while True:
        site = SmallSite()
        site.write_vdisk(1, 2, 0, 3)
        if not site.killed(cuts, site.uploaded):
            break
        uploaded = site.uploaded()
        assert site.kept(GenerationRole.UPLOADED) == [uploaded.id], cuts
        assert site.account.snapshots[uploaded.handle["snapshot_id"]].completed, cuts
        assert site.state.journals.keys() == [], cuts
        clean_up(site.state, site.place("janitor").cloud, "site-b", run="run-1")
        assert set(site.account.snapshots) == {uploaded.handle["snapshot_id"]}, cuts
        cuts += 1
    assert cuts > 10
