from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core.pipeline.transport import HttpTransport

from imageport.clouds import waiting
from imageport.sandbox.aws.service import AwsService
from imageport.sandbox.azure.service import AzureService
from imageport.sandbox.gcp.service import GcpService
from tests.clouds import azure_laboratory, gcp_laboratory
from tests.clouds.aws_laboratory import CALM, AwsLab, Connections
from tests.clouds.azure_laboratory import AzureConnections, AzureLab
from tests.clouds.gcp_laboratory import GcpConnections, GcpLab
from tests.clouds.machine_lab import ChooseGuest
from tests.clouds.stand_in_guest import guest_of

LONGEST_BACK_OFF_SECONDS = 0.4


@pytest.fixture(autouse=True, scope="module")
def short_pauses() -> Iterator[None]:
    """Emulated machines take milliseconds, and emulated trouble seconds, a cloud's take minutes."""

    def sleep(_transport: HttpTransport[Any, Any], seconds: float) -> None:
        time.sleep(min(seconds, LONGEST_BACK_OFF_SECONDS))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting, "FIRST_PAUSE_SECONDS", 0.05)
        patch.setattr(waiting, "LONGEST_PAUSE_SECONDS", 0.5)
        patch.setattr(waiting, "LONGEST_BACK_OFF_SECONDS", LONGEST_BACK_OFF_SECONDS)
        # Between the tries of Azure's own library.
        patch.setattr(HttpTransport, "sleep", sleep)
        yield


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


@pytest.fixture
def guest(aws_lab: AwsLab, tmp_path: Path) -> ChooseGuest:
    """Choose what the guest does."""
    return guest_of(aws_lab.service, tmp_path)
