"""Machines of EC2: what only real ones can show. About 0.10 USD together."""

from __future__ import annotations

import pytest

from imageport.clouds import engine_setup
from imageport.clouds.aws.engine_image import find_engine_image
from imageport.clouds.aws.network import engine_group, isolated_group
from imageport.compose.contract import Action, EngineDisk, EngineJob, EngineOptions
from tests.clouds.cloud_contract import BLOCKS, block, uploaded
from tests.clouds.stand_in_engine import build_stand_in
from tests.real.conftest import Observed
from tests.real.probes import probes
from tests.real.real_aws import RealAws

RESOLVER = """#!/bin/bash
resolved=no; getent hosts aws.amazon.com > /dev/null && resolved=yes
timed=$(python3 - <<'P'
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)
try:
    s.sendto(b"\\x1b" + 47 * b"\\0", ("169.254.169.123", 123)); s.recv(48); print("yes")
except OSError:
    print("no")
P
)
outside=no; timeout 5 bash -c '</dev/tcp/1.1.1.1/443' 2>/dev/null && outside=yes
echo "isolated: names $resolved, time $timed, outside $outside" > /dev/console
sleep 3600
"""
COM1 = """<powershell>
$port = New-Object System.IO.Ports.SerialPort COM1, 115200
$port.Open(); 1..20 | % { $port.WriteLine("imageport-com1 $_"); Start-Sleep 5 }; $port.Close()
</powershell>
"""


@probes("aws-stub-root")
def test_an_empty_root_runs_and_gives_way_to_another(aws: RealAws, observed: Observed):
    cloud = aws.cloud()
    disk = cloud.make_disk(uploaded(cloud, {0: block(0)}), "")
    outcome = cloud.boot_once(disk, deadline_seconds=120)
    observed(f"after {outcome.seconds:.0f} s: {outcome.reason}")
    # The volume holds nothing that could boot, so being switched on is all that can be seen.
    assert not outcome.stopped_by_itself
    assert "still running" in outcome.reason


@probes("aws-device-link")
def test_the_engine_s_machine_finds_its_disk(
    aws: RealAws, observed: Observed, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine_setup, "build_engine", build_stand_in)
    cloud = aws.cloud()
    disk = cloud.make_disk(uploaded(cloud, BLOCKS), "")
    job = EngineJob(
        action=Action.COMPOSE,
        disk=EngineDisk(path="", disk_guid=""),
        options=EngineOptions(recommended=("work",)),
    )
    report = cloud.run_engine(disk, job, deadline_seconds=900)
    observed(f"first bytes {report.first_boot['first_bytes']}")
    assert report.first_boot["first_bytes"] == BLOCKS[0][:16].hex()


@probes("aws-isolated-resolver")
def test_what_a_machine_in_the_isolated_group_reaches(aws: RealAws, observed: Observed):
    account = aws.account()
    image = find_engine_image(account).id
    with aws.machine(RESOLVER, isolated_group(account), image) as instance_id:
        line = aws.console_line(instance_id, "isolated:")
    observed(line or "the machine said nothing")
    assert "outside no" in line


@probes("aws-windows-console")
def test_what_windows_writes_to_com1_shows_on_the_console(aws: RealAws, observed: Observed):
    answer = aws.clients.ec2.describe_images(
        Owners=["amazon"],
        Filters=[{"Name": "name", "Values": ["Windows_Server-2022-English-Core-Base-*"]}],
    )
    if not answer["Images"]:
        pytest.skip("this region has no Windows image of Amazon's")
    newest = max(answer["Images"], key=lambda item: item["CreationDate"])
    account = aws.account()
    with aws.machine(COM1, engine_group(account), newest["ImageId"]) as instance_id:
        line = aws.console_line(instance_id, "imageport-com1")
    observed(line or "nothing of COM1 on the console after 15 minutes")
    assert line
