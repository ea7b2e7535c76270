"""Machines of Google Cloud. About 0.10 USD together."""

from __future__ import annotations

from pathlib import Path

from imageport.clouds.gcp.instances import describe_machine, who_ended
from imageport.clouds.gcp.names import zonal_id
from imageport.clouds.gcp.stopped_machine import PREPARED_DEVICE, keep_stopped_machine
from imageport.formats.opening import open_disk
from imageport.sandbox.sample.build import build_sample
from imageport.storage.local import LocalFolder
from imageport.transfer.pipeline import TransferRequest, transfer
from tests.clouds.cloud_contract import BLOCKS, uploaded
from tests.real.conftest import Observed
from tests.real.probes import probes
from tests.real.real_gcp import RealGcp


@probes("gcp-guest-shutdown")
def test_an_uploaded_disk_boots_and_its_own_shutdown_is_seen(
    gcp: RealGcp, observed: Observed, tmp_path: Path
) -> None:
    """The sample's EFI program switches the machine off, as a guest that is finished does.

    Not for the emulated project: its guest, unprepared, rightly stops for want of vioscsi.
    """
    cloud = gcp.cloud()
    image = build_sample(tmp_path / "sample.vhdx")
    with LocalFolder(image.parent) as folder, folder.open_read(image.name) as file:
        disk = open_disk(file)
        target = cloud.upload_target("probe")
        request = TransferRequest(gcp.state.journals.open("probe"), gcp.site)
        reference = transfer(disk, target, request).reference
        target.close()
        disk.close()
    outcome = cloud.boot_once(cloud.make_disk(reference, ""), deadline_seconds=600)
    observed(
        f"{outcome.seconds:.0f} s, by itself {outcome.stopped_by_itself}, "
        f"{outcome.reason or 'stopped'}; console ends {outcome.console_text[-200:]!r}"
    )
    assert outcome.stopped_by_itself
    assert outcome.console_text


@probes("gcp-swapped-boot-disk", "gcp-stop-operation")
def test_a_machine_starts_empty_is_stopped_and_gets_another_boot_disk(
    gcp: RealGcp, observed: Observed
) -> None:
    cloud = gcp.cloud()
    image = uploaded(cloud, BLOCKS)
    account = gcp.account_with_subnet()
    keep_stopped_machine(account, image)
    name = image.rsplit("/", maxsplit=1)[-1]
    facts = describe_machine(account, zonal_id(account.settings, "instances", name))
    assert facts is not None
    ended = who_ended(account, facts)
    observed(f"status {facts.status}, disks {sorted(facts.disks)}, {ended or 'nobody ended it'}")
    assert facts.is_over
    assert list(facts.disks) == [PREPARED_DEVICE]
    assert ended.startswith("ended from outside: stop")
