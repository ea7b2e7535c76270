"""One emulated project for each test of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imageport.sandbox.gcp.token_store import TokenStore
from tests.sandbox.gcp.gce_lab import GceLab
from tests.sandbox.gcp.gcs_lab import GcsLab


@pytest.fixture(scope="session")
def gcp_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the keys once: three RSA keys take longer than a test."""
    folder = tmp_path_factory.mktemp("keys")
    TokenStore(folder, lambda: 0.0)
    return folder


@pytest.fixture
def gcs(tmp_path: Path, gcp_keys: Path) -> Iterator[GcsLab]:
    """Give an emulated bucket in this process."""
    lab = GcsLab(tmp_path / "gcp", gcp_keys)
    try:
        yield lab
    finally:
        lab.close()


@pytest.fixture(scope="module")
def gce_service(tmp_path_factory: pytest.TempPathFactory, gcp_keys: Path) -> Iterator[GceLab]:
    """Give one emulated project to all tests of a file: they use names of their own."""
    lab = GceLab(tmp_path_factory.mktemp("gce"), gcp_keys)
    try:
        yield lab
    finally:
        lab.close()


@pytest.fixture
def gce(gce_service: GceLab) -> Iterator[GceLab]:
    """Give the emulated Compute Engine with all its knobs as usual."""
    gce_service.calm()
    yield gce_service
    gce_service.calm()


@pytest.fixture
def isolated(gce: GceLab) -> str:
    """Make rules that let nothing in or out; return their tag."""
    tag = gce.name("alone")
    for side in ("in", "out"):
        gce.rule(side, tag)
    return tag
