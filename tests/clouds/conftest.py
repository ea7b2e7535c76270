from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imageport.sandbox.aws.service import AwsService
from imageport.sandbox.azure.service import AzureService
from imageport.sandbox.gcp.service import GcpService
from tests.clouds import azure_laboratory, gcp_laboratory
from tests.clouds.aws_laboratory import CALM, AwsLab, Connections
from tests.clouds.azure_laboratory import AzureConnections, AzureLab
from tests.clouds.gcp_laboratory import GcpConnections, GcpLab


@pytest.fixture(scope="session")
def aws_connections(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connections]:
    root: Path = tmp_path_factory.mktemp("aws")
    with AwsService(root, **CALM) as service:
        connections = Connections(service)
        try:
            yield connections
        finally:
            connections.close()


@pytest.fixture
def aws_lab(aws_connections: Connections) -> Iterator[AwsLab]:
    lab = AwsLab(aws_connections)
    try:
        yield lab
    finally:
        lab.empty()


@pytest.fixture(scope="session")
def azure_connections(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureConnections]:
    with AzureService(tmp_path_factory.mktemp("azure"), **azure_laboratory.CALM) as service:
        connections = AzureConnections(service)
        try:
            yield connections
        finally:
            connections.close()


@pytest.fixture
def azure_lab(azure_connections: AzureConnections) -> Iterator[AzureLab]:
    lab = AzureLab(azure_connections)
    try:
        yield lab
    finally:
        lab.empty()


@pytest.fixture(scope="session")
def gcp_connections(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcpConnections]:
    with GcpService(tmp_path_factory.mktemp("gcp"), **gcp_laboratory.CALM) as service:
        connections = GcpConnections(service)
        try:
            yield connections
        finally:
            connections.close()


@pytest.fixture
def debug_log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Every record of every library; Google's do not reach the root's handlers by themselves."""
    caplog.set_level(logging.DEBUG)
    google = logging.getLogger("google")
    google.addHandler(caplog.handler)
    caplog.set_level(logging.DEBUG, "google")
    yield caplog
    google.removeHandler(caplog.handler)


@pytest.fixture
def gcp_lab(gcp_connections: GcpConnections) -> Iterator[GcpLab]:
    lab = GcpLab(gcp_connections)
    try:
        yield lab
    finally:
        lab.empty()


GUEST = """
import json, sys, time
from pathlib import Path
disk, outcome = Path(sys.argv[1]), Path(sys.argv[2])
mode = {mode!r}
with disk.open("r+b") as file:
    print("guest sees", file.read(8).hex(), flush=True)
    if mode == "slow":
        time.sleep(4)
    file.seek(1024)
    file.write(b"booted")
if mode == "hang":
    print("*** STOP: 0x0000007B", flush=True)
    time.sleep(600)
print("imageport-firstboot: done", flush=True)
outcome.write_text(json.dumps({{"outcome": "shutdown"}}))
"""


def guest_of(
    service: AwsService | AzureService | GcpService, folder: Path
) -> Callable[[str], None]:
    def choose(mode: str) -> None:
        program = folder / "guest.py"
        program.write_text(GUEST.format(mode=mode))
        service.turn(boot_command=[sys.executable, str(program)])

    return choose


@pytest.fixture
def guest(aws_lab: AwsLab, tmp_path: Path) -> Callable[[str], None]:
    """Choose what the guest does."""
    return guest_of(aws_lab.service, tmp_path)


@pytest.fixture
def azure_guest(azure_lab: AzureLab, tmp_path: Path) -> Callable[[str], None]:
    """Choose what the guest does."""
    return guest_of(azure_lab.service, tmp_path)


@pytest.fixture
def gcp_guest(gcp_lab: GcpLab, tmp_path: Path) -> Callable[[str], None]:
    """Choose what the guest does."""
    return guest_of(gcp_lab.service, tmp_path)
