"""Launched machines run: their user data, or the disk that they boot."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

BLOCK = 512 * 1024

WRITER = """#!/usr/bin/python3
import os, subprocess, time
from pathlib import Path
folder = Path(os.environ["IMAGEPORT_DEVICE_ROOT"], "dev/disk/by-id")
device = folder / "nvme-Amazon_Elastic_Block_Store_{serial}"
print("waits in", os.getcwd(), flush=True)
while not device.exists():
    time.sleep(0.05)
with device.open("r+b") as disk:
    disk.write(b"written by the machine")
print("done", flush=True)
subprocess.run(["shutdown", "-h", "now"], check=True)
time.sleep(600)
"""
SLEEPER = """#!/usr/bin/python3
import subprocess, time
child = subprocess.Popen(["sleep", "611"], start_new_session=True)
print("sleeper", child.pid, flush=True)
time.sleep(611)
"""
PLAYER = """
import json, sys
from pathlib import Path
disk, outcome = Path(sys.argv[1]), Path(sys.argv[2])
with disk.open("r+b") as file:
    order = file.read(16).strip(b"\\0").decode()
    file.seek(512 * 1024)
    file.write(b"booted")
print("firmware found", order, flush=True)
outcome.write_text(json.dumps({"outcome": order}))
"""


def engine(network: Any, script: str, **chosen: Any):
    group_id = network.group(f"engine-{uuid.uuid4().hex}", isolated=False)
    return network.run(network.debian(), group_id, UserData=script, **chosen)


def serial_of(volume_id: str):
    return volume_id.replace("-", "")


def test_user_data_runs_with_the_attached_volume_and_ends_the_machine(account: Any, network: Any):
    volume_id = account.volume()
    instance_id = engine(
        network,
        WRITER.format(serial=serial_of(volume_id)),
        InstanceInitiatedShutdownBehavior="terminate",
    )
    account.until_state(instance_id, "running")
    account.attach(volume_id, instance_id)
    ended = account.until_state(instance_id, "terminated")
    assert ended["StateReason"] == {
        "Code": "Client.InstanceInitiatedShutdown",
        "Message": "Client.InstanceInitiatedShutdown: Instance initiated shutdown",
    }
    assert account.console(instance_id).endswith("done\n")
    assert account.volume_state(volume_id) == "available"
    disk = account.service._root / "volumes" / f"{volume_id}.raw"
    assert disk.read_bytes()[:22] == b"written by the machine"
    assert instance_id not in [item["id"] for item in account.service.machines() if item["busy"]]


def is_alive(process: Path):
    """Tell whether a process runs: one that nobody has asked about yet is a zombie, state Z."""
    try:
        return (process / "stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def test_a_shutdown_only_stops_a_machine_that_is_to_stop(account: Any, network: Any):
    script = "#!/usr/bin/python3\nimport os\nos.system('shutdown -h now')\n"
    instance_id = engine(network, script, InstanceInitiatedShutdownBehavior="stop")
    stopped = account.until_state(instance_id, "stopped")
    assert stopped["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    account.ec2.terminate_instances(InstanceIds=[instance_id])


def test_termination_ends_every_process_of_a_machine(account: Any, network: Any):
    instance_id = engine(network, SLEEPER)
    account.until(lambda: "sleeper" in account.console(instance_id))
    child = Path("/proc") / account.console(instance_id).split()[-1]
    assert is_alive(child)
    account.ec2.terminate_instances(InstanceIds=[instance_id])
    account.until_state(instance_id, "terminated")
    assert not is_alive(child)


def test_a_machine_knows_nothing_of_this_computers_environment(account: Any, network: Any):
    script = "#!/usr/bin/python3\nimport os\nprint(sorted(os.environ), 'end', flush=True)\n"
    instance_id = engine(network, script)
    account.until(lambda: "end" in account.console(instance_id))
    assert "AWS_" not in account.console(instance_id)
    assert account.instance(instance_id)["State"]["Name"] == "running"
    account.ec2.terminate_instances(InstanceIds=[instance_id])


def test_a_machine_installs_nothing_on_this_computer(account: Any, network: Any):
    script = (
        "#!/usr/bin/python3\nimport subprocess\n"
        "done = subprocess.run(['apt-get', 'install', '-y', 'sl'], check=False)\n"
        "print('ended with', done.returncode, flush=True)\n"
    )
    instance_id = engine(network, script)
    account.until(lambda: "ended with" in account.console(instance_id))
    assert "ended with 100" in account.console(instance_id)
    account.ec2.terminate_instances(InstanceIds=[instance_id])


def test_the_same_client_token_launches_one_machine(account: Any, network: Any, refused: Any):
    group_id = network.group("tokens", isolated=True)
    request = {"ClientToken": uuid.uuid4().hex, "UserData": "#!/usr/bin/python3\n"}
    first = network.run(network.debian(), group_id, **request)
    assert network.run(network.debian(), group_id, **request) == first
    changed = request | {"UserData": "#!/usr/bin/python3\n\n"}
    found = refused(network.run, network.debian(), group_id, **changed)
    assert found["code"] == "IdempotentParameterMismatch"
    account.ec2.terminate_instances(InstanceIds=[first])


def test_user_data_beyond_16_kib_is_refused(network: Any, refused: Any):
    group_id = network.group("large", isolated=True)
    found = refused(network.run, network.debian(), group_id, UserData="#" * 16385)
    assert found["code"] == "InvalidParameterValue"


@pytest.fixture
def boot(account: Any, network: Any, tmp_path: Path):
    """Return a function that boots a disk as boot-once does, with a stand-in for the firmware."""
    player = tmp_path / "player.py"
    player.write_text(PLAYER)
    launched = []

    def start(order: str, *, isolated: bool = True) -> str:
        account.service.turn(boot_command=[sys.executable, str(player)])
        snapshot_id = account.snapshot({0: order.encode().ljust(BLOCK, b"\0")})
        volume_id = account.volume(SnapshotId=snapshot_id)
        group_id = network.group(f"boot-{uuid.uuid4().hex}", isolated=isolated)
        instance_id = network.run(
            network.stub(f"stub-{uuid.uuid4().hex}"),
            group_id,
            InstanceInitiatedShutdownBehavior="stop",
        )
        launched.append(instance_id)
        account.until_state(instance_id, "running")
        root_id = account.instance(instance_id)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
        account.ec2.stop_instances(InstanceIds=[instance_id], Force=True)
        account.until_state(instance_id, "stopped")
        account.detach(root_id)
        account.attach(volume_id, instance_id, "/dev/sda1")
        account.ec2.start_instances(InstanceIds=[instance_id])
        return instance_id

    yield start
    account.ec2.terminate_instances(InstanceIds=launched)


def root_disk(account: Any, instance_id: str):
    mapping = account.instance(instance_id)["BlockDeviceMappings"][0]
    return account.service._root / "volumes" / f"{mapping['Ebs']['VolumeId']}.raw"


def test_a_guest_that_shuts_down_stops_its_machine(account: Any, boot: Any):
    instance_id = boot("shutdown")
    account.until(
        lambda: (
            account.instance(instance_id)["StateReason"].get("Code")
            == "Client.InstanceInitiatedShutdown"
        )
    )
    account.until_state(instance_id, "stopped")
    assert account.console(instance_id) == "firmware found shutdown\n"
    assert root_disk(account, instance_id).read_bytes()[BLOCK : BLOCK + 6] == b"booted"


def test_a_guest_that_crashes_keeps_its_machine_running(account: Any, boot: Any, refused: Any):
    instance_id = boot("bugcheck")
    account.until(lambda: "bugcheck" in account.console(instance_id))
    assert account.instance(instance_id)["State"]["Name"] == "running"
    screenshot = account.ec2.get_console_screenshot(InstanceId=instance_id)["ImageData"]
    assert screenshot.startswith("/9j/")
    account.ec2.stop_instances(InstanceIds=[instance_id], Force=True)
    stopped = account.until_state(instance_id, "stopped")
    assert stopped["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    found = refused(account.ec2.get_console_screenshot, InstanceId=instance_id)
    assert found["code"] == "IncorrectInstanceState"


def test_a_guest_that_could_reach_the_network_is_not_started(account: Any, boot: Any):
    instance_id = boot("shutdown", isolated=False)
    account.until(lambda: bool(account.console(instance_id)))
    assert "guest not started: group sg-" in account.console(instance_id)
    found = [item for item in account.service.violations() if item["machine"] == instance_id]
    assert "lets traffic out to everywhere" in found[0]["problems"][0]
    assert account.instance(instance_id)["State"]["Name"] == "running"
    assert root_disk(account, instance_id).read_bytes()[BLOCK : BLOCK + 6] == bytes(6)


def test_an_empty_root_boots_nothing(account: Any, network: Any):
    group_id = network.group("empty", isolated=True)
    instance_id = network.run(network.stub(f"stub-{uuid.uuid4().hex}"), group_id)
    account.until_state(instance_id, "running")
    kinds = {item["id"]: item["kind"] for item in account.service.machines()}
    assert kinds[instance_id] == "IdleMachine"
    account.ec2.terminate_instances(InstanceIds=[instance_id])
