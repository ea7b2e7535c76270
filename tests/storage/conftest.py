"""Folders of every kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imageport.storage.folder import Folder
from imageport.storage.local import LocalFolder
from imageport.storage.memory import MemoryFolder


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    if request.param == "local":
        yield LocalFolder(tmp_path)
    else:
        yield MemoryFolder()
