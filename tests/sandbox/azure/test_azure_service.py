"""The emulator as a process: killed, started again, asked by the tests themselves."""

from __future__ import annotations

import http.client
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError

from imageport.sandbox.azure.account import RESOURCE_GROUP, SUBSCRIPTION
from imageport.sandbox.azure.knobs import Knobs
from imageport.sandbox.azure.service import AzureService
from imageport.sandbox.processes import SERVICE_MARK, marked_processes

MIB = 1 << 20
PAGE = b"imageport" + bytes(512 - 9)
GUEST = """
import os, time
print(os.getpid(), flush=True)
time.sleep(613)
"""


def boot_body(azure: Any, disk: str) -> dict[str, Any]:
    managed = {"id": azure.disk_id(disk)}
    disk_entry = {"createOption": "Attach", "osType": "Windows", "managedDisk": managed}
    body: dict[str, Any] = azure.machine_body(azure.isolated(), {"osDisk": disk_entry})
    return body


def test_disks_snapshots_and_groups_outlive_a_kill_and_machines_do_not(own_azure: Any):
    azure = own_azure()
    disk = azure.disk({MIB: PAGE})
    snapshot = azure.snapshot(disk)
    group = azure.isolated()
    half = azure.make_disk("half")
    url = azure.grant(half)
    azure.upload(url, {MIB: PAGE})
    machine = azure.make_machine(boot_body(azure, disk))
    azure.service.kill()

    again = own_azure()
    assert again.service.endpoint == azure.service.endpoint
    assert again.state(disk) == "Unattached"
    shown = again.compute.snapshots.get(RESOURCE_GROUP, snapshot).as_dict()["properties"]
    assert (shown["provisioningState"], shown["completionPercent"]) == ("Succeeded", 100)
    assert again.ask("GET", group)[0] == 200
    assert list(again.compute.virtual_machines.list(RESOURCE_GROUP)) == []
    path = azure.disk_id(machine).replace("/disks/", "/virtualMachines/")
    assert again.ask("GET", path, version="2026-04-01")[0] == 404
    # Where the upload stood, it goes on: same URL, same pages.
    assert again.state(half) == "ActiveUpload"
    again.upload(url, {2 * MIB: PAGE})
    again.revoke(half)
    assert again.path(half).read_bytes()[MIB : MIB + 512] == PAGE
    assert again.path(half).read_bytes()[2 * MIB : 2 * MIB + 512] == PAGE


def test_a_guest_that_outlived_its_emulator_ends_when_the_next_one_starts(
    own_azure: Any, tmp_path: Path
):
    guest = tmp_path / "guest.py"
    guest.write_text(GUEST)
    azure = own_azure(boot_command=[sys.executable, str(guest)])
    disk = azure.disk({MIB: PAGE})
    name = azure.make_machine(boot_body(azure, disk))
    azure.until(lambda: azure.console(name).strip().isdigit())
    process = int(azure.console(name))
    azure.service.kill()
    assert process in marked_processes(azure.service._root, SERVICE_MARK)
    again = own_azure()
    assert process not in marked_processes(again.service._root, SERVICE_MARK)
    assert again.state(disk) == "Unattached"


def test_what_was_being_made_or_deleted_at_a_kill_is_settled_afterwards(own_azure: Any):
    azure = own_azure()
    keep, drop = azure.disk({MIB: PAGE}), azure.disk()
    azure.service.turn(state_seconds=60.0)
    body = azure.snapshot_body(azure.disk_id(keep))
    path = azure.snapshot_id("young")
    assert azure.ask("PUT", path, body, version="2026-03-02")[0] == 202
    assert azure.ask("DELETE", azure.disk_id(drop), version="2026-03-02")[0] == 202
    azure.until(lambda: len(list(azure.disks_folder.glob("*.json"))) == 3)
    azure.service.kill()

    again = own_azure()
    shown = again.compute.snapshots.get(RESOURCE_GROUP, "young").as_dict()["properties"]
    assert shown["provisioningState"] == "Succeeded"
    assert again.ask("GET", again.disk_id(drop), version="2026-03-02")[0] == 404
    copy = again.copy("young")
    assert again.path(copy).read_bytes()[MIB : MIB + 512] == PAGE


def test_an_operation_of_an_earlier_process_is_not_found(own_azure: Any):
    azure = own_azure()
    answer = azure.ask("PUT", azure.disk_id("d"), azure.disk_body(), version="2026-03-02")
    # A disk whose bytes are not there yet when the process ends is gone: that is another matter.
    azure.until(lambda: list(azure.disks_folder.glob("*.json")) != [])
    azure.service.stop()
    again = own_azure()
    status, document, _ = again.ask("GET", answer[2]["Azure-AsyncOperation"], version="")
    assert (status, document["error"]["code"]) == (404, "NotFound")
    assert again.state("d") == "ReadyToUpload"


def test_stopping_leaves_no_process(own_azure: Any):
    azure = own_azure()
    assert marked_processes(azure.service._root, SERVICE_MARK)
    azure.service.stop()
    azure.service.stop()
    assert not marked_processes(azure.service._root, SERVICE_MARK)


def test_ctrl_c_at_the_terminal_is_not_the_emulators_business(own_azure: Any):
    azure = own_azure()
    azure.service._child.kill(signal.SIGINT)
    assert azure.ask("GET", "/imageport/health", version="")[1] == "ok"


def test_knobs_that_do_not_exist_are_refused_by_name(azure: Any):
    with pytest.raises(ValueError, match="found gravity"):
        azure.service.turn(gravity=1)
    with pytest.raises(TypeError):
        AzureService(azure.service._root / "x", gravity=1)
    status, text, _ = azure.ask("POST", "/imageport/knobs", {"gravity": 1}, version="")
    assert (status, "gravity" in text) == (400, True)
    assert azure.ask("GET", "/imageport/nothing", version="")[0] == 404


def test_knobs_are_read_as_they_were_written():
    knobs = Knobs(denied=["Microsoft.Compute/disks/write"], quota_vcpus=4, sas_seconds=0.5)
    assert Knobs.from_json(knobs.to_json()) == knobs


def test_a_connection_is_kept_open_between_requests(azure: Any):
    host = azure.service.endpoint.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.request("GET", "/imageport/health")
    assert connection.getresponse().read() == b'"ok"'
    first = connection.sock
    assert first is not None
    connection.request("GET", "/subscriptions/x")
    assert connection.getresponse().read()
    assert connection.sock is first
    connection.close()


def test_an_access_that_ends_half_way_is_asked_for_again(azure: Any):
    azure.service.turn(sas_seconds=0.2)
    name = azure.make_disk()
    url = azure.grant(name)

    def is_over() -> bool:
        try:
            azure.upload(url, {})
        except HttpResponseError as error:
            return error.status_code == 403
        return False

    azure.until(is_over)
    azure.service.turn(sas_seconds=0.0)
    azure.upload(azure.grant(name), {0: PAGE})
    azure.revoke(name)
    assert azure.state(name) == "Unattached"


def test_a_region_that_the_subscription_does_not_have_is_refused(azure: Any):
    path = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/locations/mars/usages"
    assert azure.ask("GET", path, version="2026-04-01")[0] == 400
