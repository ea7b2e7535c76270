"""Children of snapshots: what they inherit, what changed, what survives a deletion."""

from __future__ import annotations

from typing import Any

BLOCK = 512 * 1024


def block(letter: str) -> bytes:
    return letter.encode() * BLOCK


def test_a_child_shows_its_parents_blocks_under_its_own(account: Any):
    parent = account.snapshot({0: block("a"), 1: block("b")})
    child = account.snapshot({1: block("c"), 7: block("d")}, ParentSnapshotId=parent)
    assert account.read(child) == {0: block("a"), 1: block("c"), 7: block("d")}
    assert account.read(parent) == {0: block("a"), 1: block("b")}


def test_a_child_may_change_nothing(account: Any):
    parent = account.snapshot({0: block("a")})
    child = account.snapshot({}, ParentSnapshotId=parent)
    assert account.read(child) == {0: block("a")}


def test_changed_blocks_are_those_that_differ_and_no_others(account: Any):
    parent = account.snapshot({0: block("a"), 1: block("b"), 2: block("c")})
    changes = {1: block("x"), 2: block("c"), 9: block("y")}
    child = account.snapshot(changes, ParentSnapshotId=parent)
    found = account.ebs.list_changed_blocks(FirstSnapshotId=parent, SecondSnapshotId=child)
    assert [item["BlockIndex"] for item in found["ChangedBlocks"]] == [1, 9]
    both, new = found["ChangedBlocks"]
    assert "FirstBlockToken" in both
    assert "FirstBlockToken" not in new
    answer = account.ebs.get_snapshot_block(
        SnapshotId=child, BlockIndex=9, BlockToken=new["SecondBlockToken"]
    )
    with answer["BlockData"] as body:
        assert body.read() == block("y")


def test_snapshots_of_two_lineages_are_not_compared(account: Any, refused: Any):
    first, second = account.snapshot({0: block("a")}), account.snapshot({0: block("a")})
    found = refused(account.ebs.list_changed_blocks, FirstSnapshotId=first, SecondSnapshotId=second)
    assert found["reason"] == "UNRELATED_SNAPSHOTS"


def test_a_parent_that_is_not_completed_is_refused(account: Any, refused: Any):
    pending = account.start()
    assert refused(account.start, ParentSnapshotId=pending)["code"] == "ValidationException"


def test_a_parent_that_is_gone_is_not_found(account: Any, refused: Any):
    parent = account.snapshot({0: block("a")})
    account.ec2.delete_snapshot(SnapshotId=parent)
    assert refused(account.start, ParentSnapshotId=parent)["code"] == "ResourceNotFoundException"


def test_a_parent_and_encryption_exclude_each_other(account: Any, refused: Any):
    parent = account.snapshot({0: block("a")})
    found = refused(account.start, ParentSnapshotId=parent, Encrypted=True)
    assert found["code"] == "ValidationException"


def test_a_child_is_not_smaller_than_its_parent(account: Any, refused: Any):
    parent = account.snapshot({0: block("a")}, size_gib=2)
    assert refused(account.start, 1, ParentSnapshotId=parent)["reason"] == "INVALID_VOLUME_SIZE"


def test_a_child_keeps_all_its_blocks_when_the_parent_is_deleted(account: Any):
    parent = account.snapshot({0: block("a"), 1: block("b")})
    child = account.snapshot({1: block("c")}, ParentSnapshotId=parent)
    account.ec2.delete_snapshot(SnapshotId=parent)
    assert account.read(child) == {0: block("a"), 1: block("c")}


def test_encryption_is_inherited(account: Any):
    parent = account.snapshot({0: block("a")}, Encrypted=True)
    child = account.snapshot({}, ParentSnapshotId=parent)
    found = account.ec2.describe_snapshots(SnapshotIds=[child])["Snapshots"][0]
    assert found["Encrypted"] is True


def test_pages_are_followed_by_their_tokens(account: Any):
    snapshot_id = account.snapshot({index: bytes(BLOCK) for index in range(0, 300, 2)})
    seen: list[int] = []
    token: dict[str, str] = {}
    pages = 0
    while pages == 0 or token:
        answer = account.ebs.list_snapshot_blocks(SnapshotId=snapshot_id, MaxResults=100, **token)
        seen += [item["BlockIndex"] for item in answer["Blocks"]]
        token = {"NextToken": answer["NextToken"]} if "NextToken" in answer else {}
        pages += 1
    assert seen == list(range(0, 300, 2))
    assert pages == 2


def test_a_list_starts_where_it_is_asked_to(account: Any):
    snapshot_id = account.snapshot({3: block("a"), 8: block("b")})
    answer = account.ebs.list_snapshot_blocks(SnapshotId=snapshot_id, StartingBlockIndex=4)
    assert [item["BlockIndex"] for item in answer["Blocks"]] == [8]


def test_a_page_token_of_another_snapshot_is_refused(account: Any, refused: Any):
    blocks = {index: bytes(BLOCK) for index in range(101)}
    one, two = account.snapshot(blocks), account.snapshot({0: block("a")})
    token = account.ebs.list_snapshot_blocks(SnapshotId=one, MaxResults=100)["NextToken"]
    found = refused(account.ebs.list_snapshot_blocks, SnapshotId=two, NextToken=token)
    assert found["reason"] == "INVALID_PAGE_TOKEN"


def test_an_empty_page_may_come_before_the_last(account: Any):
    snapshot_id = account.snapshot({3: block("a")})
    account.service.turn(empty_pages=True)
    first = account.ebs.list_snapshot_blocks(SnapshotId=snapshot_id)
    assert first["Blocks"] == []
    second = account.ebs.list_snapshot_blocks(SnapshotId=snapshot_id, NextToken=first["NextToken"])
    assert [item["BlockIndex"] for item in second["Blocks"]] == [3]
    assert "NextToken" not in second
