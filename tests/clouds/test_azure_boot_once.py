"""The one boot: the composed disk as the system disk of a machine that reaches nothing."""

from __future__ import annotations

from typing import Any

import pytest

from imageport.cloud import CloudDisk
from imageport.clouds import boot_console
from imageport.clouds.azure import boot_once as module
from imageport.clouds.azure.arm_http import NETWORK_API
from imageport.clouds.azure.disks import attached_to
from imageport.clouds.azure.job_folder import list_blobs
from imageport.clouds.azure.network import isolated_group, isolated_rules
from imageport.clouds.azure.virtual_machines import MachineOfRun
from imageport.clouds.sweep import sweep
from imageport.errors import InputError, PermissionMissing, TransferCancelled
from imageport.progress import Event
from imageport.sandbox.azure.account import BOOT_SUBNET_ID
from imageport.state.ledger import Ledger
from tests.clouds.azure_laboratory import AzureLab
from tests.clouds.cloud_contract import BLOCKS, SITE, Killed, disk_of, ids, in_days


@pytest.fixture(autouse=True)
def quick_console(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(boot_console, "PAUSE_SECONDS", 0.5)


class DiesAt(Ledger):
    """The process is killed when it would record a resource of one type, or just after that."""

    def __init__(self, lab: AzureLab, kind: str, *, after: bool = False) -> None:
        super().__init__(lab.state.folder)
        self._kind = f"/{kind}/"
        self._after = after

    def record(self, entry_id: str, resource_id: str) -> None:
        dies = self._kind in resource_id
        if not dies or self._after:
            super().record(entry_id, resource_id)
        if dies:
            raise Killed(resource_id)


def started(lab: AzureLab) -> set[str]:
    """Ids of every machine that was ever switched on."""
    return {str(item["id"]) for item in lab.service.machines()}


def only_disk_is_left(lab: AzureLab, disk: CloudDisk) -> bool:
    left = sorted(item.kind for item in lab.cloud("look").list_ours(SITE))
    return left == ["disk", "snapshot"] and attached_to(lab.account("look"), disk.id) == ""


def group_rules(lab: AzureLab, group_id: str) -> list[dict[str, Any]]:
    action = "Microsoft.Network/networkSecurityGroups/read"
    group = lab.clients.arm.get(group_id, NETWORK_API, action)
    assert group is not None
    return [item["properties"] for item in group["properties"]["securityRules"]]


def test_the_guest_boots_from_the_disk_and_only_the_disk_remains(
    azure_lab: AzureLab, azure_guest: Any
):
    azure_guest("work")
    cloud = azure_lab.cloud("run-1")
    disk = disk_of(cloud)
    before = started(azure_lab)
    events: list[Event] = []
    outcome = cloud.boot_once(disk, deadline_seconds=60, events=events.append)
    assert outcome.stopped_by_itself
    assert outcome.reason == ""
    assert f"guest sees {BLOCKS[0][:8].hex()}" in outcome.console_text
    assert "imageport-firstboot: done" in outcome.console_text
    assert only_disk_is_left(azure_lab, disk)
    assert len(azure_lab.state.ledger.open_entries()) == 2
    assert len(started(azure_lab) - before) == 1
    with cloud.open_snapshot(cloud.snapshot(disk, "P")) as opened:
        assert opened.read_at(1024, 6) == b"booted"
    assert events[-1].note.startswith("shut down by itself after")


def test_the_guest_is_alone(azure_lab: AzureLab, azure_guest: Any):
    azure_guest("work")
    cloud = azure_lab.azure_cloud("run-1", boot_subnet_id=BOOT_SUBNET_ID)
    seen: dict[str, Any] = {}

    def watch(event: Event) -> None:
        if event.note.startswith("machine "):
            name = event.note.split()[1].rsplit("/", maxsplit=1)[-1]
            group = azure_lab.settings().resource_group
            found = azure_lab.clients.compute.virtual_machines.get(group, name)
            seen.update(found.as_dict())

    assert cloud.boot_once(disk_of(cloud), deadline_seconds=60, events=watch).stopped_by_itself
    assert azure_lab.service.violations() == []
    properties = seen["properties"]
    assert "identity" not in seen
    assert "osProfile" not in properties
    assert "securityProfile" not in properties
    assert "licenseType" not in properties
    assert "publicIPAddress" not in str(properties)
    disk = properties["storageProfile"]["osDisk"]
    assert (disk["createOption"], disk["deleteOption"]) == ("Attach", "Detach")


def test_a_guest_that_hangs_is_switched_off_with_console_and_screenshot(
    azure_lab: AzureLab, azure_guest: Any
):
    azure_guest("hang")
    cloud = azure_lab.cloud("run-1")
    disk = disk_of(cloud)
    outcome = cloud.boot_once(disk, deadline_seconds=5)
    assert not outcome.stopped_by_itself
    container = azure_lab.settings().job_container_url
    assert outcome.reason.startswith(f"still running after 5 s; screenshot at {container}/")
    assert "?" not in outcome.reason
    assert "STOP: 0x0000007B" in outcome.console_text
    name = outcome.reason.split(f"{container}/", 1)[1]
    blob = azure_lab.clients.blob_service.get_blob_client("jobs", name)
    assert len(blob.download_blob().readall()) > 0
    left = sorted(item.kind for item in cloud.list_ours(SITE))
    assert left == ["disk", "object", "snapshot"]  # the screenshot stays until its expiry
    assert not any(item["busy"] for item in azure_lab.service.machines())
    sweep(azure_lab.cloud("sweep"), azure_lab.state, SITE, in_days(2))
    assert list_blobs(azure_lab.account("look"), "imageport/") == []


@pytest.mark.slow
def test_without_a_job_container_the_boot_works_and_says_that_it_has_no_screenshot(
    azure_lab: AzureLab, azure_guest: Any
):
    azure_guest("hang")
    disk = disk_of(azure_lab.cloud("run-1"))
    cloud = azure_lab.azure_cloud("run-1", job_container_url="")
    outcome = cloud.boot_once(disk, deadline_seconds=5)
    assert outcome.reason == "still running after 5 s; no screenshot (no job_container_url)"
    assert only_disk_is_left(azure_lab, disk)


@pytest.mark.slow
def test_a_machine_that_a_person_deallocates_did_not_finish(azure_lab: AzureLab, azure_guest: Any):
    azure_guest("hang")
    cloud = azure_lab.cloud("run-1")
    disk = disk_of(cloud)

    def deallocate(event: Event) -> None:
        if event.note.startswith("console:"):
            group = azure_lab.settings().resource_group
            machines = azure_lab.clients.compute.virtual_machines
            for machine in machines.list(group):
                machines.begin_deallocate(group, str(machine.name)).wait()

    outcome = cloud.boot_once(disk, deadline_seconds=60, events=deallocate)
    assert not outcome.stopped_by_itself
    assert "from outside" in outcome.reason
    assert only_disk_is_left(azure_lab, disk)


@pytest.mark.slow
def test_a_machine_that_a_person_deletes_did_not_finish(azure_lab: AzureLab, azure_guest: Any):
    azure_guest("hang")
    cloud = azure_lab.cloud("run-1")
    disk = disk_of(cloud)

    def delete(event: Event) -> None:
        if event.note.startswith("console:"):
            group = azure_lab.settings().resource_group
            machines = azure_lab.clients.compute.virtual_machines
            for machine in machines.list(group):
                machines.begin_delete(group, str(machine.name)).wait()

    outcome = cloud.boot_once(disk, deadline_seconds=60, events=delete)
    assert not outcome.stopped_by_itself
    assert outcome.reason == "the machine is gone"
    assert only_disk_is_left(azure_lab, disk)


def test_a_cancelled_boot_frees_the_disk(azure_lab: AzureLab, azure_guest: Any):
    azure_guest("hang")
    cloud = azure_lab.cloud("run-1")
    disk = disk_of(cloud)
    notes: list[str] = []
    with pytest.raises(TransferCancelled):
        cloud.boot_once(
            disk,
            deadline_seconds=60,
            events=lambda event: notes.append(event.note),
            cancelled=lambda: any(note.startswith("console:") for note in notes),
        )
    assert only_disk_is_left(azure_lab, disk)


def test_a_killed_run_takes_up_its_machine(
    azure_lab: AzureLab, azure_guest: Any, monkeypatch: pytest.MonkeyPatch
):
    azure_guest("work")
    disk = disk_of(azure_lab.cloud("run-1"))
    before = started(azure_lab)
    ledger = DiesAt(azure_lab, "virtualMachines", after=True)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_clean_up", lambda *_: [])
        with pytest.raises(Killed):
            azure_lab.azure_cloud("run-1", ledger=ledger).boot_once(disk, deadline_seconds=60)
    assert azure_lab.cloud("run-1").boot_once(disk, deadline_seconds=60).stopped_by_itself
    assert len(started(azure_lab) - before) == 1
    assert only_disk_is_left(azure_lab, disk)


def boot_killed_at_the_console(
    lab: AzureLab, disk: CloudDisk, monkeypatch: pytest.MonkeyPatch
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
    azure_lab: AzureLab, azure_guest: Any, monkeypatch: pytest.MonkeyPatch
):
    azure_guest("slow")
    disk = disk_of(azure_lab.cloud("run-1"))
    boot_killed_at_the_console(azure_lab, disk, monkeypatch)
    outcome = azure_lab.cloud("run-1").boot_once(disk, deadline_seconds=60)
    assert outcome.stopped_by_itself
    assert outcome.console_text.count("guest sees") == 1  # booted once, not twice
    assert only_disk_is_left(azure_lab, disk)


@pytest.mark.slow
def test_what_a_killed_boot_left_is_swept_down_to_nothing(
    azure_lab: AzureLab, azure_guest: Any, monkeypatch: pytest.MonkeyPatch
):
    azure_guest("hang")
    cloud = azure_lab.cloud("run-1")
    disk = disk_of(cloud)
    boot_killed_at_the_console(azure_lab, disk, monkeypatch)
    kinds = {item.kind for item in cloud.list_ours(SITE)}
    assert kinds == {"instance", "snapshot", "disk", "security-group"}
    swept = sweep(azure_lab.cloud("sweep"), azure_lab.state, SITE, in_days(0), run="run-1")
    assert disk.id in ids(swept)
    assert cloud.list_ours(SITE) == []
    assert azure_lab.state.ledger.open_entries() == []


@pytest.mark.parametrize(
    "kind",
    [pytest.param("networkSecurityGroups", marks=pytest.mark.slow), "virtualMachines"],
)
def test_what_was_made_for_the_boot_but_never_recorded_is_swept(
    azure_lab: AzureLab, azure_guest: Any, monkeypatch: pytest.MonkeyPatch, kind: str
):
    azure_guest("work")
    cloud = azure_lab.cloud("run-1")
    disk = disk_of(cloud)
    monkeypatch.setattr(module, "_clean_up", lambda *_: [])
    with pytest.raises(Killed, match=kind):
        azure_lab.cloud("run-1", ledger=DiesAt(azure_lab, kind)).boot_once(
            disk, deadline_seconds=60
        )
    assert any(f"/{kind}/" in item.id for item in cloud.list_ours(SITE))
    sweep(azure_lab.cloud("sweep"), azure_lab.state, SITE, in_days(2))
    assert cloud.list_ours(SITE) == []
    assert azure_lab.state.ledger.open_entries() == []


@pytest.mark.slow
def test_a_denied_machine_frees_the_disk_and_names_the_action(
    azure_lab: AzureLab, azure_guest: Any
):
    azure_guest("work")
    cloud = azure_lab.cloud("run-1")
    disk = disk_of(cloud)
    join = "Microsoft.Network/networkSecurityGroups/join/action"
    azure_lab.service.turn(denied=[join])
    with pytest.raises(PermissionMissing, match=f"lack {join}"):
        cloud.boot_once(disk, deadline_seconds=60)
    azure_lab.service.turn(denied=[])
    assert only_disk_is_left(azure_lab, disk)


@pytest.mark.slow
def test_a_lost_answer_or_a_failed_operation_leaves_nothing_twice(
    azure_lab: AzureLab, azure_guest: Any
):
    azure_guest("work")
    cloud = azure_lab.cloud("run-1")
    disk = disk_of(cloud)
    azure_lab.service.turn(lost_answers=2)
    assert cloud.boot_once(disk, deadline_seconds=60).stopped_by_itself
    assert only_disk_is_left(azure_lab, disk)


def test_a_boot_without_a_subnet_is_refused_before_anything_is_made(azure_lab: AzureLab):
    cloud = azure_lab.azure_cloud("run-1", subnet_id="")
    with pytest.raises(InputError, match="subnet_id"):
        cloud.boot_once(CloudDisk("/x", 1, ""), deadline_seconds=1)
    assert azure_lab.state.ledger.open_entries() == []


def test_named_destinations_are_the_only_way_out(azure_lab: AzureLab):
    named = ("10.0.0.5/32", "10.1.0.0/16")
    account = azure_lab.account("run-1", boot_egress_cidrs=named)
    group = isolated_group(account)
    for _again in range(2):
        group.make(isolated_rules(account.settings))
        assert isolated_group(account).id == group.id
    rules = sorted(group_rules(azure_lab, group.id), key=lambda rule: rule["priority"])
    outbound = [rule for rule in rules if rule["direction"] == "Outbound"]
    # The platform's own addresses come before what is opened.
    assert [rule["access"] for rule in outbound] == ["Deny", "Deny", "Deny", "Allow", "Deny"]
    assert outbound[3]["destinationAddressPrefixes"] == list(named)
    assert outbound[4]["destinationAddressPrefix"] == "*"
    assert [rule["access"] for rule in rules if rule["direction"] == "Inbound"] == ["Deny"]
    for _again in range(2):
        group.remove()
    assert azure_lab.state.ledger.open_entries() == []


def test_a_group_that_the_operator_names_is_used_and_kept(azure_lab: AzureLab):
    kind = "Microsoft.Network/networkSecurityGroups"
    mine = f"{azure_lab.settings().group_id}/providers/{kind}/mine"
    account = azure_lab.account("run-1", isolated_network_security_group_id=mine)
    group = isolated_group(account)
    group.make(isolated_rules(account.settings))
    group.remove()
    assert group.id == mine
    assert azure_lab.state.ledger.open_entries() == []


@pytest.mark.slow
def test_a_deleted_machine_is_not_taken_up(azure_lab: AzureLab, azure_guest: Any):
    azure_guest("work")
    cloud = azure_lab.cloud("run-1")
    disk = disk_of(cloud)
    cloud.boot_once(disk, deadline_seconds=60)
    machine = MachineOfRun(azure_lab.account("run-1"), "boot", disk.id.lower())
    assert machine.take_up() is None
    machine.remove()
    assert only_disk_is_left(azure_lab, disk)
