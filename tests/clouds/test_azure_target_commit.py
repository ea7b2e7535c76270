"""Opening, committing and aborting an upload at Azure, each step again after a crash."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from imageport.clouds.azure import access_grant, managed_disk_target
from imageport.clouds.azure.access_grant import AccessGrant, end_access
from imageport.clouds.azure.disks import delete_disk, describe_disk
from imageport.clouds.azure.footer import vhd_footer
from imageport.clouds.azure.managed_disk_reader import WORKERS
from imageport.clouds.azure.managed_disk_target import ManagedDiskTarget
from imageport.clouds.azure.names import parse_id, snapshot_of_upload
from imageport.clouds.azure.snapshots import describe_snapshot
from imageport.clouds.intents import Intent
from imageport.errors import (
    CloudError,
    CloudRefused,
    CloudUnavailable,
    InputError,
    PermissionMissing,
    ResourceGone,
    VerificationFailed,
)
from imageport.model import GIB, MIB, ZERO_BLOCK
from imageport.sandbox.azure.account import (
    DISK_ACCESS_ID,
    DISK_ENCRYPTION_SET_ID,
    RESOURCE_GROUP,
)
from imageport.transfer.block_target import TransferPlan
from tests.clouds.azure_laboratory import AzureLab
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

DIGESTS = {index: digest(data) for index, data in BLOCKS.items()}


def begun(lab: AzureLab, **changes: Any) -> tuple[ManagedDiskTarget, str]:
    target = ManagedDiskTarget(lab.account("run-1", **changes), "gold")
    return target, target.begin(plan_of(BLOCKS), TOKEN)


def resumed(lab: AzureLab, handle: str, run: str = "run-1") -> ManagedDiskTarget:
    target = ManagedDiskTarget(lab.account(run), "gold")
    target.resume(plan_of(BLOCKS), handle)
    return target


def shown(lab: AzureLab, disk_id: str) -> dict[str, Any]:
    found = lab.clients.compute.disks.get(RESOURCE_GROUP, parse_id(disk_id).name)
    return dict(found.as_dict())


def open_entries(lab: AzureLab) -> list[tuple[str, str]]:
    return [(entry.kind, entry.resource_id) for entry in lab.state.ledger.open_entries()]


def die(*_arguments: Any, **_named: Any) -> None:
    raise Killed("here")


# --- opening ----------------------------------------------------------------------------------


def test_the_disk_is_as_azure_wants_an_upload_of_windows(azure_lab: AzureLab):
    target, handle = begun(azure_lab)
    disk = shown(azure_lab, handle)
    properties = disk["properties"]
    assert properties["diskState"] == "ActiveUpload"
    assert properties["creationData"]["uploadSizeBytes"] == GIB + 512
    assert (properties["osType"], properties["hyperVGeneration"]) == ("Windows", "V2")
    assert "securityProfile" not in properties
    assert disk["sku"]["name"] == "Standard_LRS"
    assert disk["tags"]["imageport:site"] == SITE
    assert disk["tags"]["imageport:role"] == "upload"
    assert disk["tags"]["Name"] == "gold"
    target.close()


def test_the_footer_is_there_before_any_block(azure_lab: AzureLab):
    target, handle = begun(azure_lab)
    pages: Any = target._pages
    assert pages._pages.get(GIB, 512) == vhd_footer(GIB, handle.lower())
    assert pages.written_blocks() == {}
    target.close()


def test_an_odd_size_is_rounded_to_whole_mib(azure_lab: AzureLab):
    target = ManagedDiskTarget(azure_lab.account("run-1"), "gold")
    handle = target.begin(TransferPlan(33 * MIB + 512, (), (), 0), TOKEN)
    facts = describe_disk(azure_lab.account("run-1"), handle)
    assert facts is not None
    assert facts.size_bytes == 34 * MIB
    with pytest.raises(ResourceGone, match="needed 1073741824 bytes"):
        resumed(azure_lab, handle)
    target.close()


def test_an_image_that_never_boots_there_is_refused_before_anything_is_made(azure_lab: AzureLab):
    target = ManagedDiskTarget(azure_lab.account("run-1"), "gold")
    with pytest.raises(InputError, match="4095 GiB"):
        target.begin(TransferPlan(4096 * GIB, (), (), 0), TOKEN)
    assert azure_lab.disks() == []


def test_private_access_and_the_customers_key_hold_for_disk_and_snapshot(azure_lab: AzureLab):
    target, handle = begun(
        azure_lab,
        network_access_policy="AllowPrivate",
        disk_access_id=DISK_ACCESS_ID,
        disk_encryption_set_id=DISK_ENCRYPTION_SET_ID,
    )
    disk = shown(azure_lab, handle)["properties"]
    put_all(target, BLOCKS)
    reference = target.commit(DIGESTS)
    target.close()
    name = parse_id(reference).name
    snapshot = azure_lab.clients.compute.snapshots.get(RESOURCE_GROUP, name).as_dict()["properties"]
    for made in (disk, snapshot):
        assert made["networkAccessPolicy"] == "AllowPrivate"
        assert made["publicNetworkAccess"] == "Disabled"
        assert made["diskAccessId"] == DISK_ACCESS_ID
        assert made["encryption"]["diskEncryptionSetId"] == DISK_ENCRYPTION_SET_ID


def test_a_run_killed_between_create_and_record_is_found_by_name(azure_lab: AzureLab):
    ledger = LedgerOfAKilledRun(azure_lab.state.folder)
    dying = ManagedDiskTarget(azure_lab.account("run-1", ledger=ledger), "gold")
    with pytest.raises(Killed):
        dying.begin(plan_of(BLOCKS), TOKEN)
    (made,) = azure_lab.disks()
    target, handle = begun(azure_lab)
    assert handle == made
    assert azure_lab.disks() == [made]
    target.abort()
    assert open_entries(azure_lab) == []


def test_a_disk_deleted_behind_our_back_is_made_anew_under_another_name(azure_lab: AzureLab):
    _, handle = begun(azure_lab)
    delete_disk(azure_lab.account("other", ledger=None), handle)
    with pytest.raises(ResourceGone):
        resumed(azure_lab, handle)
    azure_lab.state.ledger.intend("disk", "unrelated", "run-1", SITE, 60.0)
    target, second = begun(azure_lab)
    assert second != handle
    target.abort()


def test_a_disk_of_another_size_under_our_name_is_replaced(azure_lab: AzureLab):
    first = ManagedDiskTarget(azure_lab.account("run-1"), "gold")
    handle = first.begin(TransferPlan(32 * MIB, (), (), 0), TOKEN)
    target, second = begun(azure_lab)
    assert second != handle
    assert azure_lab.disks() == [second]
    target.abort()


def test_a_denial_names_the_action(azure_lab: AzureLab):
    for action in (
        "Microsoft.Compute/disks/write",
        "Microsoft.Compute/disks/beginGetAccess/action",
    ):
        azure_lab.service.turn(denied=[action])
        with pytest.raises(PermissionMissing) as caught:
            begun(azure_lab)
        assert caught.value.fields["action"] == action


# --- committing -------------------------------------------------------------------------------


def test_a_commit_leaves_one_incremental_snapshot_no_disk_and_no_access(azure_lab: AzureLab):
    target, handle = begun(azure_lab)
    put_all(target, BLOCKS)
    reference = target.commit(DIGESTS)
    assert reference == snapshot_of_upload(handle)
    assert (azure_lab.disks(), azure_lab.snapshots()) == ([], [reference])
    assert azure_lab.open_access() == []
    assert open_entries(azure_lab) == [("snapshot", reference)]
    found = azure_lab.clients.compute.snapshots.get(RESOURCE_GROUP, parse_id(reference).name)
    snapshot = found.as_dict()
    assert snapshot["properties"]["incremental"] is True
    assert snapshot["properties"]["hyperVGeneration"] == "V2"
    capabilities = snapshot["properties"]["supportedCapabilities"]
    assert capabilities["diskControllerTypes"] == "SCSI, NVMe"
    assert snapshot["tags"]["imageport:role"] == "uploaded"
    assert snapshot["tags"]["Name"] == "gold"
    assert snapshot["tags"]["Description"] == "imageport gold"
    target.close()


def test_a_block_that_was_counted_and_is_not_there_is_noticed_and_can_still_be_put(
    azure_lab: AzureLab,
):
    target, _ = begun(azure_lab)
    put_all(target, {3: BLOCKS[3]})
    with pytest.raises(VerificationFailed, match=r"1 blocks .* among them \[2047\]"):
        target.commit({3: DIGESTS[3], 2047: DIGESTS[2047]})
    assert target.lost([3, 2047]) == {2047}
    put_all(target, {2047: BLOCKS[2047]})
    target.commit({3: DIGESTS[3], 2047: DIGESTS[2047]})


def test_a_block_that_nobody_put_is_noticed(azure_lab: AzureLab):
    target, _ = begun(azure_lab)
    put_all(target, {3: BLOCKS[3], 4: block(4)})
    with pytest.raises(CloudRefused, match=r"1 blocks hold what nobody put, among them \[4\]"):
        target.commit({3: DIGESTS[3]})
    target.abort()


@pytest.mark.parametrize("step", ["create_snapshot", "wait_completed", "delete_disk"])
def test_a_commit_killed_at_any_step_is_finished_by_the_next(
    azure_lab: AzureLab, monkeypatch: pytest.MonkeyPatch, step: str
):
    target, handle = begun(azure_lab)
    put_all(target, BLOCKS)
    with monkeypatch.context() as patch:
        patch.setattr(managed_disk_target, step, die)
        with pytest.raises(Killed):
            target.commit(DIGESTS)
    again = resumed(azure_lab, handle, "run-2")
    assert again.lost(DIGESTS) == set()
    reference = again.commit(DIGESTS)
    assert dict(again.read_back([3])) == {3: BLOCKS[3]}
    again.close()
    assert (azure_lab.disks(), azure_lab.snapshots()) == ([], [reference])
    assert open_entries(azure_lab) == [("snapshot", reference)]


def test_what_a_killed_commit_closed_is_still_checked(
    azure_lab: AzureLab, monkeypatch: pytest.MonkeyPatch
):
    target, handle = begun(azure_lab)
    put_all(target, {3: BLOCKS[3]})
    with monkeypatch.context() as patch:
        patch.setattr(managed_disk_target, "create_snapshot", die)
        with pytest.raises(Killed):
            target.commit({3: DIGESTS[3]})
    again = resumed(azure_lab, handle)
    with pytest.raises(VerificationFailed, match="2047"):
        again.commit({3: DIGESTS[3], 2047: DIGESTS[2047]})
    assert azure_lab.open_access() == []
    again.abort()
    assert (azure_lab.disks(), azure_lab.snapshots(), open_entries(azure_lab)) == ([], [], [])


def test_an_upload_that_a_sweep_closed_cannot_be_resumed_and_starts_over(azure_lab: AzureLab):
    target, handle = begun(azure_lab)
    put_all(target, {3: BLOCKS[3]})
    end_access(azure_lab.account("janitor"), handle)
    with pytest.raises(ResourceGone, match="found it closed"):
        resumed(azure_lab, handle)
    again, second = begun(azure_lab)
    assert second != handle
    assert azure_lab.disks() == [second]
    again.abort()


def test_a_put_into_an_upload_that_a_sweep_closed_does_not_go_on_for_ever(azure_lab: AzureLab):
    target, handle = begun(azure_lab)
    end_access(azure_lab.account("janitor"), handle)
    grant: Any = target._pages._grant  # type: ignore[union-attr]
    grant._granted -= 10.0  # as if the URL had been good for a while
    with pytest.raises(ResourceGone, match="no longer open for upload"):
        put_all(target, {3: BLOCKS[3]})


def test_a_finished_upload_that_nobody_recorded_is_left_to_the_sweep(azure_lab: AzureLab):
    target, handle = begun(azure_lab)
    put_all(target, BLOCKS)
    reference = target.commit(DIGESTS)
    again, second = begun(azure_lab)
    assert second != handle
    put_all(again, BLOCKS)
    other = again.commit(DIGESTS)
    assert sorted(azure_lab.snapshots()) == sorted([reference, other])


def test_a_revoke_that_is_refused_for_a_while_is_asked_again(azure_lab: AzureLab):
    target, _ = begun(azure_lab)
    put_all(target, BLOCKS)
    azure_lab.service.turn(stuck_upload=2)
    reference = target.commit(DIGESTS)
    assert azure_lab.snapshots() == [reference]


def test_a_disk_stuck_in_active_upload_ends_in_one_clear_error_and_stays_in_the_ledger(
    azure_lab: AzureLab, monkeypatch: pytest.MonkeyPatch
):
    target, handle = begun(azure_lab)
    put_all(target, BLOCKS)
    azure_lab.service.turn(stuck_upload=1000)
    monkeypatch.setattr(access_grant, "REVOKE_SECONDS", 1.0)
    with pytest.raises(CloudUnavailable, match=r"Cannot end the access to .* still refused after"):
        target.commit(DIGESTS)
    with pytest.raises(CloudUnavailable, match="Cannot end the access"):
        target.abort()
    assert ("disk", handle) in open_entries(azure_lab)
    azure_lab.service.turn(stuck_upload=0)
    target.abort()
    assert (azure_lab.disks(), open_entries(azure_lab)) == ([], [])


def test_a_failed_operation_of_azure_ends_no_upload(
    azure_lab: AzureLab, monkeypatch: pytest.MonkeyPatch
):
    azure_lab.service.turn(failed_operations=1)
    with pytest.raises(CloudUnavailable, match="InternalExecutionError"):
        begun(azure_lab)
    target, _ = begun(azure_lab)
    put_all(target, BLOCKS)
    create = managed_disk_target.create_snapshot

    def create_and_fail(*arguments: Any) -> None:
        azure_lab.service.turn(failed_operations=1)
        create(*arguments)

    azure_lab.service.turn(failed_operations=1)  # the revoke is asked again
    with monkeypatch.context() as patch:
        patch.setattr(managed_disk_target, "create_snapshot", create_and_fail)
        with pytest.raises(CloudUnavailable, match="Cannot write snapshot"):
            target.commit(DIGESTS)
    reference = target.commit(DIGESTS)
    assert azure_lab.snapshots() == [reference]
    assert dict(target.read_back([3])) == {3: BLOCKS[3]}
    target.close()
    assert open_entries(azure_lab) == [("snapshot", reference)]


def test_lost_answers_make_nothing_twice(azure_lab: AzureLab):
    azure_lab.service.turn(lost_answers=2)  # of the disk and of the access
    target, handle = begun(azure_lab)
    put_all(target, BLOCKS)
    azure_lab.service.turn(lost_answers=3)  # of the revoke, the snapshot and the deletion
    reference = target.commit(DIGESTS)
    assert reference == snapshot_of_upload(handle)
    assert (azure_lab.disks(), azure_lab.snapshots()) == ([], [reference])
    assert open_entries(azure_lab) == [("snapshot", reference)]


def test_reading_back_in_many_batches_needs_one_access_and_few_threads(
    azure_lab: AzureLab, monkeypatch: pytest.MonkeyPatch
):
    target, _ = begun(azure_lab)
    put_all(target, BLOCKS)
    target.commit(DIGESTS)
    ask, granted = AccessGrant._ask, []

    def counted(self: AccessGrant, intent: Intent) -> str:
        granted.append(self.mode)
        return ask(self, intent)

    monkeypatch.setattr(AccessGrant, "_ask", counted)
    for index in (*BLOCKS, *BLOCKS):
        assert dict(target.read_back([index])) == {index: BLOCKS[index]}
    assert granted == ["Read"]
    names = [thread.name for thread in threading.enumerate()]
    assert len([name for name in names if name.startswith("azure-read")]) <= WORKERS
    target.close()
    assert azure_lab.open_access() == []


# --- aborting ---------------------------------------------------------------------------------


def test_an_abort_leaves_no_disk_no_access_and_no_ledger_entry(azure_lab: AzureLab):
    target, _ = begun(azure_lab)
    put_all(target, {0: block(0)})
    target.abort()
    target.abort()
    target.close()
    assert (azure_lab.disks(), open_entries(azure_lab)) == ([], [])


def test_an_abort_of_who_does_not_know_of_the_commit_keeps_the_snapshot(azure_lab: AzureLab):
    target, handle = begun(azure_lab)
    put_all(target, BLOCKS)
    reference = resumed(azure_lab, handle).commit(DIGESTS)
    target.abort()
    facts = describe_snapshot(azure_lab.account("run-1"), reference)
    assert facts is not None
    assert facts.complete


def test_an_upload_of_nothing_but_a_broken_footer_can_still_be_removed(azure_lab: AzureLab):
    target, handle = begun(azure_lab)
    pages: Any = target._pages
    pages.put(GIB, bytes(512))
    with pytest.raises(CloudError, match="conectix"):
        target.commit({})
    delete_disk(azure_lab.account("janitor"), handle)
    assert azure_lab.disks() == []


def test_zero_blocks_are_cleared_alone_and_written_within_a_run(azure_lab: AzureLab):
    target, _ = begun(azure_lab)
    run = {8: block(8), 9: ZERO_BLOCK, 10: block(10)}
    digests = {index: digest(data) for index, data in run.items()}
    target.put_run(8, b"".join(run.values()), list(digests.values()))
    put_all(target, {3: block(3)})
    put_all(target, {3: ZERO_BLOCK})
    pages: Any = target._pages
    assert pages.written_blocks() == {8: True, 9: True, 10: True}
    target.commit(digests | {3: digest(ZERO_BLOCK)})
    assert dict(target.read_back([3, 9, 10])) == {3: ZERO_BLOCK, 9: ZERO_BLOCK, 10: block(10)}
    target.close()


@pytest.mark.parametrize(
    ("data", "digests", "found"),
    [
        (b"short", [digest(b"short")], "found 5 bytes"),
        (block(1), [digest(block(2))], "found other data than its SHA-256 says"),
        (block(1) * 9, [digest(block(1))] * 9, "at most 8"),
        (block(1) + block(2), [digest(block(1))], "needed 1 of"),
        (b"", [], "found 0 bytes"),
    ],
)
def test_what_is_no_run_of_whole_blocks_with_their_digests_is_refused(
    azure_lab: AzureLab, data: bytes, digests: list[bytes], found: str
):
    target, _ = begun(azure_lab)
    with pytest.raises(CloudRefused, match=found):
        target.put_run(0, data, digests)
