from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.first_boot.wine import WineWindows, missing_tool


@pytest.fixture(scope="session")
def windows() -> Iterator[WineWindows]:
    """A Windows folder of Wine's for all tests; skipped without Wine, failed with CI=true."""
    missing = missing_tool()
    if missing:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{missing} is not installed; ./test installs it.")
        pytest.skip(f"{missing} is not installed; ./test installs it.")
    with tempfile.TemporaryDirectory(prefix="imageport-wine-") as name:
        made = WineWindows.make(Path(name))
        try:
            yield made
        finally:
            made.close()
