from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from imageport.sandbox.sample.build import build_raw_sample
from imageport.sandbox.sample.disk_image import clone_sparse
from imageport.sandbox.sample.driver_package import write_ena_package
from tests.sandbox.guest_player.ready_windows import Edit, edit_windows, make_ready


@pytest.fixture(scope="session")
def ready_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("ready")
    package = write_ena_package(work / "ena").parent
    disk = build_raw_sample(work / "ready.raw")
    return edit_windows(disk, work, lambda volume: make_ready(volume, package))


@pytest.fixture
def disk(ready_disk: Path, tmp_path: Path) -> Path:
    """A copy of the disk that is ready."""
    return clone_sparse(ready_disk, tmp_path / "disk.raw")


@pytest.fixture
def edited(disk: Path, tmp_path: Path) -> Callable[[Edit], Path]:
    """Change the copy."""
    return lambda edit: edit_windows(disk, tmp_path, edit)
