"""An upload to Azure whose process is killed -9 goes on, and leaves nothing twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from imageport.clouds.azure.managed_disk_reader import SnapshotDisk
from imageport.model import MIB
from imageport.state.store import StateStore
from imageport.storage.local import LocalFolder
from tests.clouds import azure_killed_upload
from tests.clouds.azure_killed_upload import the_disk, upload
from tests.clouds.azure_laboratory import AzureLab


@pytest.mark.parametrize(
    "where",
    [
        "between puts",
        pytest.param("before the snapshot is recorded", marks=pytest.mark.slow),
        pytest.param("before the disk is recorded", marks=pytest.mark.slow),
        pytest.param("after the upload is closed", marks=pytest.mark.slow),
        pytest.param("before the disk is deleted", marks=pytest.mark.slow),
    ],
)
def test_a_killed_upload_goes_on_where_it_was(azure_lab: AzureLab, tmp_path: Path, where: str):
    endpoint = azure_lab.service.endpoint
    command = [sys.executable, str(azure_killed_upload.__file__), endpoint, str(tmp_path), where]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    result = upload(endpoint, tmp_path)
    if where == "between puts":
        assert 0 < result.stats.bytes_resumed < 32 * MIB
    elif where != "before the disk is recorded":
        assert result.stats.bytes_sent == 0
    assert (azure_lab.disks(), azure_lab.snapshots()) == ([], [result.reference])
    assert azure_lab.open_access() == []
    ledger = StateStore(LocalFolder(tmp_path)).ledger
    assert [entry.resource_id for entry in ledger.open_entries()] == [result.reference]
    with SnapshotDisk(azure_lab.account("reader"), result.reference) as found:
        assert found.read_at(0, 40 * MIB) == the_disk().content(0, 40 * MIB)
