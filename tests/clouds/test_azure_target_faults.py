"""The data path to a managed disk on a bad day: throttled, failing, expired, without checksums."""

from __future__ import annotations

import logging
import socket
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from imageport.clouds.azure import access_grant
from imageport.clouds.azure.access_grant import AccessGrant
from imageport.clouds.azure.managed_disk_target import ManagedDiskTarget, traits_of
from imageport.clouds.azure.page_client import PageClient
from imageport.clouds.azure.snapshots import delete_snapshot
from imageport.clouds.waiting import retried
from imageport.errors import (
    CloudError,
    CloudRefused,
    CloudThrottled,
    CloudUnavailable,
    VerificationFailed,
)
from imageport.formats.gpt import Partition
from imageport.model import BLOCK_BYTES, GIB, MIB
from imageport.progress import Event, EventSink, silent
from imageport.transfer.pipeline import TransferRequest, TransferResult, transfer
from imageport.transfer.session import header_for
from imageport.transfer.verify import VerifyLevel
from tests.clouds.azure_laboratory import AzureLab
from tests.clouds.cloud_contract import BLOCKS, TOKEN, block, digest, plan_of, put_all
from tests.transfer.synthetic_disk import DATA, HOLE, ZERO, SyntheticDisk

DIGESTS = {index: digest(data) for index, data in BLOCKS.items()}


def begun(lab: AzureLab, **changes: Any) -> ManagedDiskTarget:
    target = ManagedDiskTarget(lab.account("run-1", **changes), "gold")
    target.begin(plan_of(BLOCKS), TOKEN)
    return target


def put_with_patience(target: ManagedDiskTarget, index: int, data: bytes) -> int:
    """Put as the pipeline does: again while the error says so. Returns the attempts."""
    attempts = 0

    def once() -> None:
        nonlocal attempts
        attempts += 1
        target.put(index, data, digest(data))

    retried(once, attempts=40, budget_seconds=60)
    return attempts


def moved(
    lab: AzureLab,
    disk: SyntheticDisk,
    parent: TransferResult | None = None,
    *,
    verify: VerifyLevel = VerifyLevel.FULL,
    events: EventSink = silent,
) -> TransferResult:
    reference = parent.reference if parent else ""
    target = ManagedDiskTarget(lab.account("run-1"), "gold", parent=reference)
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


def test_a_disk_that_is_asked_for_too_much_says_slow_down(azure_lab: AzureLab):
    target = begun(azure_lab)
    azure_lab.service.turn(mib_per_second=2.0)
    with pytest.raises(CloudThrottled) as caught:
        put_all(target, {index: block(index) for index in range(40)})
    assert caught.value.fields["azure_code"] == "ServerBusy"
    assert put_with_patience(target, 50, block(50)) >= 1


def test_an_operation_that_timed_out_counts_as_too_much_too(azure_lab: AzureLab):
    target = begun(azure_lab)
    azure_lab.service.turn(operation_timed_out_rate=1.0)
    with pytest.raises(CloudThrottled) as caught:
        target.put(0, block(0), digest(block(0)))
    assert caught.value.fields["azure_code"] == "OperationTimedOut"


def test_one_request_in_five_may_fail_and_the_upload_is_exact(azure_lab: AzureLab):
    target = begun(azure_lab)
    azure_lab.service.turn(fault_rate=0.2, seed=7)
    attempts = sum(put_with_patience(target, index, block(index)) for index in range(40))
    assert attempts > 40
    digests = {index: digest(block(index)) for index in range(40)}
    target.commit(digests)
    found = dict(target.read_back(range(40)))
    target.close()
    assert {index: digest(data) for index, data in found.items()} == digests


def test_a_service_that_is_away_is_unavailable_and_not_refused(azure_lab: AzureLab):
    target = begun(azure_lab)
    pages: Any = target._pages
    url = pages._grant._url
    pages._grant._url = url.replace(azure_lab.service.endpoint, "http://127.0.0.1:9")
    with pytest.raises(CloudUnavailable) as caught:
        target.put(0, block(0), digest(block(0)))
    assert "sig=" not in str(caught.value)
    pages._grant._url = url
    put_with_patience(target, 0, block(0))


@pytest.mark.slow
def test_a_link_that_takes_seconds_for_one_put_is_slow_and_not_broken(azure_lab: AzureLab):
    """urllib3 lets the sending of a body take no longer than connecting may."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)

        def answer() -> None:
            connection, _address = server.accept()
            with connection, connection.makefile("rb") as body:
                time.sleep(7.0)  # what the kernel buffers is far less than 4 MiB
                lines = iter(body.readline, b"\r\n")
                length = next(
                    int(x.split(b":")[1]) for x in lines if b"content-length" in x.lower()
                )
                for _line in lines:
                    pass
                body.read(length)
                connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/md/x/abcd?sig=x"
        try:
            PageClient(azure_lab.clients, "slow").put(url, 0, bytes(4 * MIB))
        finally:
            thread.join()


# --- checksums --------------------------------------------------------------------------------


def test_what_is_damaged_on_the_way_is_sent_again(
    azure_lab: AzureLab, monkeypatch: pytest.MonkeyPatch
):
    target = begun(azure_lab)
    with monkeypatch.context() as patch:
        patch.setattr("imageport.clouds.azure.page_client._md5", lambda _data: "A" * 22 + "==")
        with pytest.raises(CloudUnavailable) as caught:
            target.put(0, block(0), digest(block(0)))
    assert caught.value.fields["azure_code"] == "Md5Mismatch"
    assert target.checksummed


def test_a_service_that_takes_no_checksums_is_noticed_once_and_used_all_the_same(
    azure_lab: AzureLab,
):
    azure_lab.service.turn(checksum_refused=True)
    target = begun(azure_lab)
    assert not target.checksummed
    put_all(target, BLOCKS)
    target.commit(DIGESTS)
    assert dict(target.read_back([3])) == {3: BLOCKS[3]}
    target.close()


# --- access that ends -------------------------------------------------------------------------


def test_a_transfer_without_checksums_says_so(azure_lab: AzureLab):
    azure_lab.service.turn(checksum_refused=True)
    events: list[Event] = []
    disk = SyntheticDisk([(2 * MIB, DATA, 1), (62 * MIB, HOLE, 0)])
    moved(azure_lab, disk, events=events.append)
    assert any("Azure took no checksums" in event.note for event in events)
    azure_lab.service.turn(checksum_refused=False)
    events.clear()
    moved(azure_lab, SyntheticDisk([(64 * MIB, DATA, 2)], version="2"), events=events.append)
    assert not any("no checksums" in event.note for event in events)


def test_an_access_that_ends_on_the_way_is_granted_again(
    azure_lab: AzureLab, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(access_grant, "RENEW_PAUSE_SECONDS", 0.1)
    azure_lab.service.turn(sas_seconds=1.0)
    target = begun(azure_lab)
    target.put(0, block(0), digest(block(0)))
    time.sleep(1.1)
    with pytest.raises(CloudUnavailable, match="the access had ended"):
        target.put(3, block(3), digest(block(3)))
    assert put_with_patience(target, 3, block(3)) == 1
    azure_lab.service.turn(sas_seconds=0.0)
    time.sleep(1.1)
    digests = {0: digest(block(0)), 3: digest(block(3))}
    reference = retried(lambda: target.commit(digests))
    assert azure_lab.snapshots() == [reference]


def test_storage_whose_clock_is_behind_is_waited_for(azure_lab: AzureLab):
    azure_lab.service.turn(clock_skew_seconds=1.5)
    target = ManagedDiskTarget(azure_lab.account("run-1"), "gold")
    retried(lambda: target.begin(plan_of(BLOCKS), TOKEN), attempts=20)
    assert put_with_patience(target, 0, block(0)) >= 1


def test_an_access_that_never_opens_anything_is_refused_with_advice(
    azure_lab: AzureLab, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(access_grant, "RENEW_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(access_grant, "MOST_FRUITLESS", 3)
    target = begun(azure_lab)
    azure_lab.service.turn(clock_skew_seconds=7200.0)
    with pytest.raises(CloudRefused, match="granted URLs in a row were refused") as caught:
        put_with_patience(target, 0, block(0))
    assert "private endpoints" in caught.value.hint


def test_an_access_that_ends_soon_is_renewed_before_it_is_refused(azure_lab: AzureLab):
    target = begun(azure_lab)
    pages: Any = target._pages
    grant: AccessGrant = pages._grant
    granted = grant._granted
    grant._renew_after = time.monotonic() - 1.0  # as if four fifths of its time had passed
    target.put(0, block(0), digest(block(0)))
    assert grant._granted > granted
    # Azure gave the same URL: it is not asked for again at every put.
    granted = grant._granted
    target.put(3, block(3), digest(block(3)))
    assert grant._granted == granted


def test_a_url_that_cannot_be_renewed_yet_is_used_as_long_as_it_opens(azure_lab: AzureLab):
    target = begun(azure_lab)
    pages: Any = target._pages
    pages._grant._renew_after = 0.0
    azure_lab.service.turn(failed_operations=1)
    target.put(0, block(0), digest(block(0)))
    assert pages._grant._renew_after > time.monotonic()


def test_many_threads_share_one_grant(azure_lab: AzureLab):
    target = begun(azure_lab)
    put_all(target, BLOCKS)
    reference = target.commit(DIGESTS)
    grant = AccessGrant(azure_lab.account("run-1"), reference, "Read", 3600.0)
    barrier = threading.Barrier(8)

    def ask(_number: int) -> str:
        barrier.wait(10)
        return grant.url()

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1
    entries = [item for item in azure_lab.state.ledger.open_entries() if item.kind == "access"]
    assert [entry.resource_id for entry in entries] == [f"access:{reference}"]
    grant.revoke()
    grant.revoke()
    assert azure_lab.open_access() == []
    assert [e for e in azure_lab.state.ledger.open_entries() if e.kind == "access"] == []


def test_a_url_for_writing_that_cannot_read_is_made_up_for_by_reading_access(
    azure_lab: AzureLab, monkeypatch: pytest.MonkeyPatch
):
    """The emulator lets a URL for writing read; whether Azure always does is not documented."""
    ask = PageClient._ask

    def as_azure_refuses(
        self: PageClient, method: str, url: str, operation: str, *rest: Any
    ) -> Any:
        if method == "GET" and "/md-impexp-" in url:
            # What no URL allows, so that the answer is the service's own.
            method, url = "DELETE", url.split("&comp=", maxsplit=1)[0]
        return ask(self, method, url, operation, *rest)

    monkeypatch.setattr(PageClient, "_ask", as_azure_refuses)
    target = begun(azure_lab)
    put_all(target, {3: BLOCKS[3]})
    assert target.lost([3]) == set()
    with pytest.raises(VerificationFailed, match="2047"):
        target.commit({3: DIGESTS[3], 2047: DIGESTS[2047]})
    reference = target.commit({3: DIGESTS[3]})
    assert azure_lab.snapshots() == [reference]
    assert azure_lab.open_access() == []


# --- whole transfers --------------------------------------------------------------------------


def test_the_pipeline_moves_an_image_and_its_delta_through_a_bad_day(azure_lab: AzureLab):
    first = SyntheticDisk([(16 * MIB, DATA, 1), (4 * MIB, ZERO, 0), (44 * MIB, HOLE, 0)])
    # One MiB changes, one becomes zeros, one becomes a hole.
    second = SyntheticDisk(
        [(MIB, DATA, 2), (MIB, ZERO, 0), (MIB, HOLE, 0), (13 * MIB, DATA, 1), (4 * MIB, ZERO, 0),
         (44 * MIB, HOLE, 0)],
        version="2",
    )  # fmt: skip
    azure_lab.service.turn(
        fault_rate=0.05, operation_timed_out_rate=0.05, mib_per_second=30.0, seed=11
    )
    uploaded = moved(azure_lab, first)
    changed = moved(azure_lab, second, uploaded)
    azure_lab.service.turn(fault_rate=0.0, operation_timed_out_rate=0.0, mib_per_second=0.0)
    account = azure_lab.account("run-1")
    for result, disk in ((uploaded, first), (changed, second)):
        target = ManagedDiskTarget(account, "gold")
        target._disk_id = result.reference.replace("snapshots/imageport-uploaded", "disks/x")
        reader = dict(target.read_back(range(40)))
        target.close()
        for index, data in reader.items():
            assert data == disk.content(index * BLOCK_BYTES, BLOCK_BYTES), index
    assert sorted(azure_lab.snapshots()) == sorted([uploaded.reference, changed.reference])
    assert azure_lab.disks() == []
    assert azure_lab.open_access() == []


def test_a_change_of_one_percent_sends_little_more_than_that(azure_lab: AzureLab):
    def disk(seed: int, version: str) -> SyntheticDisk:
        layout = [(22 * MIB, DATA, 1), (BLOCK_BYTES, DATA, seed), (27 * MIB, DATA, 2)]
        return SyntheticDisk([*layout, (14 * MIB + BLOCK_BYTES, HOLE, 0)], version=version)

    uploaded = moved(azure_lab, disk(3, "1"), verify=VerifyLevel.AGGREGATE)
    assert uploaded.stats.bytes_sent == 49 * MIB + BLOCK_BYTES
    changed = moved(azure_lab, disk(4, "2"), uploaded, verify=VerifyLevel.AGGREGATE)
    assert 0 < changed.stats.bytes_sent <= 0.012 * uploaded.stats.bytes_sent
    assert azure_lab.open_access() == []


def test_a_parent_that_is_deleted_meanwhile_costs_time_and_nothing_else(azure_lab: AzureLab):
    disk = SyntheticDisk([(8 * MIB, DATA, 1), (56 * MIB, HOLE, 0)])
    uploaded = moved(azure_lab, disk)
    delete_snapshot(azure_lab.account("run-1"), uploaded.reference)
    again = SyntheticDisk([(8 * MIB, DATA, 1), (56 * MIB, HOLE, 0)], version="2")
    changed = moved(azure_lab, again, uploaded)
    assert changed.stats.bytes_sent == 8 * MIB
    assert azure_lab.snapshots() == [changed.reference]


def test_the_access_to_a_parent_that_ends_is_granted_again(
    azure_lab: AzureLab, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(access_grant, "RENEW_PAUSE_SECONDS", 0.1)
    first = begun(azure_lab)
    put_all(first, BLOCKS)
    reference = first.commit(DIGESTS)
    child = ManagedDiskTarget(azure_lab.account("run-1"), "gold", parent=reference)
    child.begin(plan_of({}), "child")
    azure_lab.service.turn(sas_seconds=1.0)
    child.take_from_parent(3, 1)
    time.sleep(1.1)
    with pytest.raises(CloudUnavailable, match="Cannot read the parent"):
        child.take_from_parent(3, 1)
    retried(lambda: child.take_from_parent(3, 1))
    assert child.lost([3]) == set()
    child.abort()
    assert azure_lab.open_access() == []


def test_a_parent_that_azure_never_reads_is_given_up_and_its_blocks_are_sent(
    azure_lab: AzureLab, monkeypatch: pytest.MonkeyPatch
):
    """Behind a private endpoint Azure's own copy may be refused, whoever asks for it."""
    disk = SyntheticDisk([(8 * MIB, DATA, 1), (56 * MIB, HOLE, 0)])
    uploaded = moved(azure_lab, disk)

    def refused(*_arguments: Any) -> None:
        facts = {"status": 403, "azure_code": "CannotVerifyCopySource"}
        raise CloudRefused("no", action="blob:PutPageFromURL", **facts)

    monkeypatch.setattr(PageClient, "copy", refused)
    monkeypatch.setattr(access_grant, "RENEW_PAUSE_SECONDS", 0.1)
    again = SyntheticDisk([(8 * MIB, DATA, 1), (56 * MIB, HOLE, 0)], version="2")
    changed = moved(azure_lab, again, uploaded)
    assert changed.stats.bytes_sent == 8 * MIB
    assert azure_lab.open_access() == []


@pytest.mark.parametrize("answer", ["", "<html>", "<a>", "<PageList><PageRange><Start>x</Start>"])
def test_a_list_of_pages_that_is_none_is_asked_for_again(
    azure_lab: AzureLab, monkeypatch: pytest.MonkeyPatch, answer: str
):
    target = begun(azure_lab)
    put_all(target, {3: BLOCKS[3]})
    ask, asked_for = PageClient._ask, 0

    def once_garbled(self: PageClient, *request: Any) -> Any:
        nonlocal asked_for
        asked_for += 1
        found = ask(self, *request)
        if asked_for == 1:
            monkeypatch.setattr(type(found), "content", answer.encode())
        else:
            monkeypatch.undo()
            found = ask(self, *request)
        return found

    monkeypatch.setattr(PageClient, "_ask", once_garbled)
    assert target.lost([3, 4]) == {4}
    assert asked_for == 2


def test_a_target_without_a_parent_takes_nothing_from_one(azure_lab: AzureLab):
    with pytest.raises(CloudRefused, match="opened without a parent"):
        begun(azure_lab).take_from_parent(0, 1)


def test_no_signature_is_in_any_log_ledger_entry_or_event_of_an_upload(
    azure_lab: AzureLab, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.DEBUG):
        target = begun(azure_lab)
        put_all(target, BLOCKS)
        azure_lab.service.turn(fault_rate=1.0)
        with pytest.raises(CloudError) as caught:
            target.put(1, block(1), digest(block(1)))
        azure_lab.service.turn(fault_rate=0.0)
        target.abort()
    assert len(caplog.records) > 20
    formatter = logging.Formatter()
    printed = "".join(formatter.format(record) for record in caplog.records)
    assert "/abcd?…" in printed
    error = caught.value
    told = "".join(traceback.format_exception(error))
    assert "sig=" not in f"{printed}{told}{error!r}{error.as_dict()}{target!r}"
    assert "sig=" not in str(azure_lab.state.ledger.open_entries())


@pytest.mark.parametrize(
    ("size", "mib"), [(0, 60), (127 * GIB, 60), (4095 * GIB, 60), (9000 * GIB, 60)]
)
def test_the_declared_speed_is_that_of_the_disks_class(size: int, mib: int):
    traits = traits_of("germanywestcentral", size_bytes=size)
    assert traits.max_bytes_per_second == mib * MIB
    assert traits.put_blocks * BLOCK_BYTES == 4 * MIB
    assert not traits.starts_from_parent
    assert traits.unwritten_reads_zero


def test_another_encryption_set_is_another_transfer():
    plain = traits_of("germanywestcentral")
    keyed = traits_of("germanywestcentral", encryption="/subscriptions/S/x/des-1")
    assert plain.attributes["encrypted"] != keyed.attributes["encrypted"]
    facts = ("upload", "content", 2**30, None)
    assert header_for(*facts, plain).token != header_for(*facts, keyed).token
