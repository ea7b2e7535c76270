"""regipy's replay of a transaction log, in a process of its own: it leaves files open."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import sys
from regipy.recovery import apply_transaction_logs
hive, log, restored = sys.argv[1:]
apply_transaction_logs(hive, log, restored_hive_path=restored)
"""


def replayed_by_regipy(hive: Path, log: Path, restored: Path) -> Path:
    """Apply one log to a hive; returns the new file ``restored``."""
    command = [sys.executable, "-W", "ignore", "-c", _PROGRAM, hive, log, restored]
    subprocess.run(command, check=True, capture_output=True)
    return restored
