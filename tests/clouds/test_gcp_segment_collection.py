"""Segments that no image needs go, and none that any image needs: whatever else is under way."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from imageport.clouds.gcp import segment_collection, upload_markers
from imageport.clouds.gcp.images import delete_image
from imageport.clouds.gcp.objects import Objects
from imageport.clouds.gcp.segment_collection import (
    collect_segments,
    discard_upload,
    forget_image,
)
from imageport.clouds.gcp.segment_disk import SegmentDisk
from imageport.clouds.gcp.segment_index import index_key, index_of, write_index
from imageport.clouds.gcp.segment_target import SegmentTarget
from imageport.clouds.gcp.segments import prepared_folder, segment_key
from imageport.clouds.gcp.upload_markers import marker_names, segments_kept, turn_folder
from imageport.clouds.sweep import sweep
from imageport.errors import CloudUnavailable, ResourceGone, StateError
from imageport.model import BLOCK_BYTES, GIB
from imageport.transfer.manifest import Manifest
from tests.clouds.cloud_contract import (
    SITE,
    Killed,
    block,
    digest,
    in_days,
    plan_of,
    put_all,
)
from tests.clouds.gcp_laboratory import GcpLab

ROOT = "imageport/frankfurt/"


def begun(lab: GcpLab, numbers: range, token: str, parent: str = "") -> SegmentTarget:
    target = SegmentTarget(lab.account("run-1"), "gold", parent=parent)
    target.begin(plan_of({}), token)
    put_all(target, {number: block(number) for number in numbers})
    return target


def committed(lab: GcpLab, numbers: range, token: str) -> str:
    target = begun(lab, numbers, token)
    reference = target.commit({number: digest(block(number)) for number in numbers})
    target.close()
    return reference


def stored(lab: GcpLab) -> set[str]:
    objects = Objects(lab.account("looking"))
    return {facts.key.rsplit("/", maxsplit=1)[-1] for facts in objects.list(f"{ROOT}seg/")}


def names(numbers: range) -> set[str]:
    return {digest(block(number)).hex() for number in numbers}


def left(lab: GcpLab) -> list[str]:
    """Return all objects that are no segments and no indexes."""
    objects = Objects(lab.account("looking"))
    keys = [facts.key.removeprefix(ROOT) for facts in objects.list("")]
    return [key for key in keys if not key.startswith(("seg/", "index/"))]


def delete(lab: GcpLab, reference: str) -> Any:
    account = lab.account("run-1")
    delete_image(account, reference)
    return forget_image(account, reference.rsplit("/", maxsplit=1)[-1])


def readable(lab: GcpLab, reference: str, numbers: range) -> bool:
    with SegmentDisk(lab.account("reader"), reference) as disk:
        return all(
            disk.read_at(number * BLOCK_BYTES, BLOCK_BYTES) == block(number) for number in numbers
        )


# --- what goes --------------------------------------------------------------------------------


def test_a_deleted_image_takes_its_own_segments_and_leaves_those_of_others(gcp_lab: GcpLab):
    first = committed(gcp_lab, range(6), "t-1")
    second = committed(gcp_lab, range(4, 10), "t-2")
    assert stored(gcp_lab) == names(range(10))
    collected = delete(gcp_lab, first)
    assert (collected.deleted, collected.kept, collected.left) == (4, 6, 0)
    assert collected.deleted_bytes > 0
    assert "4 segments" in str(collected)
    assert stored(gcp_lab) == names(range(4, 10))
    assert readable(gcp_lab, second, range(4, 10))
    delete(gcp_lab, second)
    assert stored(gcp_lab) == set()
    assert gcp_lab.objects() == []


def test_a_child_outlives_its_parent_with_all_that_it_took(gcp_lab: GcpLab):
    parent = committed(gcp_lab, range(6), "t-1")
    child = SegmentTarget(gcp_lab.account("run-2"), "gold", parent=parent)
    child.begin(plan_of({}), "t-2")
    child.take_from_parent(0, 4)
    put_all(child, {9: block(9)})
    digests = {number: digest(block(number)) for number in (0, 1, 2, 3, 9)}
    reference = child.commit(digests)
    delete(gcp_lab, parent)
    assert stored(gcp_lab) == names(range(4)) | names(range(9, 10))
    assert readable(gcp_lab, reference, range(4))


def test_a_parent_that_is_deleted_during_a_childs_upload_keeps_its_segments(gcp_lab: GcpLab):
    parent = committed(gcp_lab, range(6), "t-1")
    child = SegmentTarget(gcp_lab.account("run-2"), "gold", parent=parent)
    child.begin(plan_of({}), "t-2")
    collected = delete(gcp_lab, parent)
    assert (collected.deleted, collected.uploads) == (0, 1)
    assert "1 uploads are under way" in str(collected)
    child.take_from_parent(0, 6)
    reference = child.commit({number: digest(block(number)) for number in range(6)})
    assert readable(gcp_lab, reference, range(6))


def test_an_aborted_upload_takes_its_segments_and_none_of_an_image(gcp_lab: GcpLab):
    reference = committed(gcp_lab, range(4), "t-1")
    begun(gcp_lab, range(2, 8), "t-2").abort()
    assert stored(gcp_lab) == names(range(4))
    assert left(gcp_lab) == []
    assert readable(gcp_lab, reference, range(4))


def test_the_first_of_two_aborted_uploads_leaves_all_to_the_second(gcp_lab: GcpLab):
    first = begun(gcp_lab, range(4), "t-1")
    second = begun(gcp_lab, range(2, 8), "t-2")
    first.abort()
    assert stored(gcp_lab) == names(range(8))
    second.abort()
    assert stored(gcp_lab) == set()
    assert left(gcp_lab) == []


def test_a_killed_upload_keeps_everything_until_it_is_discarded(gcp_lab: GcpLab):
    begun(gcp_lab, range(4), "t-1")
    (name,) = marker_names(gcp_lab.account("janitor"))
    assert collect_segments(gcp_lab.account("janitor")).uploads == 1
    assert stored(gcp_lab) == names(range(4))
    handle = f"gs://imageport-lab-images/{ROOT}uploads/{name}"
    collected = discard_upload(gcp_lab.account("janitor"), handle)
    assert (collected.deleted, collected.kept) == (4, 0)
    assert gcp_lab.objects() == []
    with pytest.raises(ResourceGone):
        SegmentTarget(gcp_lab.account("run-1"), "gold").resume(plan_of({}), handle)


def test_segments_of_an_upload_go_on_while_a_disk_is_read_for_another_image(gcp_lab: GcpLab):
    """As when P is made: its index will name segments of a U that somebody deletes meanwhile."""
    uploaded = committed(gcp_lab, range(4), "t-1")
    account = gcp_lab.account("run-2")
    with segments_kept(account, "prepared"):
        delete(gcp_lab, uploaded)
        manifest = Manifest(GIB, absent_reads_zero=True)
        for number in range(4):
            manifest.set(number, digest(block(number)))
        tags = account.intend("snapshot", "prepared", "prepared").tags
        write_index(account, "prepared", manifest, tags)
    assert collect_segments(account).kept == 4
    assert left(gcp_lab) == []
    assert [entry.kind for entry in gcp_lab.state.ledger.open_entries()] == ["snapshot"]


def test_the_blocks_of_a_prepared_image_go_with_it(gcp_lab: GcpLab):
    account = gcp_lab.account("run-1")
    key = f"{prepared_folder(gcp_lab.settings(), 'prepared')}{digest(block(1)).hex()}"
    Objects(account).put(key, b"x")
    forget_image(account, "prepared")
    assert gcp_lab.objects() == []


def test_an_image_that_was_streamed_keeps_no_segments(gcp_lab: GcpLab):
    target, account = begun(gcp_lab, range(4), "t-1"), gcp_lab.account("run-2")
    manifest = Manifest(GIB, absent_reads_zero=True)
    manifest.set(0, digest(block(0)))
    tags = account.intend("snapshot", "uploaded", "streamed").tags
    write_index(account, "streamed", manifest, tags, archive="stream")
    target.abort()
    assert stored(gcp_lab) == set()


def test_no_other_site_is_touched(gcp_lab: GcpLab):
    paris = gcp_lab.account("run-1", site="paris")
    key = segment_key(paris.settings, digest(block(1)))
    Objects(paris).put(key, b"x")
    begun(gcp_lab, range(4), "t-1").abort()
    assert gcp_lab.objects() == [key]


def test_a_damaged_index_stops_the_collection(gcp_lab: GcpLab):
    committed(gcp_lab, range(4), "t-1")
    account = gcp_lab.account("run-1")
    Objects(account).put(index_key(gcp_lab.settings(), "broken"), b"no manifest")
    Objects(account).put(segment_key(gcp_lab.settings(), digest(block(99))), b"x")
    with pytest.raises(StateError, match="broken"):
        collect_segments(account)
    assert stored(gcp_lab) == names(range(4)) | names(range(99, 100))
    assert left(gcp_lab) == ["uncollected/segments"]  # so that every sweep names the index


def test_a_collection_that_takes_too_long_leaves_the_rest_to_the_sweep(
    gcp_lab: GcpLab, monkeypatch: pytest.MonkeyPatch
):
    target = begun(gcp_lab, range(8), "t-1")
    monkeypatch.setattr(segment_collection, "BATCH", 2)
    moments = iter([0.0, 1.0, 2.0, 500.0])
    with monkeypatch.context() as patch:
        clock = SimpleNamespace(monotonic=lambda: next(moments))
        patch.setattr(segment_collection, "time", clock)
        target.abort()
    assert len(stored(gcp_lab)) == 4
    cloud = gcp_lab.cloud("sweep")
    assert sweep(cloud, gcp_lab.state, SITE, in_days(0)) == []  # somebody may be at it
    (swept,) = sweep(cloud, gcp_lab.state, SITE, in_days(1))
    assert swept.note.startswith("4 segments of no image deleted")
    assert swept.note.endswith("bytes; 0 are needed")
    assert gcp_lab.objects() == []


def test_what_an_upload_kept_from_its_collection_goes_with_a_sweep_after_it(gcp_lab: GcpLab):
    first = committed(gcp_lab, range(4), "t-1")
    second = begun(gcp_lab, range(3, 6), "t-2")
    delete(gcp_lab, first)
    assert gcp_lab.cloud("look").list_ours(SITE)[0].id.endswith(marker_names(second._account)[0])
    reference = second.commit({number: digest(block(number)) for number in range(3, 6)})
    gcp_lab.account("run-1").mark(reference, "released")
    assert stored(gcp_lab) == names(range(6))
    (swept,) = sweep(gcp_lab.cloud("sweep"), gcp_lab.state, SITE, in_days(1))
    assert swept.note.startswith("3 segments of no image deleted")
    assert readable(gcp_lab, reference, range(3, 6))
    assert [item.id for item in gcp_lab.cloud("sweep").list_ours(SITE)] == [reference]


# --- one who collects and one who uploads -----------------------------------------------------


@contextmanager
def stopped_in_a_collection(lab: GcpLab, patch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let a collection stand before its first deletion until the yielded event is set."""
    standing, go_on = threading.Event(), threading.Event()
    delete_many = Objects.delete_many

    def slow(self: Objects, keys: Any) -> int:
        standing.set()
        go_on.wait(20)
        return delete_many(self, keys)

    patch.setattr(Objects, "delete_many", slow)
    thread = threading.Thread(target=collect_segments, args=(lab.account("janitor"),))
    thread.start()
    assert standing.wait(20)
    patch.setattr(Objects, "delete_many", delete_many)
    try:
        yield go_on
    finally:
        go_on.set()
        thread.join()


def test_an_upload_that_begins_during_a_collection_waits_and_misses_nothing(
    gcp_lab: GcpLab, monkeypatch: pytest.MonkeyPatch
):
    begun(gcp_lab, range(8), "t-1")
    for name in marker_names(gcp_lab.account("janitor")):  # as if nobody would ever go on
        upload_markers.delete_marker(gcp_lab.account("janitor"), name)
    with stopped_in_a_collection(gcp_lab, monkeypatch) as go_on:
        threading.Timer(0.5, go_on.set).start()
        began = time.monotonic()
        target = begun(gcp_lab, range(8), "t-2")
        assert time.monotonic() - began > 0.3
    reference = target.commit({number: digest(block(number)) for number in range(8)})
    assert readable(gcp_lab, reference, range(8))


def test_a_collection_that_died_is_not_waited_for_when_it_is_old(
    gcp_lab: GcpLab, monkeypatch: pytest.MonkeyPatch
):
    account = gcp_lab.account("run-1")
    turn = f"{turn_folder(gcp_lab.settings())}dead"
    Objects(account).put(turn, b"")
    monkeypatch.setattr(upload_markers, "TURN_SECONDS", 0.2)
    monkeypatch.setattr(upload_markers, "LATE_SECONDS", 0.2)
    target = begun(gcp_lab, range(1), "t-1")
    assert turn not in gcp_lab.objects()
    target.abort()


def test_a_young_collection_is_waited_for_by_the_stores_clock_alone(
    gcp_lab: GcpLab, monkeypatch: pytest.MonkeyPatch
):
    gcp_lab.service.turn(clock_skew_seconds=7200.0)
    Objects(gcp_lab.account("run-1")).put(f"{turn_folder(gcp_lab.settings())}young", b"")
    monkeypatch.setattr(upload_markers, "TURN_SECONDS", 0.5)
    monkeypatch.setattr(upload_markers, "LATE_SECONDS", 0.5)
    began = time.monotonic()
    begun(gcp_lab, range(1), "t-1").abort()
    assert time.monotonic() - began > 0.9


def test_a_collection_killed_half_way_is_done_by_whoever_comes_next(
    gcp_lab: GcpLab, monkeypatch: pytest.MonkeyPatch
):
    target = begun(gcp_lab, range(8), "t-1")

    def killed(self: Objects, keys: Any) -> int:
        self.delete(next(iter(keys)))
        raise Killed("here")

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "delete_many", killed)
        with pytest.raises(Killed):
            collect_segments(gcp_lab.account("run-1"), leaving=marker_names(target._account)[0])
    assert len(marker_names(target._account)) == 1
    target.abort()
    assert gcp_lab.objects() == []


def test_what_is_deleted_behind_an_uploads_back_is_noticed_at_the_commit(gcp_lab: GcpLab):
    target = begun(gcp_lab, range(8), "t-1")
    account = gcp_lab.account("somebody")
    Objects(account).delete(segment_key(gcp_lab.settings(), digest(block(3))))
    digests = {number: digest(block(number)) for number in range(8)}
    with pytest.raises(CloudUnavailable, match=r"1 or more of 8 blocks .* among them blocks \[3\]"):
        target.commit(digests)
    (name,) = marker_names(account)
    again = SegmentTarget(gcp_lab.account("run-1"), "gold")
    again.resume(plan_of({}), upload_markers.marker_id(gcp_lab.settings(), name))
    assert again.lost(digests) == {3}
    put_all(again, {3: block(3)})
    assert readable(gcp_lab, again.commit(digests), range(8))


@pytest.mark.parametrize(
    "seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_whatever_runs_at_once_every_image_stays_whole_and_nothing_else(gcp_lab: GcpLab, seed: int):
    """Four workers upload the same few blocks, commit, abort, die and delete, all at random."""
    made: dict[str, set[int]] = {}
    lock = threading.Lock()

    def work(worker: int) -> None:
        chance = random.Random(100 * seed + worker)  # noqa: S311 - repeatable
        for turn in range(4):
            numbers = set(chance.sample(range(12), 5))
            target = SegmentTarget(gcp_lab.account(f"run-{worker}"), "gold")
            target.begin(plan_of({}), f"t-{worker}-{turn}")
            put_all(target, {number: block(number) for number in numbers})
            what = chance.choice(["commit", "commit", "commit", "abort", "die", "delete"])
            if what == "abort":
                target.abort()
            elif what == "commit":
                reference = target.commit({number: digest(block(number)) for number in numbers})
                with lock:
                    made[reference] = numbers
            elif what == "delete":
                with lock:
                    reference = chance.choice([*made, ""])
                    made.pop(reference, None)
                if reference:
                    delete(gcp_lab, reference)
                target.abort()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    account = gcp_lab.account("janitor")
    for reference, numbers in made.items():
        index = index_of(account, reference)
        assert {number for number, _ in index.blocks()} == numbers
        assert {item.hex() for _, item in index.blocks()} <= stored(gcp_lab)
    for name in marker_names(account):
        discard_upload(account, upload_markers.marker_id(gcp_lab.settings(), name))
    collect_segments(account)
    needed = {digest(block(number)).hex() for numbers in made.values() for number in numbers}
    assert made
    assert stored(gcp_lab) == needed
    assert left(gcp_lab) == []
