"""The EBS target keeps the contract of block targets, also when AWS throttles, fails or forgets."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from imageport.clouds.aws import ebs_snapshot_target
from imageport.clouds.aws.ebs_snapshot_target import EbsSnapshotTarget, traits_of
from imageport.clouds.waiting import retried
from imageport.errors import (
    CloudError,
    CloudRefused,
    CloudThrottled,
    CloudUnavailable,
    ResourceGone,
)
from imageport.formats.gpt import Partition
from imageport.model import BLOCK_BYTES, GIB, ZERO_BLOCK
from imageport.transfer.block_target import TransferPlan
from imageport.transfer.pipeline import TransferRequest, transfer
from imageport.transfer.verify import VerifyLevel
from tests.clouds.aws_laboratory import AwsLab
from tests.clouds.cloud_contract import BLOCKS, SITE, TOKEN, block, digest, plan_of, put_all
from tests.transfer.synthetic_disk import DATA, HOLE, ZERO, SyntheticDisk
from tests.transfer.target_contract import BlockTargetContract, TargetFactory


class TestEbsSnapshotTarget(BlockTargetContract):
    @pytest.fixture
    def make_target(self, aws_lab: AwsLab) -> TargetFactory:
        return lambda: EbsSnapshotTarget(aws_lab.account("run-1"), "gold")


DIGESTS = {index: digest(data) for index, data in BLOCKS.items()}


def begun(lab: AwsLab, **changes: Any) -> tuple[EbsSnapshotTarget, str]:
    target = EbsSnapshotTarget(lab.account("run-1", **changes), "gold")
    return target, target.begin(plan_of(BLOCKS), TOKEN)


def put_with_patience(target: EbsSnapshotTarget, index: int, data: bytes) -> int:
    """Put as the pipeline does: again while the error says so. Returns the attempts."""
    attempts = 0

    def once() -> None:
        nonlocal attempts
        attempts += 1
        target.put(index, data, digest(data))

    retried(once, attempts=40, budget_seconds=60)
    return attempts


def test_start_names_size_token_timeout_and_tags(aws_lab: AwsLab):
    _, handle = begun(aws_lab)
    (found,) = aws_lab.ec2.describe_snapshots(SnapshotIds=[handle])["Snapshots"]
    assert found["State"] == "pending"
    assert found["VolumeSize"] == 1
    tags = {tag["Key"]: tag["Value"] for tag in found["Tags"]}
    assert tags["imageport:site"] == SITE
    assert tags["Name"] == "gold"


def test_a_volume_is_as_many_whole_gib_as_the_image_needs(aws_lab: AwsLab):
    target = EbsSnapshotTarget(aws_lab.account("run-1"), "gold")
    handle = target.begin(TransferPlan(GIB + 1, (), (), 0), TOKEN)
    (found,) = aws_lab.ec2.describe_snapshots(SnapshotIds=[handle])["Snapshots"]
    assert found["VolumeSize"] == 2
    with pytest.raises(ResourceGone, match="found 2 GiB, needed 1 GiB"):
        target.resume(plan_of(BLOCKS), handle)


def test_an_encrypted_target_is_encrypted_from_the_first_block(aws_lab: AwsLab):
    _, handle = begun(aws_lab, encrypted=True)
    (found,) = aws_lab.ec2.describe_snapshots(SnapshotIds=[handle])["Snapshots"]
    assert found["Encrypted"]


def test_blocks_put_twice_count_once(aws_lab: AwsLab):
    target, handle = begun(aws_lab)
    put_all(target, BLOCKS)
    put_all(target, {3: BLOCKS[3]})
    assert target.commit(DIGESTS) == handle


def test_the_aggregate_is_the_sha256_of_raw_digests_in_index_order(aws_lab: AwsLab):
    target, handle = begun(aws_lab)
    put_all(target, dict(reversed(BLOCKS.items())))
    linear = hashlib.sha256(b"".join(DIGESTS[index] for index in sorted(DIGESTS))).digest()
    # The emulator computes the aggregate itself and compares.
    answer = aws_lab.ebs.complete_snapshot(
        SnapshotId=handle,
        ChangedBlocksCount=len(DIGESTS),
        Checksum=base64.b64encode(linear).decode(),
        ChecksumAlgorithm="SHA256",
        ChecksumAggregationMethod="LINEAR",
    )
    assert answer["Status"] == "pending"


def test_a_wrong_aggregate_is_refused_and_the_snapshot_stays_pending(aws_lab: AwsLab):
    target, handle = begun(aws_lab)
    put_all(target, BLOCKS)
    with pytest.raises(CloudRefused):
        target.commit({**DIGESTS, 3: digest(b"another")})
    assert not aws_lab.cloud("run-1").exists(handle)
    target.abort()
    assert aws_lab.cloud("run-1").list_ours(SITE) == []


def test_a_block_that_is_not_512_kib_is_refused(aws_lab: AwsLab):
    target, _ = begun(aws_lab)
    with pytest.raises(CloudRefused):
        target.put(0, b"short", digest(b"short"))


def test_a_throttled_put_asks_to_slow_down_and_passes_later(aws_lab: AwsLab):
    target, _ = begun(aws_lab)
    aws_lab.service.turn(throttle_rps=2.0)
    zeros = dict.fromkeys(range(40), ZERO_BLOCK)
    with pytest.raises(CloudThrottled) as caught:
        put_all(target, zeros)
    assert caught.value.retryable
    assert put_with_patience(target, 50, block(50)) >= 1


def test_one_request_in_five_may_fail_and_the_upload_is_exact(aws_lab: AwsLab):
    aws_lab.service.turn(fault_rate=0.2, seed=7)
    target, handle = begun(aws_lab)
    attempts = sum(put_with_patience(target, index, block(index)) for index in range(40))
    assert attempts > 40
    digests = {index: digest(block(index)) for index in range(40)}
    assert target.commit(digests) == handle
    found = dict(target.read_back(range(40)))
    assert {index: digest(data) for index, data in found.items()} == digests
    target.close()
    aws_lab.service.turn(fault_rate=0.0)
    (only,) = aws_lab.cloud("run-1").list_ours(SITE)
    assert only.id == handle


def test_a_snapshot_that_the_block_servers_do_not_know_yet_is_waited_for(aws_lab: AwsLab):
    aws_lab.service.turn(unknown_seconds=1.0)
    target, _ = begun(aws_lab)
    with pytest.raises(CloudUnavailable):
        target.put(0, BLOCKS[0], DIGESTS[0])
    assert put_with_patience(target, 0, BLOCKS[0]) > 1


def test_a_snapshot_that_stays_unknown_is_gone(aws_lab: AwsLab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ebs_snapshot_target, "UNKNOWN_SECONDS", 0.0)
    target, handle = begun(aws_lab)
    aws_lab.ec2.delete_snapshot(SnapshotId=handle)
    with pytest.raises(ResourceGone):
        target.put(0, BLOCKS[0], DIGESTS[0])


def test_a_completion_whose_answer_was_lost_is_found_out(aws_lab: AwsLab):
    aws_lab.service.turn(complete_seconds=1.0)
    target, handle = begun(aws_lab)
    put_all(target, BLOCKS)
    # The first call seals; then the process dies before it sees the snapshot complete.
    target._complete(DIGESTS)
    assert not aws_lab.cloud("run-1").exists(handle)
    again = EbsSnapshotTarget(aws_lab.account("run-1"), "gold")
    again.resume(plan_of(BLOCKS), handle)
    assert again.commit(DIGESTS) == handle
    assert aws_lab.cloud("run-1").exists(handle)


def test_an_abort_that_races_with_completion_keeps_the_finished_snapshot(aws_lab: AwsLab):
    target, handle = begun(aws_lab)
    put_all(target, BLOCKS)
    other = EbsSnapshotTarget(aws_lab.account("run-1"), "gold")
    other.resume(plan_of(BLOCKS), handle)
    other.commit(DIGESTS)
    target.abort()  # does not know yet that it was completed
    assert aws_lab.cloud("run-1").exists(handle)


def test_a_finished_upload_that_nobody_recorded_is_left_to_the_sweep(aws_lab: AwsLab):
    target, handle = begun(aws_lab)
    put_all(target, BLOCKS)
    target.commit(DIGESTS)
    again, second = begun(aws_lab)
    assert second != handle
    put_all(again, BLOCKS)
    assert again.commit(DIGESTS) == second
    third = EbsSnapshotTarget(aws_lab.account("run-1"), "gold").begin(plan_of(BLOCKS), TOKEN)
    assert third not in {handle, second}
    assert {entry.resource_id for entry in aws_lab.state.ledger.open_entries()} == {
        handle, second, third,
    }  # fmt: skip


def test_a_snapshot_deleted_behind_our_back_is_started_anew(aws_lab: AwsLab):
    _, handle = begun(aws_lab)
    aws_lab.ec2.delete_snapshot(SnapshotId=handle)
    _, second = begun(aws_lab)
    assert second != handle
    assert [entry.resource_id for entry in aws_lab.state.ledger.open_entries()] == [second]


def test_a_cancelled_upload_leaves_no_snapshot_and_no_ledger_entry(aws_lab: AwsLab):
    target, _ = begun(aws_lab)
    put_all(target, {0: BLOCKS[0]})
    target.abort()
    assert aws_lab.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []
    assert aws_lab.state.ledger.open_entries() == []


def test_a_long_upload_keeps_its_snapshot_from_the_sweep(aws_lab: AwsLab):
    target, handle = begun(aws_lab, expires_seconds=1.0)
    before = aws_lab.state.ledger.open_entries()[0].expires
    tags_before = aws_lab.cloud("x").list_ours(SITE)[0].tags["imageport:expires"]
    for index in range(3):
        target._account._renewed -= 10_000.0  # as if a quarter of the expiry had passed
        target._account.expires_seconds = 3600.0
        target.put(index, block(index), digest(block(index)))
    assert aws_lab.state.ledger.open_entries()[0].expires > before
    (listed,) = aws_lab.cloud("x").list_ours(SITE)
    assert listed.id == handle
    assert listed.tags["imageport:expires"] > tags_before


def test_a_delta_holds_only_what_was_put_over_its_parent(aws_lab: AwsLab):
    cloud = aws_lab.cloud("run-1")
    parent, _ = begun(aws_lab)
    put_all(parent, BLOCKS)
    reference = parent.commit(DIGESTS)
    child = cloud.upload_target("gold", parent=reference)
    changed = {3: block(33), 0: ZERO_BLOCK}
    handle = child.begin(plan_of(changed), "delta")
    put_all(child, changed)
    child.commit({index: digest(data) for index, data in changed.items()})
    assert child.traits.attributes["parent"] == reference
    listed = aws_lab.ebs.list_changed_blocks(FirstSnapshotId=reference, SecondSnapshotId=handle)
    assert sorted(item["BlockIndex"] for item in listed["ChangedBlocks"]) == [0, 3]
    assert dict(child.read_back([0, 2047])) == {0: ZERO_BLOCK, 2047: BLOCKS[2047]}
    child.close()


@pytest.mark.parametrize(
    ("changes", "parent", "known", "zero", "encrypted"),
    [
        ({}, "", False, False, "maybe"),
        ({}, "", True, False, "yes"),
        ({"unencrypted_for_ever": True}, "", False, True, "no"),
        ({"unencrypted_for_ever": True}, "", True, False, "yes"),
        ({"unencrypted_for_ever": True}, "snap-1", False, False, "no"),
    ],
)
def test_only_a_parentless_snapshot_that_stays_unencrypted_reads_zero_where_nothing_was_put(
    aws_lab: AwsLab, changes: dict[str, Any], parent: str, known: bool, zero: bool, encrypted: str
):
    traits = traits_of(aws_lab.settings(**changes), parent=parent, encrypted=known)
    assert traits.unwritten_reads_zero is zero
    assert traits.fills_holes is known
    assert traits.attributes["encrypted"] == encrypted
    assert traits.keeps_parent_zeros is (encrypted == "no")


def test_an_account_that_encrypts_by_default_gets_its_holes_filled(aws_lab: AwsLab):
    account = aws_lab.account("run-1")
    assert not EbsSnapshotTarget(account, "gold").traits.fills_holes
    account.clients.ec2.enable_ebs_encryption_by_default()
    try:
        assert EbsSnapshotTarget(account, "gold").traits.fills_holes
    finally:
        account.clients.ec2.disable_ebs_encryption_by_default()
    assert EbsSnapshotTarget(aws_lab.account("run-1", encrypted=True), "gold").traits.fills_holes


def test_reading_survives_empty_pages_throttling_and_failures(aws_lab: AwsLab):
    blocks = {index: block(index) for index in range(0, 60, 3)}
    target, _ = begun(aws_lab)
    put_all(target, blocks)
    reference = target.commit({index: digest(data) for index, data in blocks.items()})
    aws_lab.service.turn(empty_pages=True, fault_rate=0.1, seed=3)
    with aws_lab.cloud("run-1").open_snapshot(reference) as disk:
        read = {
            offset // BLOCK_BYTES: data for offset, data in disk.read_many([(0, 60 * BLOCK_BYTES)])
        }
    assert len(read) == 60
    assert all(data == blocks.get(index, ZERO_BLOCK) for index, data in read.items())


def test_what_cannot_be_read_for_good_ends_in_one_error(aws_lab: AwsLab):
    target, _ = begun(aws_lab)
    put_all(target, BLOCKS)
    reference = target.commit(DIGESTS)
    disk = aws_lab.cloud("run-1").open_snapshot(reference)
    aws_lab.ec2.delete_snapshot(SnapshotId=reference)
    with pytest.raises(CloudError):
        list(disk.read_many([(0, 10 * BLOCK_BYTES)]))
    disk.close()


def test_the_pipeline_moves_an_image_and_its_delta_through_a_bad_day(aws_lab: AwsLab):
    mib = 1024 * 1024
    first = SyntheticDisk([(8 * mib, DATA, 1), (4 * mib, ZERO, 0), (1012 * mib, HOLE, 0)])
    # One MiB changes, one becomes zeros, one becomes a hole.
    second = SyntheticDisk(
        [(mib, DATA, 2), (mib, ZERO, 0), (mib, HOLE, 0), (5 * mib, DATA, 1), (4 * mib, ZERO, 0),
         (1012 * mib, HOLE, 0)]
    )  # fmt: skip
    cloud = aws_lab.cloud("run-1")
    aws_lab.service.turn(fault_rate=0.05, throttle_rps=60.0, seed=11)
    parent, reference = None, ""
    for disk in (first, second):
        target = cloud.upload_target("gold", parent=reference)
        journal = aws_lab.state.journals.open(disk.content_key())
        request = TransferRequest(
            journal,
            disk.content_key(),
            parent=parent,
            verify=VerifyLevel.FULL,
            partitions=(Partition(1, 0, 16 * mib, "", "", "data"),),
        )
        result = transfer(disk, target, request)
        parent, reference = result.manifest, result.reference
        with cloud.open_snapshot(reference) as opened:
            assert opened.read_at(0, 13 * mib) == disk.content(0, 13 * mib)
        target.close()
    aws_lab.service.turn(fault_rate=0.0)
    assert len(cloud.list_ours(SITE)) == 2  # every failed request was made good, none doubled


def test_only_an_encrypted_parent_fits_where_encryption_is_asked_for(aws_lab: AwsLab):
    references = {}
    for encrypted in (False, True):
        account = aws_lab.account(f"run-{encrypted}", encrypted=encrypted)
        target = EbsSnapshotTarget(account, f"gold-{encrypted}")
        target.begin(plan_of(BLOCKS), f"token-{encrypted}")
        put_all(target, BLOCKS)
        references[encrypted] = target.commit(DIGESTS)
    plain, strict = aws_lab.aws_cloud("run-1"), aws_lab.aws_cloud("run-1", encrypted=True)
    assert [plain.fits_as_parent(references[encrypted]) for encrypted in (False, True)] == [
        True, True,
    ]  # fmt: skip
    assert not strict.fits_as_parent(references[False])
    assert strict.fits_as_parent(references[True])
    aws_lab.ec2.delete_snapshot(SnapshotId=references[True])
    assert not strict.fits_as_parent(references[True])
