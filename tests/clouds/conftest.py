from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imageport.sandbox.aws.service import AwsService
from tests.clouds.aws_laboratory import CALM, AwsLab, Connections


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
