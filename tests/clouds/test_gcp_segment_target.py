"""An upload to Google by segments: the contract of block targets, each step again after a crash."""

from __future__ import annotations

from typing import Any

import pytest

from imageport.clouds.gcp import image_upload
from imageport.clouds.gcp.images import delete_image, describe_image
from imageport.clouds.gcp.objects import Objects
from imageport.clouds.gcp.segment_index import METADATA_ARCHIVE, index_key, read_index
from imageport.clouds.gcp.segment_target import SegmentTarget, traits_of
from imageport.clouds.gcp.segments import segment_key
from imageport.clouds.gcp.upload_markers import delete_marker, marker_names
from imageport.errors import CloudRefused, CloudUnavailable, PermissionMissing, ResourceGone
from imageport.model import BLOCK_BYTES, GIB, MIB, ZERO_BLOCK, ZERO_DIGEST
from imageport.sandbox.gcp.account import KMS_KEY
from imageport.transfer.block_target import TransferPlan
from imageport.transfer.session import header_for
from tests.clouds.cloud_contract import (
    BLOCKS,
    SITE,
    TOKEN,
    Killed,
    LedgerOfAKilledRun,
    block,
    digest,
    plan_of,
    put_all,
)
from tests.clouds.gcp_laboratory import GcpLab
from tests.transfer.target_contract import BlockTargetContract, ChildFactory, TargetFactory

DIGESTS = {index: digest(data) for index, data in BLOCKS.items()}
ROOT = f"imageport/{SITE}/"


class TestSegmentTarget(BlockTargetContract):
    @pytest.fixture
    def make_target(self, gcp_lab: GcpLab) -> TargetFactory:
        return lambda: SegmentTarget(gcp_lab.account("run-1"), "gold")

    @pytest.fixture
    def make_child(self, gcp_lab: GcpLab) -> ChildFactory:
        return lambda parent: SegmentTarget(gcp_lab.account("run-1"), "gold", parent=parent)


def begun(lab: GcpLab, **changes: Any) -> tuple[SegmentTarget, str]:
    target = SegmentTarget(lab.account("run-1", **changes), "gold")
    return target, target.begin(plan_of(BLOCKS), TOKEN)


def resumed(lab: GcpLab, handle: str, run: str = "run-1") -> SegmentTarget:
    target = SegmentTarget(lab.account(run), "gold")
    target.resume(plan_of(BLOCKS), handle)
    return target


def committed(lab: GcpLab) -> str:
    target, _ = begun(lab)
    put_all(target, BLOCKS)
    reference = target.commit(DIGESTS)
    target.close()
    return reference


def open_entries(lab: GcpLab) -> list[tuple[str, str]]:
    return [(entry.kind, entry.resource_id) for entry in lab.state.ledger.open_entries()]


def die(*_arguments: Any, **_named: Any) -> None:
    raise Killed("here")


# --- opening ----------------------------------------------------------------------------------


def test_an_upload_begins_with_a_marker_that_says_whose_it_is(gcp_lab: GcpLab):
    _, handle = begun(gcp_lab)
    (key,) = gcp_lab.objects()
    assert handle == f"gs://imageport-lab-images/{key}"
    assert key.startswith(f"{ROOT}uploads/imageport-upload-")
    facts = Objects(gcp_lab.account("looking")).stat(key)
    assert facts is not None
    assert facts.metadata["imageport-size"] == str(GIB)
    assert '"imageport:role": "upload"' in facts.metadata["imageport-tags"]
    assert open_entries(gcp_lab) == [("object", handle)]


@pytest.mark.parametrize(("asked_for", "made"), [(33 * MIB + 512, GIB), (GIB + 512, 2 * GIB)])
def test_an_odd_size_is_rounded_to_whole_gib(gcp_lab: GcpLab, asked_for: int, made: int):
    target = SegmentTarget(gcp_lab.account("run-1"), "gold")
    plan = TransferPlan(asked_for, (), (), 0)
    handle = target.begin(plan, TOKEN)
    other = SegmentTarget(gcp_lab.account("run-1"), "gold")
    with pytest.raises(ResourceGone, match=f"found {made} bytes, needed {4 * GIB} bytes"):
        other.resume(TransferPlan(4 * GIB, (), (), 0), handle)
    other.resume(plan, handle)
    put_all(other, {65: block(1)})
    facts = describe_image(gcp_lab.account("run-1"), other.commit({65: digest(block(1))}))
    assert facts is not None
    assert facts.size_bytes == made


def test_a_run_killed_between_marker_and_record_is_found_by_name(gcp_lab: GcpLab):
    ledger = LedgerOfAKilledRun(gcp_lab.state.folder)
    dying = SegmentTarget(gcp_lab.account("run-1", ledger=ledger), "gold")
    with pytest.raises(Killed):
        dying.begin(plan_of(BLOCKS), TOKEN)
    (made,) = marker_names(gcp_lab.account("run-1"))
    target, handle = begun(gcp_lab)
    assert handle.endswith(made)
    target.abort()
    assert (open_entries(gcp_lab), gcp_lab.objects()) == ([], [])


def test_a_marker_deleted_behind_our_back_is_made_anew_under_another_name(gcp_lab: GcpLab):
    _, handle = begun(gcp_lab)
    Objects(gcp_lab.account("x")).delete(handle.removeprefix("gs://imageport-lab-images/"))
    with pytest.raises(ResourceGone, match="needed its marker"):
        resumed(gcp_lab, handle)
    _, second = begun(gcp_lab)
    assert second != handle


def test_a_marker_of_another_size_under_our_name_is_replaced(gcp_lab: GcpLab):
    first = SegmentTarget(gcp_lab.account("run-1"), "gold")
    handle = first.begin(TransferPlan(3 * GIB, (), (), 0), TOKEN)
    _, second = begun(gcp_lab)
    assert second != handle
    assert len(marker_names(gcp_lab.account("run-1"))) == 1


def test_a_finished_upload_that_nobody_recorded_is_left_to_the_sweep(gcp_lab: GcpLab):
    reference = committed(gcp_lab)
    target, _ = begun(gcp_lab)
    put_all(target, BLOCKS)
    other = target.commit(DIGESTS)
    assert sorted(gcp_lab.images()) == sorted([reference, other])


def test_a_denial_names_the_permission(gcp_lab: GcpLab):
    gcp_lab.service.turn(denied=["storage.objects.create"])
    with pytest.raises(PermissionMissing) as caught:
        begun(gcp_lab)
    assert caught.value.fields["action"] == "storage.objects.create"


# --- writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "data", "said", "found"),
    [
        (0, b"short", digest(b"short"), "found 5 bytes"),
        (0, block(1), digest(block(2)), "found other data than its SHA-256 says"),
        (2048, block(1), digest(block(1)), "of a block below 2048"),
        (-1, block(1), digest(block(1)), "of a block below 2048"),
    ],
)
def test_what_is_no_block_of_this_disk_is_refused(
    gcp_lab: GcpLab, index: int, data: bytes, said: bytes, found: str
):
    target, _ = begun(gcp_lab)
    with pytest.raises(CloudRefused, match=found):
        target.put(index, data, said)
    assert gcp_lab.objects(f"{ROOT}seg/") == []


def test_zeros_are_never_sent(gcp_lab: GcpLab):
    target, _ = begun(gcp_lab)
    target.put(4, memoryview(ZERO_BLOCK), ZERO_DIGEST)
    assert gcp_lab.objects(f"{ROOT}seg/") == []


def test_what_the_bucket_holds_is_not_sent_again_whichever_image_it_came_with(gcp_lab: GcpLab):
    committed(gcp_lab)
    target = SegmentTarget(gcp_lab.account("run-2"), "other")
    target.begin(plan_of(BLOCKS), "t-2")
    gcp_lab.service.forget_calls()
    put_all(target, BLOCKS)
    assert gcp_lab.service.requests() == {}
    assert target.remarks() == ("3 blocks lay in the bucket already and were not sent again",)
    reference = target.commit(DIGESTS)
    assert dict(target.read_back([3])) == {3: BLOCKS[3]}
    assert len(gcp_lab.objects(f"{ROOT}seg/")) == 3
    assert reference in gcp_lab.images()


def test_two_uploads_at_once_share_what_is_the_same(gcp_lab: GcpLab):
    first, _ = begun(gcp_lab)
    second = SegmentTarget(gcp_lab.account("run-2"), "other")
    second.begin(plan_of(BLOCKS), "t-2")
    put_all(first, BLOCKS)
    put_all(second, BLOCKS)
    assert len(second.remarks()) == 1
    for target in (first, second):
        target.commit(DIGESTS)
        assert dict(target.read_back([2047])) == {2047: BLOCKS[2047]}
        target.close()


def test_a_child_sends_nothing_of_what_its_parent_has(gcp_lab: GcpLab):
    parent = committed(gcp_lab)
    child = SegmentTarget(gcp_lab.account("run-2"), "gold", parent=parent)
    child.begin(plan_of({}), "t-2")
    gcp_lab.service.forget_calls()
    child.take_from_parent(3, 1)
    child.take_from_parent(0, 1)
    with pytest.raises(ResourceGone, match="it holds nothing there"):
        child.take_from_parent(3, 2)
    assert gcp_lab.service.requests() == {}
    reference = child.commit({0: DIGESTS[0], 3: DIGESTS[3]})
    assert reference != parent
    assert dict(child.read_back([0, 3, 4, 2047])) == {
        0: BLOCKS[0], 3: BLOCKS[3], 4: ZERO_BLOCK, 2047: ZERO_BLOCK,
    }  # fmt: skip
    child.close()


def test_a_target_without_a_parent_takes_nothing_from_one(gcp_lab: GcpLab):
    target, _ = begun(gcp_lab)
    with pytest.raises(CloudRefused, match="opened without a parent"):
        target.take_from_parent(0, 1)


def test_a_parent_without_index_costs_time_and_nothing_else(gcp_lab: GcpLab):
    parent = committed(gcp_lab)
    name = parent.rsplit("/", maxsplit=1)[-1]
    Objects(gcp_lab.account("x")).delete(index_key(gcp_lab.settings(), name))
    child = SegmentTarget(gcp_lab.account("run-2"), "gold", parent=parent)
    child.begin(plan_of({}), "t-2")
    with pytest.raises(ResourceGone, match="its blocks are not known"):
        child.take_from_parent(0, 1)
    put_all(child, {0: BLOCKS[0]})
    child.commit({0: DIGESTS[0]})


# --- committing -------------------------------------------------------------------------------


def test_a_commit_leaves_an_image_its_index_and_its_segments_alone(gcp_lab: GcpLab):
    target, handle = begun(gcp_lab)
    put_all(target, BLOCKS)
    reference = target.commit(DIGESTS)
    name = reference.rsplit("/", maxsplit=1)[-1]
    assert name.startswith("imageport-uploaded-")
    assert handle.rsplit("-", maxsplit=1)[-1] == name.rsplit("-", maxsplit=1)[-1]
    segments = [segment_key(gcp_lab.settings(), DIGESTS[index]) for index in (0, 3, 2047)]
    assert gcp_lab.objects() == sorted([index_key(gcp_lab.settings(), name), *segments])
    assert open_entries(gcp_lab) == [("snapshot", reference)]
    facts = describe_image(gcp_lab.account("run-1"), reference)
    assert facts is not None
    assert facts.ready
    assert facts.tags["imageport:role"] == "uploaded"
    index = read_index(gcp_lab.account("run-1"), name)
    assert index is not None
    assert dict(index.blocks()) == {index: DIGESTS[index] for index in (0, 3, 2047)}
    assert index.tags["imageport:token"] == facts.tags["imageport:token"]
    target.close()


def test_an_image_of_nothing_but_zeros_is_one(gcp_lab: GcpLab):
    target, _ = begun(gcp_lab)
    target.put(4, ZERO_BLOCK, ZERO_DIGEST)
    reference = target.commit({4: ZERO_DIGEST})
    assert reference in gcp_lab.images()
    assert dict(target.read_back([0, 4])) == {0: ZERO_BLOCK, 4: ZERO_BLOCK}
    target.close()


def test_a_block_that_occurs_often_is_stored_once(gcp_lab: GcpLab):
    target, _ = begun(gcp_lab)
    blocks = dict.fromkeys(range(0, 40, 2), block(1))
    put_all(target, blocks)
    target.commit({index: digest(data) for index, data in blocks.items()})
    assert len(gcp_lab.objects(f"{ROOT}seg/")) == 1
    assert dict(target.read_back([38, 39])) == {38: block(1), 39: ZERO_BLOCK}
    target.close()


def test_a_tree_of_joins_leaves_no_part_behind(gcp_lab: GcpLab):
    target, _ = begun(gcp_lab)
    blocks = {index: block(index) for index in range(40)}
    put_all(target, blocks)
    gcp_lab.service.forget_calls()
    target.commit({index: digest(data) for index, data in blocks.items()})
    joins = [item for name, item in gcp_lab.service.requests().items() if "compose" in name]
    assert sum(item["requests"] for item in joins) == 3
    assert gcp_lab.objects("imageport/tmp/") == []
    assert dict(target.read_back([39])) == {39: block(39)}
    target.close()


def test_the_customers_key_holds_for_objects_and_image(gcp_lab: GcpLab):
    target, _ = begun(gcp_lab, kms_key=KMS_KEY)
    put_all(target, BLOCKS)
    reference = target.commit(DIGESTS)
    facts = describe_image(gcp_lab.account("run-1"), reference)
    assert facts is not None
    assert facts.kms_key.startswith(KMS_KEY)
    for item in Objects(gcp_lab.account("run-1")).list(ROOT):
        assert item.kms_key.startswith(KMS_KEY), item.key


@pytest.mark.parametrize(
    "step",
    [
        "insert_raw_image",
        "delete_marker",
        pytest.param("write_index", marks=pytest.mark.slow),
        pytest.param("wait_ready", marks=pytest.mark.slow),
        pytest.param("delete_archive", marks=pytest.mark.slow),
    ],
)
def test_a_commit_killed_at_any_step_is_finished_by_the_next(
    gcp_lab: GcpLab, monkeypatch: pytest.MonkeyPatch, step: str
):
    target, handle = begun(gcp_lab)
    put_all(target, BLOCKS)
    with monkeypatch.context() as patch:
        patch.setattr(image_upload, step, die)
        with pytest.raises(Killed):
            target.commit(DIGESTS)
    again = resumed(gcp_lab, handle, "run-2")
    assert again.lost(DIGESTS) == set()
    reference = again.commit(DIGESTS)
    assert dict(again.read_back([3])) == {3: BLOCKS[3]}
    again.close()
    assert gcp_lab.images() == [reference]
    assert open_entries(gcp_lab) == [("snapshot", reference)]
    assert len(gcp_lab.objects()) == 4


def test_a_commit_of_other_blocks_than_were_put_is_refused(gcp_lab: GcpLab):
    target, _ = begun(gcp_lab)
    put_all(target, BLOCKS)
    with pytest.raises(CloudRefused, match=r"3 blocks .* among them \[3, 4, 2047\]"):
        target.commit({0: DIGESTS[0]})
    with pytest.raises(CloudRefused, match=r"1 blocks .* among them \[3\]"):
        target.commit(DIGESTS | {3: digest(block(33))})
    assert gcp_lab.images() == []
    target.abort()


def test_a_block_that_was_counted_and_never_put_can_still_be_put(gcp_lab: GcpLab):
    target, _ = begun(gcp_lab)
    put_all(target, {3: BLOCKS[3]})
    counted = {3: DIGESTS[3], 2047: DIGESTS[2047]}
    with pytest.raises(CloudUnavailable, match=r"1 or more of 2 blocks .* \[2047\]"):
        target.commit(counted)
    assert target.lost(counted) == {2047}
    put_all(target, {2047: BLOCKS[2047]})
    target.commit(counted)
    target.close()


def test_parts_that_a_killed_commit_left_are_taken_or_replaced(gcp_lab: GcpLab):
    target, handle = begun(gcp_lab)
    blocks = {index: block(index) for index in range(40)}
    put_all(target, blocks)
    folder = f"imageport/tmp/{SITE}/archives/{handle.rsplit('/', maxsplit=1)[-1]}/"
    objects = Objects(gcp_lab.account("x"))
    for name in ("head", "foot", "part-0-00000", "disk.tar.gz", "stray"):
        objects.put(f"{folder}{name}", b"of a killed call")
    target.commit({index: digest(data) for index, data in blocks.items()})
    assert gcp_lab.objects(folder) == []
    assert dict(target.read_back([39])) == {39: block(39)}
    target.close()


def test_an_upload_whose_image_is_gone_again_starts_over(gcp_lab: GcpLab):
    target, handle = begun(gcp_lab)
    put_all(target, BLOCKS)
    reference = target.commit(DIGESTS)
    delete_image(gcp_lab.account("x"), reference)
    with pytest.raises(ResourceGone):
        resumed(gcp_lab, handle)


# --- aborting ---------------------------------------------------------------------------------


def test_an_abort_leaves_nothing_in_bucket_and_ledger(gcp_lab: GcpLab):
    target, _ = begun(gcp_lab)
    put_all(target, BLOCKS)
    target.abort()
    target.abort()
    target.close()
    assert (gcp_lab.objects(), open_entries(gcp_lab)) == ([], [])


def test_an_abort_after_a_commit_that_never_made_an_image_leaves_nothing(
    gcp_lab: GcpLab, monkeypatch: pytest.MonkeyPatch
):
    target, _ = begun(gcp_lab)
    put_all(target, BLOCKS)
    with monkeypatch.context() as patch:
        patch.setattr(image_upload, "insert_raw_image", die)
        with pytest.raises(Killed):
            target.commit(DIGESTS)
    target.abort()
    assert (gcp_lab.objects(), open_entries(gcp_lab)) == ([], [])


def test_an_abort_of_who_does_not_know_of_the_commit_keeps_the_image(gcp_lab: GcpLab):
    target, handle = begun(gcp_lab)
    put_all(target, BLOCKS)
    reference = resumed(gcp_lab, handle).commit(DIGESTS)
    target.abort()
    assert gcp_lab.images() == [reference]
    assert len(gcp_lab.objects(f"{ROOT}seg/")) == 3


def test_a_put_after_the_end_is_one_of_our_errors(gcp_lab: GcpLab):
    target, handle = begun(gcp_lab)
    put_all(target, BLOCKS)
    target.commit(DIGESTS)
    with pytest.raises(ResourceGone, match="its image made already"):
        target.put(5, block(5), digest(block(5)))
    with pytest.raises(ResourceGone, match="its image made already"):
        resumed(gcp_lab, handle).put(5, block(5), digest(block(5)))


def test_an_upload_that_a_sweep_discarded_notices_at_its_commit(gcp_lab: GcpLab):
    target, handle = begun(gcp_lab)
    put_all(target, BLOCKS)
    account = gcp_lab.account("janitor")
    delete_marker(account, handle.rsplit("/", maxsplit=1)[-1])
    image_upload.discard_upload(account, handle)
    with pytest.raises(CloudUnavailable, match="3 or more of 3 blocks"):
        target.commit(DIGESTS)
    with pytest.raises(ResourceGone):
        resumed(gcp_lab, handle)


# --- traits -----------------------------------------------------------------------------------


def test_another_key_is_another_transfer():
    plain, keyed = traits_of(), traits_of(kms_key=KMS_KEY)
    facts = ("upload", "content", 2**30, None)
    assert header_for(*facts, plain).token != header_for(*facts, keyed).token
    assert plain.unwritten_reads_zero
    assert not plain.starts_from_parent
    assert plain.put_blocks * BLOCK_BYTES == 512 * 1024


def test_the_index_says_how_the_image_came(gcp_lab: GcpLab):
    reference = committed(gcp_lab)
    key = index_key(gcp_lab.settings(), reference.rsplit("/", maxsplit=1)[-1])
    facts = Objects(gcp_lab.account("x")).stat(key)
    assert facts is not None
    assert facts.metadata[METADATA_ARCHIVE] == "segments"
