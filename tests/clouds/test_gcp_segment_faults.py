"""The data path to Google on a bad day: throttled, failing, answers lost, segments deleted."""

from __future__ import annotations

import logging
import traceback
import zlib
from typing import Any

import pytest

from imageport.clouds.gcp import image_upload
from imageport.clouds.gcp.images import delete_image
from imageport.clouds.gcp.objects import Objects
from imageport.clouds.gcp.segment_collection import forget_image
from imageport.clouds.gcp.segment_disk import SegmentDisk
from imageport.clouds.gcp.segment_target import SegmentTarget
from imageport.clouds.gcp.segments import METADATA_CRC32, segment_key
from imageport.clouds.gcp.upload_markers import marker_names
from imageport.clouds.waiting import retried
from imageport.errors import (
    CloudError,
    CloudThrottled,
    CloudUnavailable,
    PermissionMissing,
    VerificationFailed,
)
from imageport.formats.gpt import Partition
from imageport.model import BLOCK_BYTES, MIB
from imageport.progress import Event, EventSink, silent
from imageport.transfer.pipeline import TransferRequest, TransferResult, transfer
from imageport.transfer.verify import VerifyLevel
from tests.clouds.cloud_contract import BLOCKS, TOKEN, block, digest, plan_of, put_all
from tests.clouds.gcp_laboratory import GcpLab
from tests.transfer.synthetic_disk import DATA, HOLE, ZERO, SyntheticDisk

DIGESTS = {index: digest(data) for index, data in BLOCKS.items()}


def begun(lab: GcpLab) -> SegmentTarget:
    target = SegmentTarget(lab.account("run-1"), "gold")
    target.begin(plan_of(BLOCKS), TOKEN)
    return target


def put_with_patience(target: SegmentTarget, index: int, data: bytes) -> int:
    """Put as the pipeline does: again while the error says so. Returns the attempts."""
    attempts = 0

    def once() -> None:
        nonlocal attempts
        attempts += 1
        target.put(index, data, digest(data))

    retried(once, attempts=40, budget_seconds=60)
    return attempts


def moved(
    lab: GcpLab,
    disk: SyntheticDisk,
    parent: TransferResult | None = None,
    *,
    verify: VerifyLevel = VerifyLevel.FULL,
    events: EventSink = silent,
) -> TransferResult:
    reference = parent.reference if parent else ""
    target = SegmentTarget(lab.account("run-1"), "gold", parent=reference)
    request = TransferRequest(
        lab.state.journals.open(disk.content_key() + disk.version),
        f"token {disk.version}",
        parent=parent.manifest if parent else None,
        verify=verify,
        events=events,
        partitions=(Partition(1, 0, 16 * MIB, "", "", "data"),),
    )
    try:
        return transfer(disk, target, request)
    finally:
        target.close()


# --- throttling and failures ------------------------------------------------------------------


def test_a_store_that_is_asked_for_too_much_says_slow_down(gcp_lab: GcpLab):
    target = begun(gcp_lab)
    gcp_lab.service.turn(requests_per_second=2.0)
    with pytest.raises(CloudThrottled):
        put_all(target, {index: block(index) for index in range(40)})
    gcp_lab.service.turn(requests_per_second=0.0)
    assert put_with_patience(target, 50, block(50)) == 1


def test_one_request_in_three_may_fail_and_the_upload_is_exact(gcp_lab: GcpLab):
    target = begun(gcp_lab)
    gcp_lab.service.turn(fault_rate=0.3, seed=7)
    attempts = sum(put_with_patience(target, index, block(index)) for index in range(24))
    assert attempts > 24
    digests = {index: digest(block(index)) for index in range(24)}
    retried(lambda: target.commit(digests), attempts=20)
    gcp_lab.service.turn(fault_rate=0.0)
    found = dict(target.read_back(range(24)))
    target.close()
    assert {index: digest(data) for index, data in found.items()} == digests
    assert len(gcp_lab.images()) == 1


def test_a_put_whose_answer_was_lost_is_there_when_it_is_put_again(gcp_lab: GcpLab):
    target = begun(gcp_lab)
    gcp_lab.service.turn(lost_answers=1)
    assert put_with_patience(target, 0, block(0)) == 2
    assert len(target.remarks()) == 1
    target.commit({0: digest(block(0))})


def test_lost_answers_make_nothing_twice(gcp_lab: GcpLab):
    gcp_lab.service.turn(lost_answers=1)  # of the marker
    target = begun(gcp_lab)
    put_all(target, BLOCKS)
    gcp_lab.service.turn(lost_answers=6)  # of head, foot, join, index, image …
    reference = retried(lambda: target.commit(DIGESTS))
    assert gcp_lab.images() == [reference]
    assert len(gcp_lab.objects()) == 4
    entries = [(entry.kind, entry.resource_id) for entry in gcp_lab.state.ledger.open_entries()]
    assert entries == [("snapshot", reference)]


def test_a_failed_operation_of_google_ends_no_upload(
    gcp_lab: GcpLab, monkeypatch: pytest.MonkeyPatch
):
    target = begun(gcp_lab)
    put_all(target, BLOCKS)

    def unavailable(*_arguments: Any, **_named: Any) -> None:
        raise CloudUnavailable("Cannot insert image 'x': INTERNAL_ERROR.")

    with monkeypatch.context() as patch:
        patch.setattr(image_upload, "insert_raw_image", unavailable)
        with pytest.raises(CloudUnavailable, match="INTERNAL_ERROR"):
            target.commit(DIGESTS)
    reference = target.commit(DIGESTS)
    assert gcp_lab.images() == [reference]


def test_a_put_that_is_denied_names_the_permission_and_is_not_repeated(gcp_lab: GcpLab):
    target = begun(gcp_lab)
    gcp_lab.service.turn(denied=["storage.objects.create"])
    with pytest.raises(PermissionMissing) as caught:
        target.put(0, block(0), digest(block(0)))
    assert caught.value.fields["action"] == "storage.objects.create"


@pytest.mark.parametrize("skew", [7200.0, pytest.param(-1800.0, marks=pytest.mark.slow)])
def test_a_clock_that_is_off_disturbs_no_upload(gcp_lab: GcpLab, skew: float):
    """Every decision is by names, generations and the store's own times."""
    clients = gcp_lab.clients
    # New ones are signed by the worker's clock; one that is there stays good for its hour.
    clients.credentials.refresh(clients.token_request)
    gcp_lab.service.turn(clock_skew_seconds=skew)
    result = moved(gcp_lab, SyntheticDisk([(2 * MIB, DATA, 1), (62 * MIB, HOLE, 0)]))
    assert gcp_lab.images() == [result.reference]


# --- what somebody deletes or spoils ----------------------------------------------------------


def test_segments_that_vanish_before_the_commit_are_sent_by_the_next_try(gcp_lab: GcpLab):
    disk = SyntheticDisk([(8 * MIB, DATA, 1), (56 * MIB, HOLE, 0)])
    lost = digest(disk.content(5 * BLOCK_BYTES, BLOCK_BYTES))
    commit = SegmentTarget.commit

    def after_a_loss(self: SegmentTarget, digests: Any) -> str:
        Objects(gcp_lab.account("x")).delete(segment_key(gcp_lab.settings(), lost))
        return commit(self, digests)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentTarget, "commit", after_a_loss)
        patch.setattr("imageport.transfer.retrying._pause_seconds", lambda *_: 0.0)
        with pytest.raises(CloudUnavailable, match=r"1 or more of 16 blocks .* \[5\]"):
            moved(gcp_lab, disk)
    events: list[Event] = []
    result = moved(gcp_lab, disk, events=events.append)
    assert any("the target lost 1 blocks" in event.note for event in events)
    assert result.stats.bytes_sent == BLOCK_BYTES
    assert result.stats.bytes_resumed == 15 * BLOCK_BYTES


def test_a_segment_that_vanishes_while_it_is_joined_is_no_bad_image(gcp_lab: GcpLab):
    target = begun(gcp_lab)
    put_all(target, BLOCKS)
    objects = Objects(gcp_lab.account("x"))
    compose = Objects.compose

    def late(self: Objects, *arguments: Any, **named: Any) -> Any:
        objects.delete(segment_key(gcp_lab.settings(), DIGESTS[3]))
        return compose(self, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Objects, "compose", late)
        with pytest.raises(CloudUnavailable, match="1 or more of 3 blocks"):
            target.commit(DIGESTS)
    assert gcp_lab.images() == []
    assert target.lost(DIGESTS) == {3}
    put_all(target, {3: BLOCKS[3]})
    target.commit(DIGESTS)


def test_a_segment_that_is_replaced_while_it_is_joined_is_no_bad_image(gcp_lab: GcpLab):
    target = begun(gcp_lab)
    put_all(target, BLOCKS)
    objects = Objects(gcp_lab.account("x"))
    compose = Objects.compose

    def late(self: Objects, *arguments: Any, **named: Any) -> Any:
        objects.put(segment_key(gcp_lab.settings(), DIGESTS[3]), b"something else")
        return compose(self, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Objects, "compose", late)
        with pytest.raises(CloudUnavailable):
            target.commit(DIGESTS)
    assert gcp_lab.images() == []


def spoil(lab: GcpLab, index: int, metadata: dict[str, str]) -> None:
    """Write another block's bytes over a segment."""
    objects = Objects(lab.account("x"))
    other = objects.get(segment_key(lab.settings(), DIGESTS[0]))
    objects.put(segment_key(lab.settings(), DIGESTS[index]), other, metadata)


def test_a_segment_that_was_spoilt_is_found_by_reading_back(gcp_lab: GcpLab):
    target = begun(gcp_lab)
    put_all(target, BLOCKS)
    spoil(gcp_lab, 3, {METADATA_CRC32: f"{zlib.crc32(BLOCKS[0]):08x}"})
    target.commit(DIGESTS)
    with pytest.raises(VerificationFailed, match="other data than its SHA-256"):
        dict(target.read_back([3]))
    target.close()


def test_an_object_that_is_no_segment_counts_as_lost_and_is_replaced(gcp_lab: GcpLab):
    target = begun(gcp_lab)
    put_all(target, BLOCKS)
    spoil(gcp_lab, 3, {})
    with pytest.raises(CloudUnavailable, match=r"among them blocks \[3\]"):
        target.commit(DIGESTS)
    assert target.lost(DIGESTS) == {3}
    assert put_with_patience(target, 3, BLOCKS[3]) == 2
    target.commit(DIGESTS)
    assert dict(target.read_back([3])) == {3: BLOCKS[3]}
    target.close()


# --- whole transfers --------------------------------------------------------------------------


def test_the_pipeline_moves_an_image_and_its_delta_through_a_bad_day(gcp_lab: GcpLab):
    first = SyntheticDisk([(16 * MIB, DATA, 1), (4 * MIB, ZERO, 0), (44 * MIB, HOLE, 0)])
    # One MiB changes, one becomes zeros, one becomes a hole.
    second = SyntheticDisk(
        [(MIB, DATA, 2), (MIB, ZERO, 0), (MIB, HOLE, 0), (13 * MIB, DATA, 1), (4 * MIB, ZERO, 0),
         (44 * MIB, HOLE, 0)],
        version="2",
    )  # fmt: skip
    gcp_lab.service.turn(
        fault_rate=0.05, requests_per_second=150.0, mib_per_second=60.0, corrupted_answers=2,
        truncated_answers=2, seed=11,
    )  # fmt: skip
    uploaded = moved(gcp_lab, first)
    changed = moved(gcp_lab, second, uploaded)
    gcp_lab.service.turn(fault_rate=0.0, requests_per_second=0.0, mib_per_second=0.0)
    for result, disk in ((uploaded, first), (changed, second)):
        with SegmentDisk(gcp_lab.account("reader"), result.reference) as found:
            assert found.read_at(0, 20 * MIB) == disk.content(0, 20 * MIB)
    assert sorted(gcp_lab.images()) == sorted([uploaded.reference, changed.reference])
    assert marker_names(gcp_lab.account("looking")) == []


def test_a_change_of_one_percent_sends_little_more_than_that(gcp_lab: GcpLab):
    def disk(seed: int, version: str) -> SyntheticDisk:
        layout = [(22 * MIB, DATA, 1), (BLOCK_BYTES, DATA, seed), (27 * MIB, DATA, 2)]
        return SyntheticDisk([*layout, (14 * MIB + BLOCK_BYTES, HOLE, 0)], version=version)

    uploaded = moved(gcp_lab, disk(3, "1"), verify=VerifyLevel.AGGREGATE)
    assert uploaded.stats.bytes_sent == 49 * MIB + BLOCK_BYTES
    gcp_lab.service.forget_calls()
    changed = moved(gcp_lab, disk(4, "2"), uploaded, verify=VerifyLevel.AGGREGATE)
    assert changed.stats.bytes_sent == BLOCK_BYTES
    arrived = sum(item["bytes_in"] for item in gcp_lab.service.requests().values())
    assert 0 < arrived <= 0.012 * uploaded.stats.bytes_sent


def test_a_parent_that_is_deleted_meanwhile_costs_time_and_nothing_else(gcp_lab: GcpLab):
    disk = SyntheticDisk([(4 * MIB, DATA, 1), (60 * MIB, HOLE, 0)])
    uploaded = moved(gcp_lab, disk)
    account = gcp_lab.account("run-1")
    delete_image(account, uploaded.reference)
    forget_image(account, uploaded.reference.rsplit("/", maxsplit=1)[-1])
    again = SyntheticDisk([(4 * MIB, DATA, 1), (60 * MIB, HOLE, 0)], version="2")
    changed = moved(gcp_lab, again, uploaded)
    assert changed.stats.bytes_sent == 4 * MIB
    assert gcp_lab.images() == [changed.reference]


def test_an_upload_that_starts_over_sends_only_what_the_bucket_lacks(gcp_lab: GcpLab):
    """The worker's journal is gone; what it sent is not."""
    disk = SyntheticDisk([(8 * MIB, DATA, 1), (56 * MIB, HOLE, 0)])
    target = SegmentTarget(gcp_lab.account("run-1"), "gold")
    target.begin(plan_of({}, disk.size_bytes), "of another worker")
    for index in range(10):
        data = disk.content(index * BLOCK_BYTES, BLOCK_BYTES)
        target.put(index, data, digest(data))
    events: list[Event] = []
    moved(gcp_lab, disk, events=events.append)
    notes = [event.note for event in events]
    assert "10 blocks lay in the bucket already and were not sent again" in notes


# --- secrets ----------------------------------------------------------------------------------


def test_no_token_is_in_any_log_ledger_entry_or_error_of_an_upload(
    gcp_lab: GcpLab, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.DEBUG):
        target = begun(gcp_lab)
        put_all(target, BLOCKS)
        gcp_lab.service.turn(fault_rate=1.0)
        with pytest.raises(CloudError) as caught:
            target.put(1, block(1), digest(block(1)))
        gcp_lab.service.turn(fault_rate=0.0)
        target.abort()
    token: Any = gcp_lab.clients.credentials.token
    assert token
    formatter = logging.Formatter()
    printed = "".join(formatter.format(record) for record in caplog.records)
    error = caught.value
    told = "".join(traceback.format_exception(error))
    entries = str(gcp_lab.state.ledger.open_entries())
    assert token not in f"{printed}{told}{error!r}{error.as_dict()}{target!r}{entries}"
