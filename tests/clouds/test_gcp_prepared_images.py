"""Generation P: index before image, once, and gone with all that is its own.

The machine that reads the disk has tests of its own; here a stand-in says what it would find.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from imageport.cloud import Cloud, CloudDisk
from imageport.clouds.gcp import prepared_images as module
from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.images import delete_image, describe_image
from imageport.clouds.gcp.objects import Objects
from imageport.clouds.gcp.segment_index import ImageIndex, read_index
from imageport.clouds.gcp.segments import prepared_folder, segment_key
from imageport.clouds.sweep import sweep
from imageport.clouds.tags import ROLE_PREPARED, TAG_ROLE
from imageport.errors import ResourceGone
from imageport.model import GIB
from imageport.sandbox.gcp.account import KMS_KEY
from imageport.transfer.manifest import Manifest
from tests.clouds.cloud_contract import (
    BLOCKS,
    SITE,
    Killed,
    LedgerOfAKilledRun,
    digest,
    disk_of,
    in_days,
    uploaded,
)
from tests.clouds.gcp_laboratory import GcpLab

FOLDER = f"imageport/{SITE}/"


class StandIn:
    """A machine that finds on the disk what its image holds, and nothing to write."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ImageIndex | None]] = []
        self.markers: list[str] = []

    def __call__(
        self, account: GcpAccount, disk: CloudDisk, image: str, source: ImageIndex | None
    ) -> Manifest:
        self.calls.append((image, source))
        self.markers = [item.key for item in Objects(account).list(f"{FOLDER}uploads/")]
        if source is not None:
            return source.manifest
        return Manifest(disk.size_bytes, absent_reads_zero=True)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    machine = StandIn()
    monkeypatch.setattr(module, "write_segments", machine)
    return machine


def name_of(reference: str) -> str:
    return reference.rsplit("/", maxsplit=1)[-1]


def first_bytes(cloud: Cloud, reference: str) -> bytes:
    with cloud.open_snapshot(reference) as disk:
        return disk.read_at(0, 8)


def test_a_prepared_image_is_read_by_its_index(gcp_lab: GcpLab, machine: StandIn):
    cloud = gcp_lab.gcp_cloud("run-1", kms_key=KMS_KEY)
    source = uploaded(cloud, BLOCKS)
    disk = cloud.make_disk(source, "guid")
    reference = cloud.snapshot(disk, "gold")
    assert cloud.snapshot(disk, "gold") == reference
    [(image, index)] = machine.calls
    assert image == name_of(reference)
    assert index is not None
    assert index.image == name_of(source)
    assert len(machine.markers) == 1  # nobody collects meanwhile
    assert cloud.exists(reference)
    assert first_bytes(cloud, reference) == BLOCKS[0][:8]
    facts = describe_image(gcp_lab.account("look"), reference)
    assert facts is not None
    assert facts.tags[TAG_ROLE] == ROLE_PREPARED
    assert facts.kms_key.startswith(KMS_KEY)
    assert gcp_lab.objects(f"{FOLDER}uploads/") == []


def test_it_outlives_the_upload_whose_blocks_it_shares(gcp_lab: GcpLab, machine: StandIn):
    cloud = gcp_lab.cloud("run-1")
    source = uploaded(cloud, BLOCKS)
    disk = cloud.make_disk(source, "guid")
    reference = cloud.snapshot(disk, "gold")
    cloud.delete_disk(disk)
    cloud.delete_snapshot(source)
    assert not cloud.exists(source)
    assert first_bytes(cloud, reference) == BLOCKS[0][:8]
    cloud.delete_snapshot(reference)
    cloud.delete_snapshot(reference)
    assert gcp_lab.everything() == []
    assert gcp_lab.state.ledger.open_entries() == []
    assert len(machine.calls) == 1


@pytest.mark.slow
def test_its_own_blocks_go_with_it(gcp_lab: GcpLab, machine: StandIn):
    cloud = gcp_lab.cloud("run-1")
    disk = disk_of(cloud)
    reference = cloud.snapshot(disk, "gold")
    objects, settings = Objects(gcp_lab.account("look")), gcp_lab.settings()
    key = f"{prepared_folder(settings, name_of(reference))}{digest(b'x').hex()}"
    objects.put(key, b"a block")
    assert [item.kind for item in cloud.list_ours(SITE)].count("object") == 0
    cloud.delete_snapshot(reference)
    assert objects.stat(key) is None
    kept = [segment_key(settings, digest(BLOCKS[index])) for index in (0, 3, 2047)]
    assert gcp_lab.objects(f"{FOLDER}seg/") == sorted(kept)
    assert len(machine.calls) == 1


def test_a_call_killed_between_index_and_image_reads_the_disk_once(
    gcp_lab: GcpLab, machine: StandIn, monkeypatch: pytest.MonkeyPatch
):
    cloud = gcp_lab.cloud("run-1")
    disk = disk_of(cloud)

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, "insert_disk_image", killed)
        with pytest.raises(Killed):
            cloud.snapshot(disk, "gold")
    reference = gcp_lab.cloud("run-1").snapshot(disk, "gold")
    assert cloud.exists(reference)
    assert len(machine.calls) == 1


@pytest.mark.slow
def test_an_image_made_but_never_recorded_is_found_again(gcp_lab: GcpLab, machine: StandIn):
    disk = disk_of(gcp_lab.cloud("run-1"))
    before = set(gcp_lab.images())
    ledger = LedgerOfAKilledRun(gcp_lab.state.folder)
    with pytest.raises(Killed):
        gcp_lab.gcp_cloud("run-1", ledger=ledger).snapshot(disk, "gold")
    # The first id that is to be recorded is the marker's: the image comes later.
    reference = gcp_lab.cloud("run-1").snapshot(disk, "gold")
    assert set(gcp_lab.images()) - before == {reference}
    assert machine.calls


@pytest.mark.slow
def test_an_image_that_somebody_deleted_is_made_anew(gcp_lab: GcpLab, machine: StandIn):
    cloud = gcp_lab.cloud("run-1")
    disk = disk_of(cloud)
    first = cloud.snapshot(disk, "gold")
    delete_image(gcp_lab.account("operator"), first)
    second = cloud.snapshot(disk, "gold")
    assert second != first
    assert cloud.exists(second)
    assert not cloud.exists(first)
    assert len(machine.calls) == 2


@pytest.mark.slow
def test_what_a_killed_call_left_is_swept(
    gcp_lab: GcpLab, machine: StandIn, monkeypatch: pytest.MonkeyPatch
):
    cloud = gcp_lab.cloud("run-1")
    disk = disk_of(cloud)

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    monkeypatch.setattr(module, "insert_disk_image", killed)
    with pytest.raises(Killed):
        cloud.snapshot(disk, "gold")
    sweep(gcp_lab.cloud("sweep"), gcp_lab.state, SITE, in_days(2))
    assert gcp_lab.everything() == []
    assert gcp_lab.state.ledger.open_entries() == []
    assert len(machine.calls) == 1


@pytest.mark.slow
def test_a_disk_that_is_gone_is_no_image(gcp_lab: GcpLab, machine: StandIn):
    cloud = gcp_lab.cloud("run-1")
    disk = disk_of(cloud)
    cloud.delete_disk(disk)
    with pytest.raises(ResourceGone, match="there is no such disk"):
        cloud.snapshot(disk, "gold")
    assert machine.calls == []


def test_an_image_without_index_is_no_parent_and_cannot_be_read(gcp_lab: GcpLab):
    cloud = gcp_lab.cloud("run-1")
    reference = uploaded(cloud, BLOCKS)
    assert cloud.fits_as_parent(reference)
    assert not gcp_lab.gcp_cloud("run-1", archive="stream").fits_as_parent(reference)
    account = gcp_lab.account("look")
    Objects(account).delete(f"{FOLDER}index/{name_of(reference)}")
    assert read_index(account, name_of(reference)) is None
    assert not cloud.fits_as_parent(reference)
    assert not cloud.exists(reference)
    with pytest.raises(ResourceGone, match="its index"):
        cloud.open_snapshot(reference)


@pytest.mark.parametrize(
    "reference", ["projects/p/zones/z/disks/x", "snap-0123", "", "projects/p/global/images/Bad!"]
)
def test_a_reference_of_something_else_is_no_image(gcp_lab: GcpLab, reference: str):
    assert not gcp_lab.cloud("run-1").exists(reference)


@pytest.mark.slow
def test_the_stopped_machine_comes_and_goes_with_the_image(gcp_lab: GcpLab, machine: StandIn):
    cloud = gcp_lab.gcp_cloud("run-1", keep_stopped_vm=True)
    disk = disk_of(cloud)
    reference = cloud.snapshot(disk, "gold")
    assert [name_of(item) for item in gcp_lab.machines()] == [name_of(reference)]
    cloud.delete_disk(disk)
    assert len(gcp_lab.disks()) == 1
    cloud.delete_snapshot(reference)
    assert (gcp_lab.machines(), gcp_lab.disks()) == ([], [])
    assert machine.calls
    assert disk.size_bytes == GIB
