"""Machines of the emulated Compute Engine: what they run, how they end."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imageport.sandbox.gcp import gce_machine_checks
from imageport.sandbox.gcp.account import PROJECT, ZONE
from tests.sandbox.gcp.gce_lab import GceLab, console, refused, until

PROGRAM = """#!/usr/bin/python3
import os, subprocess
device = os.environ["IMAGEPORT_DEVICE_ROOT"] + "/dev/disk/by-id/google-work"
with open(device, "rb") as disk:
    print("machine sees", disk.read(6), flush=True)
{end}
"""
OFF = "subprocess.run(['shutdown', '-h', 'now'])"
GUEST = """
import json, sys, time
from pathlib import Path
print("guest on", sys.argv[4], open(sys.argv[1], "rb").read(6), flush=True)
if {mode!r} == "hang":
    time.sleep(600)
Path(sys.argv[2]).write_text(json.dumps({{"outcome": "shutdown"}}))
"""


def with_script(lab: GceLab, end: str, **facts: Any) -> str:
    """Make an engine machine with a disk to read and a program to run."""
    items = [{"key": "startup-script", "value": PROGRAM.format(end=end)}]
    work = {"source": lab.disk(), "device_name": "work", "mode": "READ_ONLY"}
    disks = [lab.machine_body()["disks"][0], work]
    return lab.machine(disks=disks, metadata={"items": items}, **facts)


def operations_on(lab: GceLab, machine: str) -> list[str]:
    number = lab.ask("Instances", "get", instance=machine).id
    request = {"project": PROJECT, "zone": ZONE, "filter": f"targetId = {number}"}
    return [item.operation_type for item in lab.client("ZoneOperations").list(request)]


@pytest.fixture
def guest(gce: GceLab, tmp_path: Path) -> Callable[[str], None]:
    """Choose what the guest does."""

    def choose(mode: str) -> None:
        program = tmp_path / "guest.py"
        program.write_text(GUEST.format(mode=mode))
        gce.knobs.boot_command = [sys.executable, str(program)]

    return choose


def test_an_engine_machine_runs_its_startup_script_and_ends_itself(gce: GceLab):
    machine = with_script(gce, OFF)
    found = gce.ask("Instances", "get", instance=machine)
    assert [item.device_name for item in found.disks] == ["persistent-disk-0", "work"]
    assert [item.mode for item in found.disks] == ["READ_WRITE", "READ_ONLY"]
    assert found.network_interfaces[0].network_i_p.startswith("10.30.0.")
    until(lambda: gce.status(machine) == "TERMINATED")
    assert "machine sees b'a disk'" in console(gce, machine).contents
    assert sorted(operations_on(gce, machine)) == ["compute.instances.guestTerminate", "insert"]
    own = found.disks[0].source.rsplit("/", 1)[-1]
    gce.made("Instances", "delete", instance=machine)
    with refused(404, "notFound"):
        gce.ask("Disks", "get", disk=own)  # it was to go with its machine
    for ask in ("get", "delete", "stop"):
        with refused(404, "notFound", f"instances/{machine}"):
            gce.ask("Instances", ask, instance=machine)


def test_the_serial_port_is_read_from_any_byte(gce: GceLab):
    machine = with_script(gce, OFF)
    until(lambda: gce.status(machine) == "TERMINATED")
    whole = console(gce, machine)
    assert (whole.start, whole.next_) == (0, len(whole.contents))
    assert console(gce, machine, start=8).contents == whole.contents[8:]
    assert console(gce, machine, start=-4).contents == whole.contents[-4:]
    assert console(gce, machine, start=whole.next_).contents == ""
    assert console(gce, machine, port=2).contents == ""
    with refused(400, "invalid"):
        console(gce, machine, port=5)


def test_a_screenshot_needs_a_display_and_a_running_machine(gce: GceLab):
    plain, shown = gce.machine(), gce.machine(display_device={"enable_display": True})
    with refused(400, "invalid", "display"):
        gce.ask("Instances", "get_screenshot", instance=plain)
    picture = base64.b64decode(gce.ask("Instances", "get_screenshot", instance=shown).contents)
    assert picture.startswith(b"\xff\xd8")
    gce.made("Instances", "stop", instance=shown)
    with refused(400, "resourceNotReady"):
        gce.ask("Instances", "get_screenshot", instance=shown)


@pytest.mark.parametrize(
    ("kind", "platform"), [("n2-standard-2", "gcp"), ("c3-standard-4", "gcp-nvme")]
)
def test_an_isolated_guest_boots_and_its_shutdown_ends_the_machine(
    gce: GceLab, isolated: str, guest: Callable[[str], None], kind: str, platform: str
):
    guest("work")
    disk = gce.disk(type_=f"zones/{ZONE}/diskTypes/pd-balanced")
    machine = gce.machine(
        disk, tags={"items": [isolated]}, machine_type=f"zones/{ZONE}/machineTypes/{kind}"
    )
    until(lambda: gce.status(machine) == "TERMINATED")
    assert f"guest on {platform} b'a disk'" in console(gce, machine).contents
    gce.made("Instances", "start", instance=machine)
    until(lambda: gce.status(machine) == "TERMINATED")
    ended = operations_on(gce, machine)
    assert ended.count("compute.instances.guestTerminate") == 2
    gce.made("Instances", "delete", instance=machine)
    assert list(gce.ask("Disks", "get", disk=disk.rsplit("/", 1)[-1]).users) == []


def test_a_guest_that_is_not_isolated_is_never_started(gce: GceLab, guest: Callable[[str], None]):
    guest("work")
    machine = gce.machine(gce.disk())
    until(lambda: "guest not started" in console(gce, machine).contents)
    said = [item for item in gce.gcs.emulator.hypervisor.violations() if machine in str(item)]
    assert "lets traffic out to everywhere" in str(said)
    assert gce.status(machine) == "RUNNING"
    gce.made("Instances", "delete", instance=machine)


def test_a_windows_disk_runs_no_startup_script(
    gce: GceLab, isolated: str, guest: Callable[[str], None]
):
    guest("work")
    items = [{"key": "startup-script", "value": PROGRAM.format(end=OFF)}]
    machine = gce.machine(gce.disk(), tags={"items": [isolated]}, metadata={"items": items})
    until(lambda: gce.status(machine) == "TERMINATED")
    assert "guest on" in console(gce, machine).contents


def test_a_running_guest_is_stopped_reset_and_started(
    gce: GceLab, isolated: str, guest: Callable[[str], None]
):
    guest("hang")
    machine = gce.machine(gce.disk(), tags={"items": [isolated]})
    until(lambda: "guest on" in console(gce, machine).contents)
    gce.made("Instances", "reset", instance=machine)
    until(lambda: "guest on" in console(gce, machine).contents)
    assert gce.status(machine) == "RUNNING"
    for _again in range(2):
        gce.made("Instances", "stop", instance=machine)
        assert gce.status(machine) == "TERMINATED"
    with refused(400, "resourceNotReady"):
        gce.ask("Instances", "reset", instance=machine)
    for _again in range(2):
        gce.made("Instances", "start", instance=machine)
        assert gce.status(machine) == "RUNNING"
    gce.made("Instances", "delete", instance=machine)


@pytest.mark.parametrize("action", ["STOP", "DELETE"])
def test_a_machine_whose_time_is_over_is_ended(
    gce: GceLab, monkeypatch: pytest.MonkeyPatch, action: str
):
    monkeypatch.setattr(gce_machine_checks, "RUN_SECONDS", (1, 10))
    limit = {"max_run_duration": {"seconds": 1}, "instance_termination_action": action}
    machine = gce.machine(scheduling=limit)
    if action == "STOP":
        until(lambda: gce.status(machine) == "TERMINATED")
        assert "compute.instances.scheduledStop" in operations_on(gce, machine)
        return
    path = f"/compute/v1/projects/{PROJECT}/zones/{ZONE}/instances/{machine}"
    until(lambda: gce.gcs.ask("GET", path).status == 404)


def test_a_boot_disk_is_swapped_on_a_machine_that_is_off(gce: GceLab):
    machine = gce.machine()
    mine = gce.disk()
    boot = {"source": mine, "boot": True, "device_name": "mine"}
    detach = {"instance": machine, "device_name": "persistent-disk-0"}
    with refused(400, "invalid", "not stopped"):
        gce.ask("Instances", "detach_disk", **detach)
    gce.made("Instances", "stop", instance=machine)
    with refused(400, "invalid", "has a boot disk"):
        gce.ask("Instances", "attach_disk", instance=machine, attached_disk_resource=boot)
    gce.made("Instances", "detach_disk", **detach)
    with refused(400, "invalid", "no boot disk"):
        gce.ask("Instances", "start", instance=machine)
    gce.made("Instances", "attach_disk", instance=machine, attached_disk_resource=boot)
    [disk] = gce.ask("Instances", "get", instance=machine).disks
    assert (disk.boot, disk.device_name, disk.source.endswith(mine)) == (True, "mine", True)
    with refused(400, "invalid", "No attached disk found"):
        gce.ask("Instances", "detach_disk", **detach)


def test_a_disk_comes_and_goes_while_the_machine_runs(gce: GceLab):
    wait = "import time\nwhile not os.path.exists(device.replace('work', 'late')): time.sleep(0.05)"
    machine = with_script(gce, f"{wait}\nprint('late one', flush=True)\n{OFF}")
    late = gce.disk()
    body = {"source": late, "device_name": "late"}
    gce.made("Instances", "attach_disk", instance=machine, attached_disk_resource=body)
    until(lambda: gce.status(machine) == "TERMINATED")
    assert "late one" in console(gce, machine).contents
    gce.made("Instances", "detach_disk", instance=machine, device_name="late")
    assert list(gce.ask("Disks", "get", disk=late.rsplit("/", 1)[-1]).users) == []


def test_tags_metadata_and_labels_need_the_newest_fingerprint(gce: GceLab):
    machine = gce.machine(tags={"items": ["a"]}, labels={"x": "1"})
    found = gce.ask("Instances", "get", instance=machine)
    changes: dict[str, tuple[str, dict[str, Any]]] = {
        "set_tags": ("tags_resource", {"items": ["b"], "fingerprint": found.tags.fingerprint}),
        "set_metadata": ("metadata_resource", {
            "items": [{"key": "k", "value": "v"}], "fingerprint": found.metadata.fingerprint,
        }),
        "set_labels": ("instances_set_labels_request_resource", {
            "labels": {"x": "2"}, "label_fingerprint": found.label_fingerprint,
        }),
    }  # fmt: skip
    for method, (member, body) in changes.items():
        gce.made("Instances", method, instance=machine, **{member: body})
        with refused(412, "conditionNotMet"):
            gce.ask("Instances", method, instance=machine, **{member: body})
    found = gce.ask("Instances", "get", instance=machine)
    assert (list(found.tags.items), found.metadata.items[0].key) == (["b"], "k")
    assert found.labels == {"x": "2"}
