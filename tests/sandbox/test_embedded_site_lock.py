"""Two commands on one embedded site: the second is refused and ends nothing of the first."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from imageport.errors import InputError
from imageport.sandbox.processes import MARK
from imageport.sandbox.site import EmbeddedSite


def test_a_site_that_another_process_runs_is_left_alone(tmp_path: Path):
    service = subprocess.Popen(["sleep", "600"], env={**os.environ, MARK: str(tmp_path)})
    try:
        with (tmp_path / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            site = EmbeddedSite(tmp_path)
            with pytest.raises(InputError, match="another process"):
                site.start()
            site.stop()
            assert service.poll() is None
    finally:
        service.kill()
        service.wait()
