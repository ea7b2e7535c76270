"""The one boot: the composed disk as the boot disk of a machine that reaches nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from imageport.cloud import CloudDisk
from imageport.clouds import boot_console
from imageport.clouds.gcp import boot_once as module
from imageport.clouds.gcp.disks import attached_to
from imageport.clouds.gcp.instances import MachineOfRun
from imageport.clouds.gcp.names import parse_id
from imageport.clouds.gcp.objects import Objects
from imageport.clouds.sweep import sweep
from imageport.errors import (
    CloudRefused,
    CloudUnavailable,
    InputError,
    PermissionMissing,
    TransferCancelled,
)
from imageport.progress import Event
from imageport.sandbox.gcp.account import BOOT_SUBNET, PROJECT, ZONE
from imageport.state.ledger import Ledger
from tests.clouds.cloud_contract import BLOCKS, SITE, Killed, disk_of, ids, in_days
from tests.clouds.gcp_laboratory import GcpLab

Guest = Callable[[str], None]


@pytest.fixture(autouse=True)
def quick_console(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(boot_console, "PAUSE_SECONDS", 0.5)


class DiesAt(Ledger):
    """The process is killed when it would record a resource of one type, or just after that."""

    def __init__(self, lab: GcpLab, kind: str, *, after: bool = False) -> None:
        super().__init__(lab.state.folder)
        self._kind = f"/{kind}/"
        self._after = after

    def record(self, entry_id: str, resource_id: str) -> None:
        dies = self._kind in resource_id
        if not dies or self._after:
            super().record(entry_id, resource_id)
        if dies:
            raise Killed(resource_id)


def started(lab: GcpLab) -> set[str]:
    """Ids of every machine that was ever switched on."""
    return {str(item["id"]) for item in lab.service.machines()}


def only_disk_is_left(lab: GcpLab, disk: CloudDisk) -> bool:
    left = sorted(item.kind for item in lab.cloud("look").list_ours(SITE))
    return left == ["disk", "snapshot"] and attached_to(lab.account("look"), disk.id) == ()


def test_the_guest_boots_from_the_disk_and_only_the_disk_remains(gcp_lab: GcpLab, gcp_guest: Guest):
    gcp_guest("work")
    cloud = gcp_lab.cloud("run-1")
    disk = disk_of(cloud)
    before = started(gcp_lab)
    events: list[Event] = []
    outcome = cloud.boot_once(disk, deadline_seconds=60, events=events.append)
    assert outcome.stopped_by_itself
    assert outcome.reason == ""
    assert f"guest sees {BLOCKS[0][:8].hex()}" in outcome.console_text
    assert "imageport-firstboot: done" in outcome.console_text
    assert only_disk_is_left(gcp_lab, disk)
    assert len(gcp_lab.state.ledger.open_entries()) == 2
    assert len(started(gcp_lab) - before) == 1
    assert events[-1].note.startswith("shut down by itself after")


def test_the_guest_is_alone(gcp_lab: GcpLab, gcp_guest: Guest):
    gcp_guest("work")
    cloud = gcp_lab.gcp_cloud("run-1", boot_subnet=BOOT_SUBNET, nic_type="VIRTIO_NET")
    seen: list[Any] = []

    def watch(event: Event) -> None:
        if event.note.startswith("machine "):
            name = parse_id(event.note.split()[1], "instances").name
            found = gcp_lab.clients.instances.get(project=PROJECT, zone=ZONE, instance=name)
            seen.append(found)

    assert cloud.boot_once(disk_of(cloud), deadline_seconds=60, events=watch).stopped_by_itself
    assert gcp_lab.service.violations() == []
    [machine] = seen
    assert not machine.service_accounts
    assert not machine.scheduling.automatic_restart
    assert machine.scheduling.instance_termination_action == "STOP"
    assert machine.display_device.enable_display
    assert not machine.shielded_instance_config.enable_secure_boot
    [interface] = machine.network_interfaces
    assert not interface.access_configs
    assert (interface.nic_type, interface.stack_type) == ("VIRTIO_NET", "IPV4_ONLY")
    assert interface.subnetwork.endswith(BOOT_SUBNET)
    [disk] = machine.disks
    assert (disk.boot, disk.auto_delete, disk.mode) == (True, False, "READ_WRITE")


def test_a_guest_that_hangs_is_switched_off_with_console_and_screenshot(
    gcp_lab: GcpLab, gcp_guest: Guest
):
    gcp_guest("hang")
    cloud = gcp_lab.cloud("run-1")
    outcome = cloud.boot_once(disk_of(cloud), deadline_seconds=4)
    assert not outcome.stopped_by_itself
    bucket = f"gs://{gcp_lab.settings().bucket}/"
    assert outcome.reason.startswith(f"still running after 4 s; screenshot at {bucket}")
    assert "STOP: 0x0000007B" in outcome.console_text
    key = outcome.reason.split(bucket, 1)[1]
    assert Objects(gcp_lab.account("look")).get(key)
    left = sorted(item.kind for item in cloud.list_ours(SITE))
    assert left == ["disk", "object", "snapshot"]  # the screenshot stays until its expiry
    assert gcp_lab.machines() == []
    sweep(gcp_lab.cloud("sweep"), gcp_lab.state, SITE, in_days(2))
    assert cloud.list_ours(SITE) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("act", "reason"),
    [("stop", "ended from outside: stop"), ("delete", "the machine is gone")],
)
def test_a_machine_that_a_person_ends_did_not_finish(
    gcp_lab: GcpLab, gcp_guest: Guest, act: str, reason: str
):
    gcp_guest("hang")
    cloud = gcp_lab.cloud("run-1")
    disk = disk_of(cloud)
    asked: list[str] = []

    def end(event: Event) -> None:
        if event.note.startswith("console:") and not asked:
            [machine] = gcp_lab.machines()
            asked.append(machine)
            call = getattr(gcp_lab.clients.instances, f"{act}_unary")
            call(project=PROJECT, zone=ZONE, instance=parse_id(machine, "instances").name)

    outcome = cloud.boot_once(disk, deadline_seconds=60, events=end)
    assert not outcome.stopped_by_itself
    assert outcome.reason.startswith(reason)
    assert only_disk_is_left(gcp_lab, disk)


def test_a_cancelled_boot_frees_the_disk(gcp_lab: GcpLab, gcp_guest: Guest):
    gcp_guest("hang")
    cloud = gcp_lab.cloud("run-1")
    disk = disk_of(cloud)
    notes: list[str] = []
    with pytest.raises(TransferCancelled):
        cloud.boot_once(
            disk,
            deadline_seconds=60,
            events=lambda event: notes.append(event.note),
            cancelled=lambda: any(note.startswith("console:") for note in notes),
        )
    assert only_disk_is_left(gcp_lab, disk)


def test_a_killed_run_takes_up_its_machine(
    gcp_lab: GcpLab, gcp_guest: Guest, monkeypatch: pytest.MonkeyPatch
):
    gcp_guest("work")
    disk = disk_of(gcp_lab.cloud("run-1"))
    before = started(gcp_lab)
    ledger = DiesAt(gcp_lab, "instances", after=True)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_clean_up", lambda *_: [])
        with pytest.raises(Killed):
            gcp_lab.gcp_cloud("run-1", ledger=ledger).boot_once(disk, deadline_seconds=60)
    assert gcp_lab.cloud("run-1").boot_once(disk, deadline_seconds=60).stopped_by_itself
    assert len(started(gcp_lab) - before) == 1
    assert only_disk_is_left(gcp_lab, disk)


def boot_killed_at_the_console(
    lab: GcpLab, disk: CloudDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(event: Event) -> None:
        if event.note.startswith("console:"):
            raise Killed(event.note)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_clean_up", lambda *_: [])
        with pytest.raises(Killed):
            lab.cloud("run-1").boot_once(disk, deadline_seconds=60, events=die)


@pytest.mark.slow
def test_a_guest_in_the_middle_of_its_boot_is_waited_for_not_switched_off(
    gcp_lab: GcpLab, gcp_guest: Guest, monkeypatch: pytest.MonkeyPatch
):
    gcp_guest("slow")
    disk = disk_of(gcp_lab.cloud("run-1"))
    boot_killed_at_the_console(gcp_lab, disk, monkeypatch)
    outcome = gcp_lab.cloud("run-1").boot_once(disk, deadline_seconds=60)
    assert outcome.stopped_by_itself
    assert outcome.console_text.count("guest sees") == 1  # booted once, not twice
    assert only_disk_is_left(gcp_lab, disk)


@pytest.mark.slow
def test_what_a_killed_boot_left_is_swept_down_to_nothing(
    gcp_lab: GcpLab, gcp_guest: Guest, monkeypatch: pytest.MonkeyPatch
):
    gcp_guest("hang")
    cloud = gcp_lab.cloud("run-1")
    disk = disk_of(cloud)
    boot_killed_at_the_console(gcp_lab, disk, monkeypatch)
    kinds = {item.kind for item in cloud.list_ours(SITE)}
    assert kinds == {"instance", "snapshot", "disk", "security-group"}
    swept = sweep(gcp_lab.cloud("sweep"), gcp_lab.state, SITE, in_days(0), run="run-1")
    assert disk.id in ids(swept)
    assert cloud.list_ours(SITE) == []
    assert gcp_lab.state.ledger.open_entries() == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["firewalls", "instances"])
def test_what_was_made_for_the_boot_but_never_recorded_is_swept(
    gcp_lab: GcpLab, gcp_guest: Guest, monkeypatch: pytest.MonkeyPatch, kind: str
):
    gcp_guest("work")
    cloud = gcp_lab.cloud("run-1")
    disk = disk_of(cloud)
    monkeypatch.setattr(module, "_clean_up", lambda *_: [])
    with pytest.raises(Killed, match=kind):
        gcp_lab.cloud("run-1", ledger=DiesAt(gcp_lab, kind)).boot_once(disk, deadline_seconds=60)
    assert any(f"/{kind}/" in item.id for item in cloud.list_ours(SITE))
    sweep(gcp_lab.cloud("sweep"), gcp_lab.state, SITE, in_days(2))
    assert cloud.list_ours(SITE) == []
    assert gcp_lab.state.ledger.open_entries() == []


@pytest.mark.slow
def test_a_denied_machine_frees_the_disk_and_names_the_permission(
    gcp_lab: GcpLab, gcp_guest: Guest
):
    gcp_guest("work")
    cloud = gcp_lab.cloud("run-1")
    disk = disk_of(cloud)
    gcp_lab.service.turn(denied=["compute.subnetworks.use"])
    with pytest.raises(PermissionMissing, match=r"lack compute\.subnetworks\.use"):
        cloud.boot_once(disk, deadline_seconds=60)
    gcp_lab.service.turn(denied=[])
    assert only_disk_is_left(gcp_lab, disk)


@pytest.mark.slow
def test_a_zone_without_room_is_named_with_the_machine_type(gcp_lab: GcpLab, gcp_guest: Guest):
    gcp_guest("work")
    cloud = gcp_lab.cloud("run-1")
    disk = disk_of(cloud)
    gcp_lab.service.turn(missing_machine_types=["n2-standard-2"])
    with pytest.raises(CloudUnavailable) as caught:
        cloud.boot_once(disk, deadline_seconds=60)
    assert f"n2-standard-2 is not to be had in {ZONE}" in caught.value.hint
    assert only_disk_is_left(gcp_lab, disk)


@pytest.mark.slow
def test_lost_answers_and_failed_operations_leave_nothing_twice(gcp_lab: GcpLab, gcp_guest: Guest):
    gcp_guest("work")
    cloud = gcp_lab.cloud("run-1")
    disk = disk_of(cloud)
    before = started(gcp_lab)
    gcp_lab.service.turn(lost_answers=3, failed_operations=1)
    assert cloud.boot_once(disk, deadline_seconds=60).stopped_by_itself
    assert len(started(gcp_lab) - before) == 1
    assert only_disk_is_left(gcp_lab, disk)


def test_a_boot_without_a_subnet_is_refused_before_anything_is_made(gcp_lab: GcpLab):
    cloud = gcp_lab.gcp_cloud("run-1", subnet="")
    with pytest.raises(InputError, match="subnet"):
        cloud.boot_once(CloudDisk("x", 1, ""), deadline_seconds=1)
    assert gcp_lab.state.ledger.open_entries() == []


def test_a_tag_without_rules_boots_nothing(gcp_lab: GcpLab):
    cloud = gcp_lab.gcp_cloud("run-1", isolated_network_tag="quarantine")
    with pytest.raises(CloudRefused, match="Bad isolated_network_tag 'quarantine'"):
        cloud.boot_once(CloudDisk("x", 1, ""), deadline_seconds=1)
    assert gcp_lab.state.ledger.open_entries() == []


@pytest.mark.slow
def test_a_deleted_machine_is_not_taken_up(gcp_lab: GcpLab, gcp_guest: Guest):
    gcp_guest("work")
    cloud = gcp_lab.cloud("run-1")
    disk = disk_of(cloud)
    cloud.boot_once(disk, deadline_seconds=60)
    machine = MachineOfRun(gcp_lab.account("run-1"), "boot", disk.id)
    assert machine.take_up() is None
    machine.remove()
    assert only_disk_is_left(gcp_lab, disk)
