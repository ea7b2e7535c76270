"""Volumes are real disks made from blocks, and snapshots of them hold what changed."""

from __future__ import annotations

from typing import Any

BLOCK = 512 * 1024


def block(letter: str) -> bytes:
    return letter.encode() * BLOCK


def disk_of(account: Any, volume_id: str):
    return account.service._root / "volumes" / f"{volume_id}.raw"


def write(account: Any, volume_id: str, index: int, data: bytes):
    with disk_of(account, volume_id).open("r+b") as disk:
        disk.seek(index * BLOCK)
        disk.write(data)


def snapshot_of(account: Any, volume_id: str, **chosen: Any):
    snapshot_id = account.ec2.create_snapshot(VolumeId=volume_id, **chosen)["SnapshotId"]
    account.until(lambda: account.snapshot_state(snapshot_id) == "completed")
    return snapshot_id


def test_a_volume_is_a_sparse_file_with_the_snapshots_blocks(account: Any):
    snapshot_id = account.snapshot({2: block("a"), 5: bytes(BLOCK)})
    volume_id = account.volume(SnapshotId=snapshot_id)
    disk = disk_of(account, volume_id)
    with disk.open("rb") as file:
        file.seek(2 * BLOCK)
        assert file.read(2 * BLOCK) == block("a") + bytes(BLOCK)
    assert disk.stat().st_size == 1 << 30
    assert disk.stat().st_blocks * 512 < 2 * BLOCK


def test_a_snapshot_of_a_volume_is_an_increment_of_where_it_came_from(account: Any):
    parent = account.snapshot({0: block("a"), 1: block("b"), 2: block("c")})
    volume_id = account.volume(SnapshotId=parent)
    write(account, volume_id, 1, block("x"))
    write(account, volume_id, 2, bytes(BLOCK))
    write(account, volume_id, 40, block("y"))
    child = snapshot_of(account, volume_id)
    expected = {0: block("a"), 1: block("x"), 2: bytes(BLOCK), 40: block("y")}
    assert account.read(child) == expected
    changed = account.ebs.list_changed_blocks(FirstSnapshotId=parent, SecondSnapshotId=child)
    assert [item["BlockIndex"] for item in changed["ChangedBlocks"]] == [1, 2, 40]


def test_a_snapshot_keeps_the_moment_when_the_volume_is_deleted(account: Any):
    volume_id = account.volume()
    write(account, volume_id, 3, block("z"))
    snapshot_id = account.ec2.create_snapshot(VolumeId=volume_id)["SnapshotId"]
    account.ec2.delete_volume(VolumeId=volume_id)
    account.until(lambda: account.snapshot_state(snapshot_id) == "completed")
    assert account.read(snapshot_id) == {3: block("z")}


def test_a_volume_in_use_is_found_by_its_tags(account: Any):
    tags = [{"ResourceType": "volume", "Tags": [{"Key": "imageport:site", "Value": "lab-7"}]}]
    volume_id = account.volume(TagSpecifications=tags)
    found = account.ec2.describe_volumes(
        Filters=[{"Name": "tag:imageport:site", "Values": ["lab-7"]}]
    )["Volumes"]
    assert [item["VolumeId"] for item in found] == [volume_id]


def test_a_pending_snapshot_makes_no_volume(account: Any, refused: Any):
    found = refused(
        account.ec2.create_volume, SnapshotId=account.start(), AvailabilityZone="eu-central-1a"
    )
    assert found["code"] == "IncorrectState"


def test_a_volume_is_not_smaller_than_its_snapshot(account: Any, refused: Any):
    snapshot_id = account.snapshot({0: block("a")}, size_gib=2)
    request = {"SnapshotId": snapshot_id, "AvailabilityZone": "eu-central-1a", "Size": 1}
    assert refused(account.ec2.create_volume, **request)["code"] == "InvalidParameterValue"
    assert account.volume(SnapshotId=snapshot_id, Size=3)


def test_a_zone_that_does_not_exist_is_refused(account: Any, refused: Any):
    found = refused(account.ec2.create_volume, Size=1, AvailabilityZone="eu-central-1z")
    assert found["code"] == "InvalidZone.NotFound"


def test_the_same_client_token_returns_the_same_volume(account: Any, refused: Any):
    request = {"Size": 1, "AvailabilityZone": "eu-central-1a", "ClientToken": "v"}
    first = account.ec2.create_volume(**request)["VolumeId"]
    assert account.ec2.create_volume(**request)["VolumeId"] == first
    found = refused(account.ec2.create_volume, **(request | {"Size": 2}))
    assert found["code"] == "IdempotentParameterMismatch"


def test_a_dry_run_creates_nothing(account: Any, refused: Any):
    before = len(account.ec2.describe_volumes()["Volumes"])
    found = refused(
        account.ec2.create_volume, Size=1, AvailabilityZone="eu-central-1a", DryRun=True
    )
    assert found["code"] == "DryRunOperation"
    assert len(account.ec2.describe_volumes()["Volumes"]) == before


def test_a_deleted_volume_is_gone_with_its_disk(account: Any, refused: Any):
    volume_id = account.volume()
    account.ec2.delete_volume(VolumeId=volume_id)
    assert not disk_of(account, volume_id).exists()
    found = refused(account.ec2.describe_volumes, VolumeIds=[volume_id])
    assert found["code"] == "InvalidVolume.NotFound"


def test_an_encrypted_volume_is_garbage_where_nothing_was_written(account: Any):
    snapshot_id = account.snapshot({0: block("a"), 125: bytes(BLOCK)}, Encrypted=True)
    volume_id = account.volume(SnapshotId=snapshot_id)
    with disk_of(account, volume_id).open("rb") as disk:
        disk.seek(125 * BLOCK)
        assert disk.read(BLOCK) == bytes(BLOCK)  # written as zeros
        disk.seek((125 + 251) * BLOCK)
        assert disk.read(BLOCK) != bytes(BLOCK)  # never written
