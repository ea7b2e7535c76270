"""An upload to Google whose process is killed -9 goes on, and leaves nothing twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from imageport.clouds.gcp.segment_disk import SegmentDisk
from imageport.model import MIB
from imageport.state.store import StateStore
from imageport.storage.local import LocalFolder
from tests.clouds import gcp_killed_upload
from tests.clouds.gcp_killed_upload import the_disk, upload
from tests.clouds.gcp_laboratory import GcpLab

SEGMENTS = 64
"""Blocks of the disk that hold data, all of them different."""


@pytest.mark.parametrize(
    "where",
    [
        "between puts",
        pytest.param("before the upload is recorded", marks=pytest.mark.slow),
        pytest.param("while blocks are joined", marks=pytest.mark.slow),
        pytest.param("before the image is made", marks=pytest.mark.slow),
        pytest.param("before the image is recorded", marks=pytest.mark.slow),
        pytest.param("before the marker is deleted", marks=pytest.mark.slow),
    ],
)
def test_a_killed_upload_goes_on_where_it_was(gcp_lab: GcpLab, tmp_path: Path, where: str):
    endpoint, key = gcp_lab.service.endpoint, gcp_lab.service.credentials_file
    program = str(gcp_killed_upload.__file__)
    command = [sys.executable, program, endpoint, str(key), str(tmp_path), where, "segments"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    result = upload(endpoint, key, tmp_path)
    if where == "between puts":
        assert 0 < result.stats.bytes_resumed < 32 * MIB
    elif where != "before the upload is recorded":
        assert result.stats.bytes_sent == 0
    assert gcp_lab.images() == [result.reference]
    keys = gcp_lab.objects()
    assert len(keys) == SEGMENTS + 1
    assert [key for key in keys if "/seg/" not in key and "/index/" not in key] == []
    ledger = StateStore(LocalFolder(tmp_path)).ledger
    assert [entry.resource_id for entry in ledger.open_entries()] == [result.reference]
    with SegmentDisk(gcp_lab.account("reader"), result.reference) as found:
        assert found.read_at(0, 40 * MIB) == the_disk().content(0, 40 * MIB)
