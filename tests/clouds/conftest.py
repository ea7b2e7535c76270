from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imageport.sandbox.aws.service import AwsService
from tests.clouds.aws_laboratory import CALM, AwsLab


@pytest.fixture(scope="session")
def aws_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsService]:
    root: Path = tmp_path_factory.mktemp("aws")
    with AwsService(root, **CALM) as service:
        yield service


@pytest.fixture
def aws_lab(aws_service: AwsService) -> Iterator[AwsLab]:
    lab = AwsLab(aws_service)
    try:
        yield lab
    finally:
        lab.empty()
        lab.close()
