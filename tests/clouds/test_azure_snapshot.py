"""Managed snapshots and disks: read by pages, made from one another, deleted with their access."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from imageport.clouds.azure import access_grant
from imageport.clouds.azure.access_grant import AccessGrant, end_access
from imageport.clouds.azure.disks import (
    attached_to,
    delete_disk,
    describe_disk,
    disk_state,
    make_disk,
    wait_free,
)
from imageport.clouds.azure.granted_pages import HeldBlocks, WrittenRanges, blocks_of
from imageport.clouds.azure.managed_disk_reader import SnapshotDisk
from imageport.clouds.azure.managed_disk_target import ManagedDiskTarget
from imageport.clouds.azure.names import DISKS, SNAPSHOTS, parse_id, resource_id
from imageport.clouds.azure.snapshots import (
    SnapshotFacts,
    delete_snapshot,
    describe_snapshot,
    snapshot_disk,
    wait_completed,
)
from imageport.errors import CloudError, CloudRefused, CloudUnavailable, InputError, ResourceGone
from imageport.model import BLOCK_BYTES, GIB, MIB, Extent, ExtentState
from imageport.sandbox.azure.account import RESOURCE_GROUP, SUBSCRIPTION
from imageport.transfer.block_target import TransferPlan
from tests.clouds.azure_laboratory import AzureLab
from tests.clouds.cloud_contract import (
    GUID,
    Killed,
    LedgerOfAKilledRun,
    block,
    digest,
    uploaded,
)

SIZE = 3 * GIB
BLOCKS = {index: block(index) for index in (0, 3, 4, 2046, 2047, 2048, 5000, SIZE // 524288 - 1)}
"""Blocks 2046 to 2048 lie across the border of a GiB, where page ranges are asked for anew."""


@pytest.fixture
def snapshot(azure_lab: AzureLab) -> str:
    target = ManagedDiskTarget(azure_lab.account("run-1"), "gold")
    target.begin(TransferPlan(SIZE, tuple(BLOCKS), (), 0), "token")
    for index, data in BLOCKS.items():
        target.put(index, data, digest(data))
    reference = target.commit({index: digest(data) for index, data in BLOCKS.items()})
    target.close()
    return reference


def opened(lab: AzureLab, reference: str) -> SnapshotDisk:
    return SnapshotDisk(lab.account("run-1"), reference)


# --- reading ----------------------------------------------------------------------------------


def test_a_snapshot_reads_as_it_was_written_with_holes_between(azure_lab: AzureLab, snapshot: str):
    with opened(azure_lab, snapshot) as disk:
        assert disk.size_bytes == SIZE
        found = list(disk.extents())
        assert sum(extent.length_bytes for extent in found) == SIZE
        data = [item for item in found if item.state is ExtentState.DATA]
        assert [(item.offset_bytes // BLOCK_BYTES, item.length_bytes) for item in data] == [
            (0, BLOCK_BYTES),
            (3, 2 * BLOCK_BYTES),
            (2046, 3 * BLOCK_BYTES),
            (5000, BLOCK_BYTES),
            (SIZE // BLOCK_BYTES - 1, BLOCK_BYTES),
        ]
        assert found[1] == Extent(BLOCK_BYTES, 2 * BLOCK_BYTES, ExtentState.HOLE)
        wanted = BLOCKS[2046] + BLOCKS[2047] + BLOCKS[2048]
        assert disk.read_at(2046 * BLOCK_BYTES, 3 * BLOCK_BYTES) == wanted
        assert disk.read_at(2046 * BLOCK_BYTES + 7, 11) == BLOCKS[2046][7:18]
        assert disk.read_at(3 * BLOCK_BYTES - 5, 10) == bytes(5) + BLOCKS[3][:5]
        assert disk.read_at(SIZE - 5, 5) == BLOCKS[SIZE // BLOCK_BYTES - 1][-5:]
        assert disk.read_at(10, 0) == b""


def test_pieces_come_in_order_and_are_no_larger_than_a_mib(azure_lab: AzureLab, snapshot: str):
    with opened(azure_lab, snapshot) as disk:
        pieces = list(disk.read_many([(0, 5 * MIB), (1020 * MIB, 8 * MIB)]))
    assert all(len(data) <= MIB for _, data in pieces)
    assert [offset for offset, _ in pieces] == [i * MIB for i in (*range(5), *range(1020, 1028))]
    joined = b"".join(data for _, data in pieces[:5])
    assert joined[3 * BLOCK_BYTES : 5 * BLOCK_BYTES] == BLOCKS[3] + BLOCKS[4]


def test_nothing_is_asked_for_where_nothing_is_written(azure_lab: AzureLab, snapshot: str):
    with opened(azure_lab, snapshot) as disk:
        disk.read_at(0, 1)
        pages: Any = disk._pages
        before = pages.grant.url()
        pages.client._client = None  # any request from here on would fail
        assert disk.read_at(100 * MIB, 4 * MIB) == bytes(4 * MIB)
        assert pages.grant.url() == before


def test_past_the_end_is_no_range(azure_lab: AzureLab, snapshot: str):
    with opened(azure_lab, snapshot) as disk, pytest.raises(InputError, match="lies outside"):
        disk.read_at(SIZE - 1, 2)


def test_a_range_given_up_early_leaves_nothing_running(azure_lab: AzureLab, snapshot: str):
    with opened(azure_lab, snapshot) as disk:
        first = next(disk.read_many([(0, 64 * MIB)]))
        assert first[1][:BLOCK_BYTES] == BLOCKS[0]


def test_many_threads_read_through_one_access(azure_lab: AzureLab, snapshot: str):
    with opened(azure_lab, snapshot) as disk, ThreadPoolExecutor(8) as pool:
        offsets = [index * BLOCK_BYTES for index in BLOCKS]
        found = list(pool.map(lambda offset: disk.read_at(offset, BLOCK_BYTES), offsets))
    assert found == list(BLOCKS.values())


def test_reading_survives_throttling_failures_and_refused_checksums(
    azure_lab: AzureLab, snapshot: str
):
    azure_lab.service.turn(fault_rate=0.2, seed=5, checksum_refused=True)
    with opened(azure_lab, snapshot) as disk:
        for index, data in BLOCKS.items():
            assert disk.read_at(index * BLOCK_BYTES, BLOCK_BYTES) == data
        azure_lab.service.turn(fault_rate=0.0)


def test_what_is_damaged_on_the_way_is_noticed(
    azure_lab: AzureLab, snapshot: str, monkeypatch: pytest.MonkeyPatch
):
    with opened(azure_lab, snapshot) as disk:
        pages: Any = disk._pages
        assert pages.get(0, BLOCK_BYTES) == BLOCKS[0]
        with monkeypatch.context() as patch:
            patch.setattr("imageport.clouds.azure.page_client._md5", lambda _data: "other")
            with pytest.raises(CloudUnavailable, match="found MD5 other, needed"):
                pages.get(0, BLOCK_BYTES)


def test_an_access_that_ends_while_reading_is_granted_again(
    azure_lab: AzureLab, snapshot: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(access_grant, "RENEW_PAUSE_SECONDS", 0.1)
    azure_lab.service.turn(sas_seconds=1.0)
    with opened(azure_lab, snapshot) as disk:
        assert disk.read_at(0, BLOCK_BYTES) == BLOCKS[0]
        time.sleep(1.1)
        assert disk.read_at(3 * BLOCK_BYTES, BLOCK_BYTES) == BLOCKS[3]


def test_a_reader_that_closes_ends_no_other_readers_work(
    azure_lab: AzureLab, snapshot: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(access_grant, "RENEW_PAUSE_SECONDS", 0.0)
    one, other = opened(azure_lab, snapshot), opened(azure_lab, snapshot)
    assert one.read_at(0, 16) == other.read_at(0, 16)
    one.close()
    assert other.read_at(3 * BLOCK_BYTES, BLOCK_BYTES) == BLOCKS[3]
    other.close()
    assert azure_lab.open_access() == []


def test_closing_revokes_the_access_and_may_be_called_twice(azure_lab: AzureLab, snapshot: str):
    disk = opened(azure_lab, snapshot)
    disk.read_at(0, 16)
    assert azure_lab.open_access() == [snapshot]
    disk.close()
    disk.close()
    assert azure_lab.open_access() == []
    kinds = [entry.kind for entry in azure_lab.state.ledger.open_entries()]
    assert kinds == ["snapshot"]


def test_an_access_whose_granting_was_never_answered_is_revoked_too(
    azure_lab: AzureLab, snapshot: str, monkeypatch: pytest.MonkeyPatch
):
    ask = AccessGrant._ask

    def unanswered(self: AccessGrant, intent: Any) -> str:
        ask(self, intent)
        raise CloudUnavailable("no answer")

    monkeypatch.setattr(AccessGrant, "_ask", unanswered)
    monkeypatch.setattr(access_grant, "retried", lambda call, **_limits: call())
    grant = AccessGrant(azure_lab.account("run-1"), snapshot, "Read", 3600.0)
    with pytest.raises(CloudUnavailable, match="no answer"):
        grant.url()
    assert azure_lab.open_access() == [snapshot]
    grant.revoke()
    assert azure_lab.open_access() == []


def test_closing_while_azure_is_away_raises_nothing_and_leaves_the_access_to_the_sweep(
    azure_lab: AzureLab, snapshot: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(access_grant, "LET_GO_SECONDS", 0.1)
    disk = opened(azure_lab, snapshot)
    disk.read_at(0, 16)
    azure_lab.service.turn(stuck_upload=0, failed_operations=50)
    disk.close()
    azure_lab.service.turn(failed_operations=0)
    kinds = [entry.kind for entry in azure_lab.state.ledger.open_entries()]
    assert sorted(kinds) == ["access", "snapshot"]
    end_access(azure_lab.account("janitor"), snapshot)


@pytest.mark.parametrize(
    ("provisioning", "percent", "readable"),
    [
        ("Succeeded", 100.0, True),
        ("Updating", 100.0, True),
        ("Succeeded", 99.0, False),
        ("Creating", 100.0, False),
        ("Deleting", 100.0, False),
        ("Failed", 100.0, False),
    ],
)
def test_a_snapshot_whose_tags_or_readers_change_is_still_there(
    provisioning: str, percent: float, *, readable: bool
):
    facts = SnapshotFacts("id", provisioning, percent, "Unattached", GIB, "")
    assert facts.readable is readable


def test_a_reader_that_read_nothing_asks_for_no_access(azure_lab: AzureLab, snapshot: str):
    azure_lab.service.turn(denied=["Microsoft.Compute/snapshots/beginGetAccess/action"])
    opened(azure_lab, snapshot).close()


def test_a_snapshot_that_is_deleted_meanwhile_ends_in_one_error(
    azure_lab: AzureLab, snapshot: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(access_grant, "RENEW_PAUSE_SECONDS", 0.0)
    disk = opened(azure_lab, snapshot)
    disk.read_at(0, 16)
    disk.check_unchanged()
    delete_snapshot(azure_lab.account("other"), snapshot)
    with pytest.raises(ResourceGone):
        disk.check_unchanged()
    with pytest.raises(CloudError):
        list(disk.read_many([(0, 10 * MIB)]))
    disk.close()


@pytest.mark.parametrize("reference", ["snap-0123456789abcdef0", "", SNAPSHOTS])
def test_what_is_no_snapshot_is_gone(azure_lab: AzureLab, reference: str):
    with pytest.raises(ResourceGone):
        opened(azure_lab, reference)


def test_content_and_location_name_the_snapshot_and_no_secret(azure_lab: AzureLab, snapshot: str):
    with opened(azure_lab, snapshot) as disk:
        disk.read_at(0, 16)
        assert disk.content_key() == disk.location == f"azure:{snapshot}"
        assert "sig=" not in f"{disk!r}{vars(disk)!r}"


# --- ranges -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranges", "blocks"),
    [
        ([], {}),
        ([(0, BLOCK_BYTES)], {0: True}),
        ([(0, 512)], {0: False}),
        ([(512, BLOCK_BYTES), (BLOCK_BYTES, 2 * BLOCK_BYTES)], {0: False, 1: True}),
        ([(0, 512), (512, BLOCK_BYTES)], {0: True}),
        ([(BLOCK_BYTES - 512, 3 * BLOCK_BYTES)], {0: False, 1: True, 2: True}),
    ],
)
def test_a_block_is_written_only_if_all_of_it_is(
    ranges: list[tuple[int, int]], blocks: dict[int, bool]
):
    assert dict(blocks_of(iter(ranges))) == blocks
    assert HeldBlocks(GIB, iter(ranges)) == blocks
    assert len(HeldBlocks(GIB, iter(ranges))) == len(blocks)


def test_ranges_that_meet_at_the_border_of_a_gib_are_one():
    written = WrittenRanges(2 * GIB, lambda start, end: [(start, start + 512), (end - 512, end)])
    assert list(written.all()) == [
        (0, 512), (GIB - 512, GIB + 512), (2 * GIB - 512, 2 * GIB),
    ]  # fmt: skip
    assert written.touches(0, 1)
    assert not written.touches(512, GIB - 512)
    assert written.touches(511, 600)
    assert written.touches(GIB - 600, GIB - 511)
    assert written.touches(600, 2 * GIB)


# --- disks and snapshots ----------------------------------------------------------------------


def test_a_working_disk_is_made_once_from_a_snapshot(azure_lab: AzureLab, snapshot: str):
    account = azure_lab.account("run-1", zone="1")
    disk = make_disk(account, snapshot, GUID)
    assert (disk.size_bytes, disk.disk_guid) == (SIZE, GUID)
    assert make_disk(azure_lab.account("run-1", zone="1"), snapshot, GUID) == disk
    found = azure_lab.clients.compute.disks.get(RESOURCE_GROUP, parse_id(disk.id).name).as_dict()
    assert found["sku"]["name"] == "StandardSSD_LRS"
    assert found["zones"] == ["1"]
    assert found["properties"]["hyperVGeneration"] == "V2"
    assert found["tags"]["imageport:role"] == "work"
    assert attached_to(account, disk.id) == ""
    wait_free(account, disk.id, 1.0)
    delete_disk(account, disk.id)
    delete_disk(account, disk.id)
    assert disk_state(account, disk.id) is None
    assert make_disk(azure_lab.account("run-1", zone="1"), snapshot, GUID).id != disk.id


def test_what_azure_failed_to_make_is_made_again(azure_lab: AzureLab, snapshot: str):
    account = azure_lab.account("run-1")
    azure_lab.service.turn(failed_operations=1)
    with pytest.raises(CloudUnavailable):
        make_disk(account, snapshot, GUID)
    disk = make_disk(account, snapshot, GUID)
    azure_lab.service.turn(failed_operations=1)
    with pytest.raises(CloudUnavailable):
        snapshot_disk(account, disk.id, "gold")
    reference = snapshot_disk(account, disk.id, "gold")
    assert azure_lab.disks() == [disk.id]
    assert sorted(azure_lab.snapshots()) == sorted([snapshot, reference])


def test_a_disk_made_by_a_run_that_died_before_it_recorded_is_found(
    azure_lab: AzureLab, snapshot: str
):
    ledger = LedgerOfAKilledRun(azure_lab.state.folder)
    with pytest.raises(Killed):
        make_disk(azure_lab.account("run-1", ledger=ledger), snapshot, GUID)
    disk = make_disk(azure_lab.account("run-1"), snapshot, GUID)
    assert azure_lab.disks() == [disk.id]


def test_a_snapshot_of_a_working_disk_is_complete_and_taken_once(
    azure_lab: AzureLab, snapshot: str
):
    account = azure_lab.account("run-1")
    disk = make_disk(account, snapshot, GUID)
    reference = snapshot_disk(account, disk.id, "gold")
    assert snapshot_disk(azure_lab.account("run-1"), disk.id, "gold") == reference
    facts = wait_completed(account, reference)
    assert facts.complete
    assert facts.size_bytes == SIZE
    with opened(azure_lab, reference) as read:
        assert read.read_at(3 * BLOCK_BYTES, BLOCK_BYTES) == BLOCKS[3]
    delete_snapshot(account, reference)
    second = snapshot_disk(account, disk.id, "gold")
    assert second != reference
    assert sorted(azure_lab.snapshots()) == sorted([snapshot, second])


def test_what_is_read_at_the_moment_is_deleted_with_its_access(azure_lab: AzureLab, snapshot: str):
    account = azure_lab.account("run-1")
    disk = make_disk(account, snapshot, GUID)
    for arm_id in (disk.id, snapshot):
        AccessGrant(account, arm_id, "Read", 3600.0).url()
    assert sorted(azure_lab.open_access()) == sorted([disk.id, snapshot])
    delete_disk(account, disk.id)
    delete_snapshot(account, snapshot)
    assert (azure_lab.disks(), azure_lab.snapshots()) == ([], [])
    assert azure_lab.state.ledger.open_entries() == []


def test_ending_an_access_that_nobody_has_is_no_error(azure_lab: AzureLab, snapshot: str):
    account = azure_lab.account("run-1")
    end_access(account, snapshot)
    end_access(account, resource_id(account.settings, DISKS, "imageport-gone"))
    facts = describe_snapshot(account, snapshot)
    assert facts is not None
    assert facts.complete
    assert describe_disk(account, resource_id(account.settings, DISKS, "imageport-gone")) is None


def test_a_long_run_keeps_what_it_made_from_the_sweep(azure_lab: AzureLab, snapshot: str):
    account = azure_lab.account("run-1")
    disk = make_disk(account, snapshot, GUID)
    name = parse_id(disk.id).name
    before = azure_lab.clients.compute.disks.get(RESOURCE_GROUP, name).tags
    account.expires_seconds = 48 * 3600.0
    account.renew()
    after = azure_lab.clients.compute.disks.get(RESOURCE_GROUP, name).tags
    assert before is not None
    assert after is not None
    assert after["imageport:expires"] > before["imageport:expires"]
    assert {**after, "imageport:expires": ""} == {**before, "imageport:expires": ""}


def test_a_snapshot_of_another_subscription_is_refused_and_not_forgotten(azure_lab: AzureLab):
    cloud = azure_lab.cloud("run-1")
    reference = uploaded(cloud, {0: block(0)})
    elsewhere = reference.replace(SUBSCRIPTION, "77777777" + SUBSCRIPTION[8:])
    assert elsewhere != reference
    with pytest.raises(CloudRefused, match="lies in subscription 77777777-"):
        cloud.exists(elsewhere)
    assert cloud.exists(reference)
