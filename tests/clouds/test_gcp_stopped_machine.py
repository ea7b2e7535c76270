"""The stopped machine beside a prepared image: never booted from it, gone with it."""

from __future__ import annotations

from typing import Any

import pytest

from imageport.clouds.gcp import stopped_machine as module
from imageport.clouds.gcp.disks import describe_disk
from imageport.clouds.gcp.images import delete_image, insert_disk_image, wait_ready
from imageport.clouds.gcp.instances import describe_machine
from imageport.clouds.gcp.inventory import ROLE_LEFT
from imageport.clouds.gcp.names import image_id, parse_id, resource_name, zonal_id
from imageport.clouds.gcp.network import RulesOfRun
from imageport.clouds.gcp.prepared_images import delete_whole_image
from imageport.clouds.gcp.stopped_machine import (
    PREPARED_DEVICE,
    delete_stopped_machine,
    keep_stopped_machine,
)
from imageport.clouds.sweep import sweep
from imageport.clouds.tags import ROLE_PREPARED, TAG_ROLE
from imageport.errors import CloudRefused, CloudUnavailable
from imageport.sandbox.gcp.account import PROJECT, ZONE
from tests.clouds.cloud_contract import (
    SITE,
    Killed,
    LedgerOfAKilledRun,
    disk_of,
    generation,
    in_days,
)
from tests.clouds.gcp_laboratory import GcpLab


@pytest.fixture
def prepared(gcp_lab: GcpLab) -> str:
    """A finished image P that the catalogue names; of the disk it came from nothing is left."""
    cloud, account = gcp_lab.cloud("run-1"), gcp_lab.account("run-1")
    disk = disk_of(cloud)
    intent = account.intend("snapshot", ROLE_PREPARED, "run-1", disk.id)
    reference = image_id(account.settings, resource_name(intent))
    insert_disk_image(account, resource_name(intent), intent, disk.id)
    account.record(intent, wait_ready(account, reference).id)
    account.mark(reference, "released")
    cloud.delete_disk(disk)
    gcp_lab.state.catalogue.add(generation(reference))
    return reference


def machine_of(lab: GcpLab, image: str) -> str:
    return zonal_id(lab.settings(), "instances", image.rsplit("/", maxsplit=1)[-1])


def stands_beside(lab: GcpLab, image: str) -> bool:
    """Tell that there is the machine, off, with a disk of the image, and nothing else."""
    account = lab.account("look")
    facts = describe_machine(account, machine_of(lab, image))
    assert facts is not None
    [(device, disk_id)] = facts.disks.items()
    disk = describe_disk(account, disk_id)
    assert disk is not None
    return (
        facts.is_over
        and device == PREPARED_DEVICE
        and disk.source_image == image
        and lab.disks() == [disk_id]
        and lab.rules() == []
        and lab.service.violations() == []
    )


def test_series_with_gvnic_alone_have_their_machine_too(gcp_lab: GcpLab, prepared: str):
    account = gcp_lab.account("run-1", boot_machine_type="c3-standard-4")
    keep_stopped_machine(account, prepared)
    assert stands_beside(gcp_lab, prepared)


def test_the_machine_is_off_and_its_disk_never_booted(gcp_lab: GcpLab, prepared: str):
    before = len(gcp_lab.service.machines())
    keep_stopped_machine(gcp_lab.account("run-1"), prepared)
    assert stands_beside(gcp_lab, prepared)
    assert len(gcp_lab.service.machines()) == before + 1  # from the empty disk
    made = gcp_lab.clients.instances.get(
        project=PROJECT, zone=ZONE, instance=parse_id(prepared, "images").name
    )
    assert not made.scheduling.max_run_duration.seconds  # whoever starts it decides how long
    assert all(
        entry.resource_id not in {machine_of(gcp_lab, prepared), *gcp_lab.disks()}
        for entry in gcp_lab.state.ledger.open_entries()
    )
    keep_stopped_machine(gcp_lab.account("run-2"), prepared)
    assert stands_beside(gcp_lab, prepared)
    assert len(gcp_lab.service.machines()) == before + 1


@pytest.mark.slow
def test_no_sweep_takes_it_while_its_image_is_there(gcp_lab: GcpLab, prepared: str):
    keep_stopped_machine(gcp_lab.account("run-1"), prepared)
    sweep(gcp_lab.cloud("sweep"), gcp_lab.state, SITE, in_days(400))
    assert stands_beside(gcp_lab, prepared)


@pytest.mark.slow
def test_it_goes_with_its_image(gcp_lab: GcpLab, prepared: str):
    keep_stopped_machine(gcp_lab.account("run-1"), prepared)
    for _again in range(2):
        delete_whole_image(gcp_lab.account("run-2"), prepared)
        assert gcp_lab.machines() == []
        assert gcp_lab.disks() == []
        assert prepared not in gcp_lab.images()


@pytest.mark.slow
def test_one_whose_image_somebody_deleted_is_swept(gcp_lab: GcpLab, prepared: str):
    keep_stopped_machine(gcp_lab.account("run-1"), prepared)
    delete_image(gcp_lab.account("operator"), prepared)
    cloud = gcp_lab.cloud("sweep")
    left = {item.kind for item in cloud.list_ours(SITE) if item.tags[TAG_ROLE] == ROLE_LEFT}
    assert left == {"instance", "disk"}
    sweep(cloud, gcp_lab.state, SITE, in_days(2))
    assert gcp_lab.machines() == []
    assert gcp_lab.disks() == []


STEPS = ("insert_machine", "wait_started", "stop_machine", "_swap", "delete_disk")


@pytest.mark.parametrize(
    "step",
    [item if item == "_swap" else pytest.param(item, marks=pytest.mark.slow) for item in STEPS],
)
def test_a_killed_call_is_finished_by_the_next(
    gcp_lab: GcpLab, prepared: str, monkeypatch: pytest.MonkeyPatch, step: str
):
    with monkeypatch.context() as patch:
        real: Any = getattr(module, step)

        def done_and_killed(*args: Any) -> None:
            real(*args)
            raise Killed(step)

        patch.setattr(module, step, done_and_killed)
        patch.setattr(RulesOfRun, "remove", lambda _rules: None)
        with pytest.raises(Killed):
            keep_stopped_machine(gcp_lab.account("run-1"), prepared)
    keep_stopped_machine(gcp_lab.account("run-1"), prepared)
    sweep(gcp_lab.cloud("sweep"), gcp_lab.state, SITE, in_days(2))
    assert stands_beside(gcp_lab, prepared)


@pytest.mark.slow
def test_what_a_killed_call_left_is_swept_if_nobody_finishes_it(gcp_lab: GcpLab, prepared: str):
    ledger = LedgerOfAKilledRun(gcp_lab.state.folder)
    with pytest.raises(Killed):
        keep_stopped_machine(gcp_lab.account("run-1", ledger=ledger), prepared)
    sweep(gcp_lab.cloud("sweep"), gcp_lab.state, SITE, in_days(2))
    assert (gcp_lab.machines(), gcp_lab.disks(), gcp_lab.rules()) == ([], [], [])
    assert gcp_lab.images().count(prepared) == 1


@pytest.mark.slow
def test_lost_answers_and_failed_operations_are_waited_out(gcp_lab: GcpLab, prepared: str):
    gcp_lab.service.turn(lost_answers=4, failed_operations=1)
    keep_stopped_machine(gcp_lab.account("run-1"), prepared)
    assert stands_beside(gcp_lab, prepared)


@pytest.mark.slow
def test_without_room_for_a_machine_nothing_stays_but_the_disk(gcp_lab: GcpLab, prepared: str):
    gcp_lab.service.turn(missing_machine_types=["n2-standard-2"])
    with pytest.raises(CloudUnavailable, match="imageport-prepared-"):
        keep_stopped_machine(gcp_lab.account("run-1"), prepared)
    assert gcp_lab.machines() == []
    assert gcp_lab.rules() == []
    sweep(gcp_lab.cloud("sweep"), gcp_lab.state, SITE, in_days(2))
    assert gcp_lab.disks() == []


@pytest.mark.slow
def test_a_tag_that_isolates_nothing_starts_no_machine(gcp_lab: GcpLab, prepared: str):
    account = gcp_lab.account("run-1", isolated_network_tag="quarantine")
    with pytest.raises(CloudRefused, match="isolated_network_tag"):
        keep_stopped_machine(account, prepared)
    assert (gcp_lab.machines(), gcp_lab.disks()) == ([], [])


@pytest.mark.slow
def test_an_image_without_a_machine_loses_nothing(gcp_lab: GcpLab, prepared: str):
    delete_stopped_machine(gcp_lab.account("run-1"), prepared)
    assert prepared in gcp_lab.images()
    assert ZONE in machine_of(gcp_lab, prepared)
