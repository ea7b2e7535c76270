"""PVS to PVS by a plain script: a vDisk of one store, prepared, in another."""

from collections.abc import Iterator

import pytest

from imageport.sandbox.sample.build import build_sample
from imageport.sandbox.sample.recipe import Variant
from tests.end_to_end.lab_clouds import LAB_CLOUDS
from tests.end_to_end.laboratory import Laboratory, open_laboratory
from tests.end_to_end.story import Story

# In the short form a vDisk with a guest goes to AWS through Prefect (tests/prefect), and a small
# disk from a vCenter to all clouds (test_matrix).
pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module", params=sorted(LAB_CLOUDS))
def laboratory(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Laboratory]:
    root = tmp_path_factory.mktemp(request.param)
    with open_laboratory(
        root, lambda path: build_sample(path, Variant.SMALL), request.param
    ) as opened:
        yield opened


class TestPvsToPvs(Story):
    """From a vDisk of one VHDX."""
