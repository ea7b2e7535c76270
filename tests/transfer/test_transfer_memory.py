"""Memory stays bounded whatever the size of the disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from imageport.model import BLOCK_BYTES, GIB, MIB

SCRIPT = Path(__file__).with_name("frugal_transfer.py")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "most_mib"), [("blocks", 256), ("runs", 384), ("stream", 256)])
def test_a_disk_of_256_gib_and_its_delta_take_little_memory(
    kind: str, most_mib: int, tmp_path: Path
):
    argv = [sys.executable, str(SCRIPT), str(tmp_path), kind]
    output = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    found = json.loads(output)
    assert found["first"]["bytes_sent"] == 256 * GIB
    assert found["first"]["bytes_read"] == 128 * 40 * MIB
    assert found["second"]["bytes_sent"] == 40 * MIB
    puts = 40 * MIB // BLOCK_BYTES
    assert found["second"]["requests"] == (puts // 8 if kind == "runs" else puts)
    assert found["peak_mib"] < most_mib, found
