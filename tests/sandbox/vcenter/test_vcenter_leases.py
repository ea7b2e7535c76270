"""Export leases: what they send, what their manifest says of it, and how they end."""

from __future__ import annotations

import hashlib
import subprocess
import time
from pathlib import Path

import pytest
from pyVmomi import vim, vmodl

from tests.sandbox.vcenter.vcenter_lab import (
    GOLD,
    KEY,
    TWO_DISKS,
    VcenterLab,
    disk_of,
)


def same(stream: Path, flat: Path) -> str:
    done = subprocess.run(
        ["qemu-img", "compare", "-f", "vmdk", "-F", "raw", stream, flat],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip()


def test_the_stream_is_a_disk_that_qemu_reads(lab: VcenterLab, tmp_path: Path):
    lease = lab.ready_lease(lab.golden())
    stream = tmp_path / "stream.vmdk"
    stream.write_bytes(lab.get(lab.url_of(lease))[1])
    lease.HttpNfcLeaseAbort()
    flat = GOLD.flat_file(lab.service.datastore, GOLD.disks[0])
    assert same(stream, flat) == "Images are identical."
    assert stream.stat().st_size < 1_000_000
    described = flat.with_name("gold.vmdk")
    assert same(described, flat) == "Images are identical."


def test_a_disk_without_content_is_a_stream_too(lab: VcenterLab, tmp_path: Path):
    snapshot = lab.snapshot("empty", TWO_DISKS)
    lease = lab.ready_lease(snapshot)
    stream = tmp_path / "stream.vmdk"
    stream.write_bytes(lab.get(lab.url_of(lease))[1])
    lease.HttpNfcLeaseAbort()
    lab.remove(snapshot)
    flat = TWO_DISKS.flat_file(lab.service.datastore, TWO_DISKS.disks[0])
    assert same(stream, flat) == "Images are identical."


def test_a_lease_lists_every_disk_and_what_is_none(lab: VcenterLab):
    snapshot = lab.snapshot("listed", TWO_DISKS)
    lease = lab.ready_lease(snapshot)
    vm = lab.vm(TWO_DISKS)
    found = {(item.key, item.targetId, item.disk, item.fileSize) for item in lease.info.deviceUrl}
    assert found == {
        (f"/{vm._moId}/nvram", "nvram", False, 8684),
        (f"/{vm._moId}/VirtualNVMEController0:0", "disk-0.vmdk", True, None),
        (f"/{vm._moId}/ParaVirtualSCSIController0:1", "disk-1.vmdk", True, None),
    }
    assert all(item.url.startswith("https://*:") for item in lease.info.deviceUrl)
    assert vm.config.bootOptions.bootOrder[0].deviceKey == 2001
    assert disk_of(vm, 2001).deviceInfo.label == "Hard disk 2"
    lease.HttpNfcLeaseAbort()
    lab.remove(snapshot)


@pytest.mark.parametrize("kind", ["sha1", "sha256"])
def test_the_manifest_knows_what_was_sent(lab: VcenterLab, kind: str):
    lease = lab.ready_lease(lab.golden())
    url = next(item for item in lease.info.deviceUrl if item.disk)
    chosen = vim.KeyValue(key=url.key, value=kind)
    lease.HttpNfcLeaseSetManifestChecksumType([chosen])
    assert list(lease.HttpNfcLeaseGetManifest()) == []
    data = lab.get(lab.url_of(lease))[1]
    (entry,) = lease.HttpNfcLeaseGetManifest()
    lease.HttpNfcLeaseComplete()
    assert (entry.key, entry.size, entry.disk) == (url.key, len(data), True)
    assert (entry.checksumType, entry.checksum) == (kind, hashlib.new(kind, data).hexdigest())
    assert entry.sha1 == hashlib.sha1(data, usedforsecurity=False).hexdigest()
    assert (entry.capacity, entry.populatedSize) == (disk_of(lab.vm()).capacityInBytes, 524_800)


def test_the_manifest_does_not_hide_what_went_wrong(lab: VcenterLab):
    lease = lab.ready_lease(lab.golden())
    lab.service.turn(cuts=[5000], corrupt=[-1, 3000])
    assert len(lab.get(lab.url_of(lease))[1]) == 5000
    assert list(lease.HttpNfcLeaseGetManifest()) == []
    spoilt = lab.get(lab.url_of(lease))[1]
    (entry,) = lease.HttpNfcLeaseGetManifest()
    assert entry.size == len(spoilt)
    assert entry.sha1 != hashlib.sha1(spoilt, usedforsecurity=False).hexdigest()
    lab.service.turn(manifest="missing")
    assert list(lease.HttpNfcLeaseGetManifest()) == []
    lease.HttpNfcLeaseAbort()


def test_a_lease_without_progress_ends(lab: VcenterLab):
    lab.service.turn(lease_timeout_seconds=0.6)
    lease = lab.ready_lease(lab.golden())
    assert lease.info.leaseTimeout == 1
    path = lab.url_of(lease)
    for _ in range(5):
        time.sleep(0.2)
        lease.HttpNfcLeaseProgress(10)
    assert lease.state == "ready"
    time.sleep(0.9)
    assert lease.state == "error"
    assert isinstance(lease.error, vim.fault.Timedout)
    assert lab.get(path)[0] == 404
    assert lab.service.leases() == []
    for call in (lease.HttpNfcLeaseComplete, lease.HttpNfcLeaseGetManifest):
        with pytest.raises(vim.fault.InvalidState):
            call()


def test_a_download_ends_with_its_lease(lab: VcenterLab):
    lab.service.turn(bytes_per_second=200_000)
    lease = lab.ready_lease(lab.golden())
    path = lab.url_of(lease)
    lab.service.turn(lease_timeout_seconds=300)
    whole = len(lab.get(path)[1])
    lease.HttpNfcLeaseAbort()
    lab.service.turn(lease_timeout_seconds=0.4)
    lease = lab.ready_lease(lab.golden())
    assert len(lab.get(lab.url_of(lease))[1]) < whole


def test_an_ended_lease_is_gone(lab: VcenterLab):
    for end in ("HttpNfcLeaseComplete", "HttpNfcLeaseAbort"):
        lease = lab.ready_lease(lab.golden())
        path = lab.url_of(lease)
        assert [item["state"] for item in lab.service.leases()] == ["ready"]
        getattr(lease, end)()
        assert lab.service.leases() == []
        assert lab.get(path)[0] == 404
        with pytest.raises(vmodl.fault.ManagedObjectNotFound):
            lease.HttpNfcLeaseProgress(1)


def test_a_lease_ends_with_its_snapshot_and_with_its_session(own_lab: VcenterLab):
    snapshot = own_lab.snapshot("imageport-1")
    lease = own_lab.ready_lease(snapshot)
    own_lab.service.remove_snapshot("gold", "imageport-1")
    assert lease.state == "error"
    assert own_lab.get(own_lab.url_of(lease))[0] == 404
    own_lab.ready_lease(own_lab.golden())
    own_lab.log_out()
    assert own_lab.service.leases() == []


def test_the_disk_of_a_snapshot_stays_as_it_was(lab: VcenterLab, tmp_path: Path):
    frozen = tmp_path / "frozen.raw"
    flat = GOLD.flat_file(lab.service.datastore, GOLD.disks[0])
    frozen.write_bytes(flat.read_bytes())
    lab.service.guest_writes("gold", KEY, 65_000, b"written later" * 1000)
    later = lab.snapshot("later")
    for snapshot, equal in ((lab.golden(), True), (later, False)):
        lease = lab.ready_lease(snapshot)
        stream = tmp_path / "stream.vmdk"
        stream.write_bytes(lab.get(lab.url_of(lease))[1])
        lease.HttpNfcLeaseAbort()
        assert (same(stream, frozen) == "Images are identical.") is equal
    written = frozen.read_bytes()[:65_000] + b"written later" * 1000
    subprocess.run(["qemu-img", "convert", "-O", "raw", stream, tmp_path / "later"], check=True)
    assert (tmp_path / "later").read_bytes()[: len(written)] == written
    lab.remove(later)
    assert flat.read_bytes() == frozen.read_bytes()


def test_removing_the_last_snapshot_leaves_one_flat_file(own_lab: VcenterLab):
    own_lab.service.guest_writes("gold", KEY, 5, b"written later")
    assert disk_of(own_lab.vm()).backing.fileName == "[masters] gold/gold-000001.vmdk"
    own_lab.remove(own_lab.golden())
    assert disk_of(own_lab.vm()).backing.fileName == "[masters] gold/gold.vmdk"
    assert disk_of(own_lab.vm()).backing.parent is None
    flat = GOLD.flat_file(own_lab.service.datastore, GOLD.disks[0])
    assert flat.read_bytes()[5:18] == b"written later"
    assert not list(flat.parent.glob("*-delta.vmdk"))
