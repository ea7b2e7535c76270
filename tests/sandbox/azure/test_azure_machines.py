"""Virtual machines run: their custom data, or the disk that they take."""

from __future__ import annotations

import base64
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from imageport.sandbox.azure.account import ENGINE_IMAGE_ID, RESOURCE_GROUP
from tests.sandbox.azure.conftest import DEBIAN, rule

MIB = 1 << 20
KEY = (
    Ed25519PrivateKey.generate()
    .public_key()
    .public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    .decode()
)
WRITER = """#!/usr/bin/python3
import os, subprocess, time
from pathlib import Path
device = Path(os.environ["IMAGEPORT_DEVICE_ROOT"], "dev/disk/azure/scsi1/lun0")
while not device.exists():
    time.sleep(0.05)
with device.open("r+b") as disk:
    disk.write(b"written by the machine")
print("done", flush=True)
subprocess.run(["shutdown", "-h", "now"], check=True)
time.sleep(600)
"""
SLEEPER = """#!/usr/bin/python3
import os, time
print("sleeper", os.getpid(), sorted(os.environ), "end", flush=True)
time.sleep(611)
"""
PLAYER = """
import json, sys
from pathlib import Path
disk, outcome = Path(sys.argv[1]), Path(sys.argv[2])
with disk.open("r+b") as file:
    order = file.read(16).strip(b"\\0").decode()
    file.seek(1024 * 1024)
    file.write(b"booted on " + sys.argv[4].encode())
print("firmware found", order, flush=True)
outcome.write_text(json.dumps({"outcome": order}))
"""


def engine_body(azure: Any, script: str, data_disks: Any = (), **storage: Any) -> dict[str, Any]:
    profile = {
        "imageReference": DEBIAN,
        "osDisk": {"createOption": "FromImage", "deleteOption": "Delete"},
        "dataDisks": list(data_disks),
    }
    system = {
        "computerName": "engine",
        "adminUsername": "imageport",
        "customData": base64.b64encode(script.encode()).decode(),
        "linuxConfiguration": {
            "disablePasswordAuthentication": True,
            "ssh": {
                "publicKeys": [{"path": "/home/imageport/.ssh/authorized_keys", "keyData": KEY}]
            },
        },
    }
    return azure.machine_body(azure.isolated(), profile | storage, osProfile=system)


def attach(azure: Any, disk: str, lun: int = 0, **more: Any) -> dict[str, Any]:
    managed = {"id": azure.disk_id(disk)}
    return {"lun": lun, "createOption": "Attach", "managedDisk": managed} | more


def booted(azure: Any, disk: str, **more: Any) -> dict[str, Any]:
    managed = {"id": azure.disk_id(disk)}
    return {
        "createOption": "Attach",
        "osType": "Windows",
        "deleteOption": "Detach",
        "managedDisk": managed,
    } | more


def start_of(azure: Any, disk: str) -> bytes:
    with azure.path(disk).open("rb") as file:
        return bytes(file.read(2 * MIB))


@pytest.fixture
def made(azure: Any) -> Iterator[Callable[..., str]]:
    """Make a machine that is gone when the test is."""
    names: list[str] = []

    def make(body: dict[str, Any]) -> str:
        names.append(azure.make_machine(body))
        return names[-1]

    yield make
    for name in names:
        azure.delete_machine(name)


def test_custom_data_runs_with_the_data_disk_and_ends_in_stopped(azure: Any, made: Any):
    disk = azure.system_disk()
    name = made(engine_body(azure, WRITER, [attach(azure, disk)]))
    azure.until(lambda: azure.power(name) == "stopped")
    # Stopped from inside is still allocated: the disk belongs to the machine.
    assert azure.state(disk) == "Attached"
    assert azure.console(name) == "done\n"
    azure.delete_machine(name)
    assert azure.state(disk) == "Unattached"
    assert start_of(azure, disk)[:22] == b"written by the machine"


def test_a_machine_knows_nothing_of_this_computers_environment(azure: Any, made: Any):
    name = made(engine_body(azure, SLEEPER, imageReference={"id": ENGINE_IMAGE_ID}))
    azure.until(lambda: "end" in azure.console(name))
    assert "IMAGEPORT_DEVICE_ROOT" in azure.console(name)
    assert "VIRTUAL_ENV" not in azure.console(name)
    assert azure.machine_facts(name)["kind"] == "ProgramMachine"


def test_deleting_ends_every_process_and_what_was_made_with_the_machine(azure: Any):
    name = azure.make_machine(engine_body(azure, SLEEPER))
    azure.until(lambda: "end" in azure.console(name))
    process = Path("/proc") / azure.console(name).split()[1]
    assert process.exists()
    shown = azure.compute.virtual_machines.get(RESOURCE_GROUP, name).as_dict()["properties"]
    own_disk = shown["storageProfile"]["osDisk"]["name"]
    nic = shown["networkProfile"]["networkInterfaces"][0]["id"]
    # The disk that comes with a machine gets the machine's tags.
    tags = azure.compute.disks.get(RESOURCE_GROUP, own_disk).as_dict()["tags"]
    assert tags == {"imageport:site": "lab"}
    assert azure.ask("GET", nic)[0] == 200
    azure.delete_machine(name)
    assert not process.exists()
    assert azure.ask("GET", nic)[0] == 404
    assert azure.ask("GET", azure.disk_id(own_disk), version="2026-03-02")[0] == 404


def test_what_is_not_to_be_deleted_with_a_machine_stays(azure: Any):
    body = engine_body(azure, SLEEPER, osDisk={"createOption": "FromImage"})
    configuration = body["properties"]["networkProfile"]["networkInterfaceConfigurations"][0]
    del configuration["properties"]["deleteOption"]
    name = azure.make_machine(body)
    shown = azure.compute.virtual_machines.get(RESOURCE_GROUP, name).as_dict()["properties"]
    nic = shown["networkProfile"]["networkInterfaces"][0]["id"]
    assert azure.ask("DELETE", nic)[1]["error"]["code"] == "NicInUse"
    azure.delete_machine(name)
    own_disk = shown["storageProfile"]["osDisk"]["name"]
    assert azure.state(own_disk) == "Unattached"
    assert nic in [item["id"] for item in azure.ask("GET", nic.rsplit("/", 1)[0])[1]["value"]]
    assert azure.ask("DELETE", nic)[0] == 202
    azure.compute.disks.begin_delete(RESOURCE_GROUP, own_disk).result()


@pytest.fixture
def boot(azure: Any, made: Any, tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Boot a disk as boot-once does, with a stand-in for the firmware; returns disk, machine."""
    player = tmp_path / "player.py"
    player.write_text(PLAYER)

    def start(order: str, rules: Any = None, **more: Any) -> tuple[str, str]:
        azure.service.turn(boot_command=[sys.executable, str(player)])
        disk = azure.system_disk()
        with azure.path(disk).open("r+b") as file:
            file.write(order.encode())
        group = azure.isolated() if rules is None else azure.group(rules)
        body = azure.machine_body(group, {"osDisk": booted(azure, disk)}, **more)
        return disk, made(body)

    return start


def test_a_guest_that_shuts_down_stops_its_machine(azure: Any, boot: Any):
    disk, name = boot("shutdown")
    azure.until(lambda: azure.power(name) == "stopped")
    assert azure.console(name) == "firmware found shutdown\n"
    assert start_of(azure, disk)[MIB : MIB + 15] == b"booted on azure"
    azure.compute.virtual_machines.begin_deallocate(RESOURCE_GROUP, name).result()
    assert azure.power(name) == "deallocated"
    assert azure.state(disk) == "Reserved"
    azure.delete_machine(name)
    assert azure.state(disk) == "Unattached"


def test_a_guest_that_crashes_keeps_its_machine_running(azure: Any, boot: Any):
    _, name = boot("bugcheck")
    azure.until(lambda: "bugcheck" in azure.console(name))
    assert azure.power(name) == "running"
    azure.compute.virtual_machines.begin_power_off(
        RESOURCE_GROUP, name, skip_shutdown=True
    ).result()
    assert azure.power(name) == "stopped"


def test_a_machine_is_started_again_and_boots_again(azure: Any, boot: Any):
    disk, name = boot("shutdown")
    azure.until(lambda: azure.power(name) == "stopped")
    with azure.path(disk).open("r+b") as file:
        file.seek(MIB)
        file.write(bytes(15))
    azure.compute.virtual_machines.begin_start(RESOURCE_GROUP, name).result()
    azure.until(lambda: start_of(azure, disk)[MIB : MIB + 6] == b"booted")
    azure.until(lambda: azure.power(name) == "stopped")


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ([], "lets traffic out to everywhere"),
        ([rule("in", 4096, "Inbound", "Deny"), rule("out", 4096, "Outbound", "Deny")], "Platform"),
    ],
)
def test_a_guest_that_would_not_be_alone_is_not_started(
    azure: Any, boot: Any, rules: Any, problem: str
):
    disk, name = boot("shutdown", rules)
    azure.until(lambda: bool(azure.console(name)))
    assert "guest not started" in azure.console(name)
    found = [item for item in azure.service.violations() if item["machine"].startswith(name)]
    assert any(problem in text for text in found[0]["problems"])
    assert azure.power(name) == "running"
    assert start_of(azure, disk)[MIB : MIB + 6] == bytes(6)


def test_an_empty_disk_boots_nothing(azure: Any, made: Any):
    name = made(
        azure.machine_body(azure.isolated(), {"osDisk": booted(azure, azure.system_disk())})
    )
    assert azure.machine_facts(name)["kind"] == "IdleMachine"


def test_the_instance_view_follows_the_machine(azure: Any):
    body = azure.machine_body(azure.isolated(), {"osDisk": booted(azure, azure.system_disk())})
    azure.service.turn(state_seconds=1.0)
    machines = azure.compute.virtual_machines
    poller = machines.begin_create_or_update(RESOURCE_GROUP, "viewed", body)
    view = machines.get(RESOURCE_GROUP, "viewed", expand="instanceView").as_dict()["properties"]
    assert view["provisioningState"] == "Creating"
    assert view["instanceView"]["statuses"][0]["code"] == "ProvisioningState/creating"
    assert azure.power("viewed") == ""
    poller.result()
    assert azure.power("viewed") == "running"
    view = machines.instance_view(RESOURCE_GROUP, "viewed").as_dict()
    assert view["hyperVGeneration"] == "V2"
    stopping = machines.begin_deallocate(RESOURCE_GROUP, "viewed")
    assert azure.power("viewed") == "deallocating"
    stopping.result()
    starting = machines.begin_start(RESOURCE_GROUP, "viewed")
    assert azure.power("viewed") == "starting"
    starting.result()
    azure.service.turn(state_seconds=0.1)
    azure.delete_machine("viewed")


def test_a_machine_never_shows_what_it_was_given_in_secret(azure: Any, made: Any):
    name = made(engine_body(azure, SLEEPER))
    shown = azure.compute.virtual_machines.get(RESOURCE_GROUP, name).as_dict()
    assert "customData" not in str(shown)
    assert "611" not in str(shown)
    assert [item.name for item in azure.compute.virtual_machines.list(RESOURCE_GROUP)] == [name]


def test_a_newer_operation_preempts_an_older_one(azure: Any):
    body = azure.machine_body(azure.isolated(), {"osDisk": booted(azure, azure.system_disk())})
    azure.service.turn(state_seconds=1.0)
    machines = azure.compute.virtual_machines
    poller = machines.begin_create_or_update(RESOURCE_GROUP, "short", body)
    machines.begin_delete(RESOURCE_GROUP, "short").result()
    with pytest.raises(HttpResponseError) as caught:
        poller.result()
    assert caught.value.error is not None
    assert caught.value.error.code == "OperationPreempted"


def test_a_creation_that_fails_leaves_a_machine_without_power(azure: Any, refused: Any):
    body = azure.machine_body(azure.isolated(), {"osDisk": booted(azure, azure.system_disk())})
    azure.service.turn(failed_operations=1)
    call = azure.compute.virtual_machines.begin_create_or_update
    assert refused(call, RESOURCE_GROUP, "wreck", body)[0] == "InternalExecutionError"
    view = azure.compute.virtual_machines.instance_view(RESOURCE_GROUP, "wreck").as_dict()
    assert view["statuses"][0]["code"] == "ProvisioningState/failed/InternalExecutionError"
    assert azure.power("wreck") == ""
    azure.delete_machine("wreck")


def test_a_machine_that_finds_no_room_says_so_when_it_starts(azure: Any, refused: Any):
    body = azure.machine_body(azure.isolated(), {"osDisk": booted(azure, azure.system_disk())})
    azure.service.turn(no_capacity=1)
    call = azure.compute.virtual_machines.begin_create_or_update
    assert refused(call, RESOURCE_GROUP, "roomless", body)[0] == "AllocationFailed"
    view = azure.compute.virtual_machines.instance_view(RESOURCE_GROUP, "roomless").as_dict()
    assert view["statuses"][0]["code"] == "ProvisioningState/failed/AllocationFailed"
    assert "sufficient capacity" in view["statuses"][0]["message"]
    azure.delete_machine("roomless")


def test_a_put_again_while_the_machine_is_made_changes_nothing(azure: Any):
    disk = azure.system_disk()
    body = engine_body(azure, SLEEPER, [attach(azure, disk)])
    azure.service.turn(state_seconds=0.4)
    machines = azure.compute.virtual_machines
    first = machines.begin_create_or_update(RESOURCE_GROUP, "twice", body)
    second = machines.begin_create_or_update(RESOURCE_GROUP, "twice", body)
    assert (
        second.result().as_dict()["properties"]["vmId"]
        == (first.result().as_dict()["properties"]["vmId"])
    )
    azure.service.turn(state_seconds=0.03)
    assert azure.power("twice") == "running"
    azure.delete_machine("twice")


def test_data_disks_come_and_go_while_a_machine_runs(azure: Any, made: Any, refused: Any):
    name = made(engine_body(azure, SLEEPER))
    first, second = azure.system_disk(), azure.system_disk()
    update = azure.compute.virtual_machines.begin_update

    def change(*disks: dict[str, Any]) -> Any:
        profile = {"storageProfile": {"dataDisks": list(disks)}}
        return update(RESOURCE_GROUP, name, {"properties": profile})

    change(attach(azure, first), attach(azure, second, 1)).result()
    devices = azure.service._root / "machines" / azure.machine_facts(name)["id"]
    folder = devices / "devices/dev/disk/azure/scsi1"
    assert sorted(item.name for item in folder.iterdir()) == ["lun0", "lun1"]
    assert (folder / "lun0").resolve() == azure.path(first)
    assert refused(azure.grant, first, "Read")[0] == "Conflict"
    delete = azure.compute.disks.begin_delete
    code, message, status = refused(delete, RESOURCE_GROUP, first)
    assert (code, status) == ("OperationNotAllowed", 409)
    assert "is attached to VM" in message
    assert azure.snapshot(first)  # of a disk in use, too
    assert refused(change, attach(azure, first, 1), attach(azure, second, 1))[2] == 409
    moved = refused(change, attach(azure, first, 5), attach(azure, second, 1))
    assert moved[0] == "PropertyChangeNotAllowed"
    change(attach(azure, second, 1), attach(azure, first, toBeDetached=True)).result()
    assert azure.state(first) == "Unattached"
    assert [item.name for item in folder.iterdir()] == ["lun1"]


def test_the_same_put_again_is_the_same_machine(azure: Any, made: Any, refused: Any):
    body = engine_body(azure, SLEEPER)
    name = made(body)
    machines = azure.compute.virtual_machines
    before = machines.get(RESOURCE_GROUP, name).as_dict()["properties"]["vmId"]
    azure.make_machine(body, name)
    assert machines.get(RESOURCE_GROUP, name).as_dict()["properties"]["vmId"] == before
    for given, code in (
        (base64.b64encode(b"other").decode(), "PropertyChangeNotAllowed"),
        ("not base64!", "InvalidParameter"),
    ):
        body["properties"]["osProfile"]["customData"] = given
        found = refused(machines.begin_create_or_update, RESOURCE_GROUP, name, body)
        assert found[0] == code
        assert "customData" in found[1]


def test_console_and_screenshot_are_behind_signed_addresses(azure: Any, boot: Any, refused: Any):
    _, name = boot("bugcheck")
    machines = azure.compute.virtual_machines
    found = machines.retrieve_boot_diagnostics_data(RESOURCE_GROUP, name)
    url = str(found.console_screenshot_blob_uri)
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - loopback
        assert answer.read(2) == b"BM"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url[:-4] + "0000", timeout=30)  # noqa: S310 - loopback
    caught.value.close()
    assert caught.value.code == 403
    call = machines.retrieve_boot_diagnostics_data
    assert refused(call, RESOURCE_GROUP, name, sas_uri_expiration_time_in_minutes=1441)[2] == 400


def test_without_boot_diagnostics_there_is_no_console(azure: Any, boot: Any, refused: Any):
    _, name = boot("bugcheck", diagnosticsProfile={"bootDiagnostics": {"enabled": False}})
    call = azure.compute.virtual_machines.retrieve_boot_diagnostics_data
    assert refused(call, RESOURCE_GROUP, name)[0] == "OperationNotAllowed"


def test_a_size_with_nvme_only_boots_on_hardware_of_its_own(azure: Any, made: Any, tmp_path: Path):
    player = tmp_path / "player.py"
    player.write_text(PLAYER)
    azure.service.turn(boot_command=[sys.executable, str(player)])
    capabilities = {"diskControllerTypes": "SCSI, NVMe"}
    disk = azure.system_disk(supportedCapabilities=capabilities)
    with azure.path(disk).open("r+b") as file:
        file.write(b"shutdown")
    body = azure.machine_body(azure.isolated(), {"osDisk": booted(azure, disk)})
    body["properties"]["hardwareProfile"]["vmSize"] = "Standard_D2s_v6"
    name = made(body)
    azure.until(lambda: azure.power(name) == "stopped")
    assert start_of(azure, disk)[MIB : MIB + 20] == b"booted on azure-nvme"
