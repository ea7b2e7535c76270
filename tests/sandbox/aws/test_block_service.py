"""EBS direct refuses what AWS refuses."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

DATA = b"imageport" * 58254 + b"!!"  # 512 KiB
BLOCK = 512 * 1024


def linear(*blocks: bytes) -> dict[str, str]:
    digests = b"".join(hashlib.sha256(block).digest() for block in blocks)
    return {
        "Checksum": base64.b64encode(hashlib.sha256(digests).digest()).decode(),
        "ChecksumAlgorithm": "SHA256",
        "ChecksumAggregationMethod": "LINEAR",
    }


def test_what_was_put_is_read_back_with_its_checksum(account: Any):
    snapshot_id = account.snapshot({0: DATA, 2047: bytes(BLOCK)})
    assert account.read(snapshot_id) == {0: DATA, 2047: bytes(BLOCK)}
    listed = account.ebs.list_snapshot_blocks(SnapshotId=snapshot_id)
    assert (listed["VolumeSize"], listed["BlockSize"]) == (1, BLOCK)
    answer = account.ebs.get_snapshot_block(SnapshotId=snapshot_id, **listed["Blocks"][0])
    answer["BlockData"].close()
    assert answer["Checksum"] == base64.b64encode(hashlib.sha256(DATA).digest()).decode()


def test_a_wrong_checksum_is_refused(account: Any, refused: Any):
    snapshot_id = account.start()
    found = refused(
        account.put, snapshot_id, 0, DATA, Checksum=base64.b64encode(bytes(32)).decode()
    )
    assert (found["code"], found["status"]) == ("ValidationException", 400)


def test_a_short_block_is_refused(account: Any, refused: Any):
    found = refused(account.put, account.start(), 0, DATA[:100])
    assert found["code"] == "ValidationException"
    assert "Failed to read block data" in found["message"]


def test_another_data_length_is_refused(account: Any, refused: Any):
    found = refused(account.put, account.start(), 0, DATA[:4096], DataLength=4096)
    assert found["code"] == "ValidationException"


def test_an_index_past_the_end_is_refused(account: Any, refused: Any):
    snapshot_id = account.start()
    account.put(snapshot_id, 2047, DATA)
    found = refused(account.put, snapshot_id, 2048, DATA)
    assert found["reason"] == "INVALID_BLOCK"


def test_a_put_after_completion_is_refused(account: Any, refused: Any):
    snapshot_id = account.snapshot({0: DATA})
    found = refused(account.put, snapshot_id, 1, DATA)
    assert found["code"] == "ValidationException"


def test_a_put_into_a_deleted_snapshot_is_refused(account: Any, refused: Any):
    snapshot_id = account.start()
    account.ec2.delete_snapshot(SnapshotId=snapshot_id)
    found = refused(account.put, snapshot_id, 0, DATA)
    assert (found["code"], found["reason"]) == ("ResourceNotFoundException", "SNAPSHOT_NOT_FOUND")
    assert found["status"] == 404


def test_an_unknown_snapshot_is_not_found(account: Any, refused: Any):
    found = refused(account.put, "snap-0123456789abcdef0", 0, DATA)
    assert found["code"] == "ResourceNotFoundException"
    found = refused(account.ec2.describe_snapshots, SnapshotIds=["snap-0123456789abcdef0"])
    assert found["code"] == "InvalidSnapshot.NotFound"


def test_completion_counts_distinct_blocks(account: Any, refused: Any):
    snapshot_id = account.start()
    account.put(snapshot_id, 5, DATA)
    account.put(snapshot_id, 5, DATA[::-1])
    assert refused(account.complete, snapshot_id, 2)["code"] == "ValidationException"
    account.complete(snapshot_id, 1)


def test_completion_checks_the_linear_checksum_in_order_of_index(account: Any, refused: Any):
    snapshot_id = account.start()
    account.put(snapshot_id, 9, DATA[::-1])
    account.put(snapshot_id, 4, DATA)
    wrong = refused(account.complete, snapshot_id, 2, **linear(DATA[::-1], DATA))
    assert wrong["code"] == "ValidationException"
    account.complete(snapshot_id, 2, **linear(DATA, DATA[::-1]))


def test_completion_is_asynchronous_and_happens_once(account: Any, refused: Any):
    account.service.turn(complete_seconds=0.5)
    snapshot_id = account.start()
    account.put(snapshot_id, 0, DATA)
    account.complete(snapshot_id, 1)
    assert account.snapshot_state(snapshot_id) == "pending"
    assert refused(account.complete, snapshot_id, 1)["code"] == "ValidationException"
    account.until(lambda: account.snapshot_state(snapshot_id) == "completed")


def test_a_pending_snapshot_is_neither_listed_nor_read(account: Any, refused: Any):
    snapshot_id = account.start()
    account.put(snapshot_id, 0, DATA)
    for call in (account.ebs.list_snapshot_blocks, account.ebs.get_snapshot_block):
        more = {} if call == account.ebs.list_snapshot_blocks else _any_block()
        assert refused(call, SnapshotId=snapshot_id, **more)["code"] == "ValidationException"


def _any_block() -> dict[str, Any]:
    return {"BlockIndex": 0, "BlockToken": "AAAA"}


def test_a_bogus_token_and_the_token_of_another_block_are_refused(account: Any, refused: Any):
    snapshot_id = account.snapshot({0: DATA, 1: DATA})
    blocks = account.ebs.list_snapshot_blocks(SnapshotId=snapshot_id)["Blocks"]
    for token in ("AAAA", "no base64!", blocks[1]["BlockToken"]):
        found = refused(
            account.ebs.get_snapshot_block, SnapshotId=snapshot_id, BlockIndex=0, BlockToken=token
        )
        assert found["reason"] == "INVALID_BLOCK_TOKEN"


def test_the_same_client_token_returns_the_same_snapshot(account: Any):
    first = account.ebs.start_snapshot(VolumeSize=1, ClientToken="once", Description="x")
    again = account.ebs.start_snapshot(VolumeSize=1, ClientToken="once", Description="x")
    assert first["SnapshotId"] == again["SnapshotId"]


def test_a_client_token_with_other_parameters_is_a_conflict(account: Any, refused: Any):
    account.start(ClientToken="twice")
    found = refused(account.start, 2, ClientToken="twice")
    assert (found["code"], found["status"]) == ("ConflictException", 409)


def test_sizes_and_timeouts_out_of_range_are_refused(account: Any, refused: Any):
    assert refused(account.start, 65537)["reason"] == "INVALID_VOLUME_SIZE"
    # botocore checks the lower bound of Timeout itself.
    assert refused(account.start, Timeout=4321)["code"] == "ValidationException"


def test_a_key_without_encryption_is_refused(account: Any, refused: Any):
    found = refused(account.start, KmsKeyArn="arn:aws:kms:eu-central-1:1:key/x")
    assert found["code"] == "ValidationException"


def test_tags_and_description_are_seen_by_ec2(account: Any):
    tags = [{"Key": "imageport:token", "Value": "t-1"}]
    snapshot_id = account.start(Tags=tags, Description="golden")
    found = account.ec2.describe_snapshots(
        OwnerIds=["self"], Filters=[{"Name": "tag:imageport:token", "Values": ["t-1"]}]
    )["Snapshots"]
    assert [item["SnapshotId"] for item in found] == [snapshot_id]
    assert (found[0]["Description"], found[0]["State"]) == ("golden", "pending")
