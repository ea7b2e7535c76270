"""One vCenter for the tests of a file, with its knobs as they were for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from imageport.sandbox.vcenter.knobs import Knobs
from tests.sandbox.vcenter.vcenter_lab import VcenterLab


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VcenterLab]:
    """Start a vCenter."""
    with VcenterLab.started(tmp_path_factory.mktemp("vcenter")) as lab:
        yield lab


@pytest.fixture
def lab(running: VcenterLab) -> Iterator[VcenterLab]:
    """Return the vCenter, its knobs turned back afterwards."""
    yield running
    running.service.turn(**asdict(Knobs()))


@pytest.fixture
def own_lab(tmp_path: Path) -> Iterator[VcenterLab]:
    """Start a vCenter that a test may break."""
    with VcenterLab.started(tmp_path / "vcenter") as lab:
        yield lab
