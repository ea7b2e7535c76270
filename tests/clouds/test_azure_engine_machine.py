"""The engine machine: really made by the emulator, really runs its custom data and a zipapp."""

from __future__ import annotations

import base64
import logging
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from imageport.cloud import CloudDisk
from imageport.clouds import engine_setup
from imageport.clouds.azure.inventory import list_ours
from imageport.clouds.azure.job_folder import JobFolder, list_blobs
from imageport.clouds.azure.network import GroupOfRun
from imageport.clouds.azure.virtual_machines import MachinePlan, describe_machine
from imageport.clouds.sweep import sweep
from imageport.compose.contract import Action, EngineDisk, EngineJob, EngineOptions
from imageport.errors import (
    CloudRefused,
    CloudUnavailable,
    EngineFailed,
    ImageportError,
    InputError,
    PermissionMissing,
    TransferCancelled,
)
from imageport.progress import Event
from imageport.sandbox.azure.account import ENGINE_IMAGE_ID
from imageport.state.ledger import Ledger
from tests.clouds.azure_laboratory import AzureLab
from tests.clouds.cloud_contract import BLOCKS, GUID, SITE, Killed, disk_of, ids, in_days
from tests.clouds.stand_in_engine import build_stand_in


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine_setup, "build_engine", build_stand_in)


def job(mode: str = "work", action: Action = Action.COMPOSE) -> EngineJob:
    options = EngineOptions(cloud="azure", recommended=(mode,))
    return EngineJob(action=action, disk=EngineDisk(path="", disk_guid=GUID), options=options)


def only_disk_is_left(lab: AzureLab, disk: CloudDisk) -> bool:
    """Nothing but the disk and the snapshot it came from."""
    account = lab.account("look")
    left = {item.kind: item.id for item in list_ours(account, SITE)}
    return (
        set(left) == {"disk", "snapshot"}
        and left["disk"] == disk.id
        and lab.open_access() == []
        and list_blobs(account, "imageport/") == []
        and interfaces(lab) == []
        and len(lab.state.ledger.open_entries()) == 2
    )


def interfaces(lab: AzureLab) -> list[str]:
    kind = "Microsoft.Network/networkInterfaces"
    path = f"{lab.settings().group_id}/providers/{kind}"
    return [item["name"] for item in lab.clients.arm.pages(path, "2024-05-01", f"{kind}/read")]


def started(lab: AzureLab) -> set[str]:
    """Ids of every machine that was ever switched on."""
    return {str(item["id"]) for item in lab.service.machines()}


class DiesAtTheMachine(Ledger):
    """The process is killed when it is about to record the machine that was just made."""

    def record(self, entry_id: str, resource_id: str) -> None:
        if "/virtualMachines/" in resource_id:
            raise Killed(resource_id)
        super().record(entry_id, resource_id)


def killed_run(lab: AzureLab, disk: CloudDisk, mode: str) -> None:
    """Run an engine in a process that dies once its machine is made; no clean-up runs."""
    dying = lab.azure_cloud("run-1", ledger=DiesAtTheMachine(lab.state.folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(dying._account), "undo_all", lambda *_: [])
        with pytest.raises(Killed):
            dying.run_engine(disk, job(mode), deadline_seconds=60)


def test_the_engine_reads_and_edits_the_disk_and_nothing_else_remains(
    azure_lab: AzureLab, tmp_path: Path
):
    cloud = azure_lab.cloud("run-1")
    disk = disk_of(cloud)
    payload = tmp_path / "payload.zip"
    with zipfile.ZipFile(payload, "w") as archive:
        archive.writestr("mana.inf", "[Version]")
        archive.writestr("mana.sys", "MZ")
    events: list[Event] = []
    report = cloud.run_engine(disk, job(), payload, deadline_seconds=60, events=events.append)
    assert report.ok
    assert report.first_boot["first_bytes"] == BLOCKS[0][:16].hex()
    assert report.first_boot["payload"] == "mana.inf,mana.sys"
    assert only_disk_is_left(azure_lab, disk)
    with cloud.open_snapshot(cloud.snapshot(disk, "P")) as opened:
        assert opened.read_at(512, 8) == b"composed"
        assert opened.read_at(0, 512) == BLOCKS[0][:512]
    assert events[-1].stage == "engine compose"


def watch_machine(lab: AzureLab, seen: dict[str, Any]) -> Any:
    """Look at the machine and its group while it runs."""

    def watch(event: Event) -> None:
        if not event.note.startswith("engine runs on"):
            return
        name = event.note.rsplit("/", maxsplit=1)[-1]
        group = lab.settings().resource_group
        seen["machine"] = lab.clients.compute.virtual_machines.get(group, name).as_dict()
        kind = "Microsoft.Network/networkSecurityGroups"
        path = f"{lab.settings().group_id}/providers/{kind}"
        groups = lab.clients.arm.pages(path, "2024-05-01", f"{kind}/read")
        seen["rules"] = [
            rule["properties"] for item in groups for rule in item["properties"]["securityRules"]
        ]

    return watch


@pytest.mark.parametrize(
    ("image", "ports"),
    [
        ("", ["443", "80"]),
        pytest.param(ENGINE_IMAGE_ID, ["443"], marks=pytest.mark.slow),
    ],
)
def test_the_machine_has_no_identity_no_public_address_and_takes_no_orders(
    azure_lab: AzureLab, image: str, ports: list[str]
):
    cloud = azure_lab.azure_cloud("run-1", engine_image_id=image)
    seen: dict[str, Any] = {}
    watch = watch_machine(azure_lab, seen)
    assert cloud.run_engine(disk_of(cloud), job(), deadline_seconds=60, events=watch).ok
    machine = seen["machine"]
    assert "identity" not in machine
    properties = machine["properties"]
    linux = properties["osProfile"]["linuxConfiguration"]
    assert linux["disablePasswordAuthentication"] is True
    assert linux["provisionVMAgent"] is False
    assert properties["osProfile"]["allowExtensionOperations"] is False
    assert properties["storageProfile"]["dataDisks"][0]["deleteOption"] == "Detach"
    assert "publicIPAddress" not in str(properties)
    inbound = [rule for rule in seen["rules"] if rule["direction"] == "Inbound"]
    assert [rule["access"] for rule in inbound] == ["Deny"]
    allowed = [rule for rule in seen["rules"] if rule["access"] == "Allow"]
    # Package mirrors speak plain HTTP; an engine image of one's own needs no packages.
    assert [rule["destinationPortRanges"] for rule in allowed] == [ports]


@pytest.mark.slow
def test_a_second_job_on_the_same_disk_gets_a_machine_of_its_own(azure_lab: AzureLab):
    cloud = azure_lab.cloud("run-1")
    disk = disk_of(cloud)
    cloud.run_engine(disk, job(), deadline_seconds=60)
    report = cloud.run_engine(disk, job(action=Action.VERIFY), deadline_seconds=60)
    assert report.action is Action.VERIFY
    assert cloud.run_engine(disk, job(action=Action.VERIFY), deadline_seconds=60).ok
    assert only_disk_is_left(azure_lab, disk)


@pytest.mark.parametrize(
    ("mode", "in_log"),
    [
        ("crash", "no device today"),
        pytest.param("nonsense", "stand-in engine: nonsense", marks=pytest.mark.slow),
    ],
)
def test_an_engine_without_a_report_fails_with_its_log_and_leaves_nothing(
    azure_lab: AzureLab, mode: str, in_log: str
):
    cloud = azure_lab.cloud("run-1")
    disk = disk_of(cloud)
    with pytest.raises(EngineFailed) as caught:
        cloud.run_engine(disk, job(mode), deadline_seconds=60)
    assert in_log in caught.value.fields["log"]
    assert only_disk_is_left(azure_lab, disk)


def test_an_engine_that_hangs_is_ended_at_its_deadline(
    azure_lab: AzureLab, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine_setup, "GRACE_SECONDS", 1.0)
    cloud = azure_lab.cloud("run-1")
    disk = disk_of(cloud)
    with pytest.raises(EngineFailed, match=r"no report after 2 s|ended without a report"):
        cloud.run_engine(disk, job("hang"), deadline_seconds=2)
    assert only_disk_is_left(azure_lab, disk)
    assert not any(item["busy"] for item in azure_lab.service.machines())


@pytest.mark.slow
def test_a_cancelled_engine_run_leaves_nothing(azure_lab: AzureLab):
    cloud = azure_lab.cloud("run-1")
    disk = disk_of(cloud)
    seen: list[str] = []
    with pytest.raises(TransferCancelled):
        cloud.run_engine(
            disk,
            job("hang"),
            deadline_seconds=60,
            events=lambda event: seen.append(event.note),
            cancelled=lambda: any(note.startswith("engine runs on") for note in seen),
        )
    assert only_disk_is_left(azure_lab, disk)


def test_a_run_killed_after_the_launch_takes_up_its_machine(azure_lab: AzureLab):
    disk = disk_of(azure_lab.cloud("run-1"))
    before = started(azure_lab)
    killed_run(azure_lab, disk, "slow")
    assert azure_lab.cloud("run-1").run_engine(disk, job("slow"), deadline_seconds=60).ok
    assert len(started(azure_lab) - before) == 1
    assert only_disk_is_left(azure_lab, disk)


@pytest.mark.slow
def test_what_a_killed_engine_run_left_is_swept(azure_lab: AzureLab):
    cloud = azure_lab.cloud("run-1")
    disk = disk_of(cloud)
    killed_run(azure_lab, disk, "hang")
    kinds = {item.kind for item in cloud.list_ours(SITE)}
    assert kinds == {"instance", "security-group", "object", "disk", "snapshot"}
    swept = sweep(azure_lab.cloud("sweep"), azure_lab.state, SITE, in_days(0), run="run-1")
    assert disk.id in ids(swept)
    assert cloud.list_ours(SITE) == []
    assert list_blobs(azure_lab.account("look"), "imageport/") == []
    assert interfaces(azure_lab) == []
    assert azure_lab.state.ledger.open_entries() == []
    assert not any(item["busy"] for item in azure_lab.service.machines())


@pytest.mark.slow
def test_a_machine_that_ended_while_nobody_watched_has_left_its_report(azure_lab: AzureLab):
    disk = disk_of(azure_lab.cloud("run-1"))
    before = started(azure_lab)
    killed_run(azure_lab, disk, "work")
    (machine,) = [item for item in azure_lab.cloud("look").list_ours(SITE) if "Machines" in item.id]
    wait_until_stopped(azure_lab, machine.id)
    assert azure_lab.cloud("run-1").run_engine(disk, job("work"), deadline_seconds=60).ok
    assert len(started(azure_lab) - before) == 1
    assert only_disk_is_left(azure_lab, disk)


def wait_until_stopped(lab: AzureLab, machine_id: str) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        facts = describe_machine(lab.account("look"), machine_id)
        if facts is not None and facts.power == "stopped":
            return  # billed until it is deleted, which is why the sweep does
        time.sleep(0.2)
    pytest.fail("the machine did not shut down by itself")


@pytest.mark.parametrize(
    ("knobs", "error", "message"),
    [
        (
            {"missing_sizes": ["Standard_D2s_v5"]},
            (CloudRefused, CloudUnavailable),
            r"Standard_D2s_v5 is not to be had in germanywestcentral",
        ),
        pytest.param(
            {"quota_vcpus": 1},
            CloudRefused,
            r"Raise the quota of the subscription",
            marks=pytest.mark.slow,
        ),
        (
            {"denied": ["Microsoft.Compute/virtualMachines/write"]},
            PermissionMissing,
            r"lack Microsoft\.Compute/virtualMachines/write",
        ),
    ],
)
def test_a_machine_that_cannot_be_had_says_what_to_do_and_leaves_nothing(
    azure_lab: AzureLab, knobs: dict[str, Any], error: Any, message: str
):
    cloud = azure_lab.cloud("run-1")
    disk = disk_of(cloud)
    azure_lab.service.turn(**knobs)
    with pytest.raises(error, match=message):
        cloud.run_engine(disk, job(), deadline_seconds=60)
    azure_lab.service.turn(missing_sizes=[], quota_vcpus=100, denied=[])
    assert only_disk_is_left(azure_lab, disk)


def test_a_machine_whose_making_fails_at_azure_leaves_nothing(azure_lab: AzureLab):
    group = GroupOfRun(azure_lab.account("run-0"), "engine", "")
    group.make([])
    cloud = azure_lab.azure_cloud("run-1", engine_network_security_group_id=group.id)
    disk = disk_of(cloud)
    azure_lab.service.turn(failed_operations=1)
    with pytest.raises(CloudUnavailable, match="Cannot start 'imageport-engine-"):
        cloud.run_engine(disk, job(), deadline_seconds=60)
    group.remove()
    assert only_disk_is_left(azure_lab, disk)


@pytest.mark.slow
def test_a_group_whose_making_fails_once_is_made_again(azure_lab: AzureLab):
    cloud = azure_lab.cloud("run-1")
    disk = disk_of(cloud)
    azure_lab.service.turn(failed_operations=1)
    assert cloud.run_engine(disk, job(), deadline_seconds=60).ok
    assert only_disk_is_left(azure_lab, disk)


@pytest.mark.slow
def test_a_series_that_shows_its_disks_as_nvme_serves_for_both_machines(
    azure_lab: AzureLab, azure_guest: Any
):
    azure_guest("work")
    series = {"engine_vm_size": "Standard_D2s_v6", "boot_vm_size": "Standard_D2s_v6"}
    cloud = azure_lab.azure_cloud("run-1", **series)
    disk = disk_of(cloud)
    assert cloud.run_engine(disk, job(), deadline_seconds=60).ok
    assert cloud.boot_once(disk, deadline_seconds=60).stopped_by_itself
    assert only_disk_is_left(azure_lab, disk)


@pytest.mark.slow
def test_faults_and_throttling_of_the_control_path_are_waited_out(
    azure_lab: AzureLab, azure_guest: Any
):
    azure_guest("work")
    cloud = azure_lab.cloud("run-1")
    disk = disk_of(cloud)
    azure_lab.service.turn(fault_rate=0.1, control_rps=20)
    assert cloud.run_engine(disk, job("slow"), deadline_seconds=60).ok
    assert cloud.boot_once(disk, deadline_seconds=60).stopped_by_itself
    azure_lab.service.turn(fault_rate=0.0, control_rps=0.0)
    assert only_disk_is_left(azure_lab, disk)


def test_a_target_without_container_or_subnet_is_refused_before_anything_is_made(
    azure_lab: AzureLab,
):
    cloud = azure_lab.azure_cloud("run-1", job_container_url="", subnet_id="")
    with pytest.raises(InputError) as caught:
        cloud.run_engine(CloudDisk("/x", 1, GUID), job(), deadline_seconds=60)
    assert caught.value.fields["problems"] == [
        "job_container_url is missing", "subnet_id is missing",
    ]  # fmt: skip
    assert azure_lab.state.ledger.open_entries() == []


def test_no_signed_url_reaches_an_event_an_error_the_state_store_or_a_log(
    azure_lab: AzureLab, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    cloud = azure_lab.cloud("run-1")
    disk = disk_of(cloud)
    texts: list[str] = []
    told = texts.append
    for mode in ("work", "crash"):
        try:
            report = cloud.run_engine(
                disk, job(mode), deadline_seconds=60, events=lambda event: told(repr(event))
            )
            told(report.to_json())
        except ImageportError as error:
            told(f"{error!s} {error!r} {error.as_dict()}")
    told(repr(vars(cloud)) + repr(azure_lab.settings()))
    told(repr(azure_lab.state.ledger.open_entries()))
    told(caplog.text)
    everything = "\n".join(texts)
    assert "stand-in engine" in everything  # the log was looked at
    for secret in ("sig=", "skoid=", "Bearer ", "PRIVATE KEY"):
        assert secret not in everything


def test_a_url_of_a_job_does_one_thing_to_one_blob_for_the_time_of_the_job(azure_lab: AzureLab):
    folder = JobFolder(azure_lab.account("run-1"), "engine-job", "facts")
    read, write = folder.read_url("in", 600.0), folder.write_url("out", 600.0)
    folder.write("in", b"something")
    assert (fetch("GET", read), fetch("GET", write)) == (200, 403)
    assert fetch("GET", read.replace("/in?", "/out?")) == 403
    assert fetch("PUT", write, b"report") == 201
    assert folder.read("out") == b"report"
    assert fetch("PUT", read, b"report") == 403
    assert fetch("DELETE", write) == 403
    assert "sig=" not in repr(folder) + repr(vars(folder).get("_key"))
    folder.delete()
    assert folder.read("in") is None
    assert azure_lab.state.ledger.open_entries() == []


def fetch(method: str, url: str, body: bytes | None = None) -> int:
    import requests  # noqa: PLC0415 - not what the machine itself uses

    headers = {"x-ms-blob-type": "BlockBlob"} if body is not None else {}
    with requests.Session() as session:
        return session.request(method, url, data=body, headers=headers, timeout=10).status_code


def test_a_plan_that_is_printed_shows_no_custom_data():
    plan = MachinePlan("Standard_D2s_v5", "subnet", "group", {}, {"customData": "5ecre7"})
    assert "5ecre7" not in f"{plan!r}{plan}"


def test_the_custom_data_fits_into_what_azure_takes():
    text = engine_setup.user_data("https://account.blob/" + "x" * 3000, "0" * 64, 60)
    assert len(base64.b64encode(text.encode())) < 64 * 1024
