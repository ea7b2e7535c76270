"""The one way in which the sample's generator runs the distribution's programs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from imageport.errors import EngineFailed, MissingTool
from imageport.sandbox.sample.windows_files import FILE_TIME_SECONDS

# mkntfs, sgdisk and mkfs.vfat lie in sbin, which is not on an ordinary user's PATH on Debian.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def available(program: str) -> bool:
    """Say whether this machine has the program."""
    return shutil.which(program, path=SEARCH_PATH) is not None


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    timeout_seconds: float = 300,
) -> str:
    """Run a program and return its standard output.

    Raises:
        MissingTool: it is not installed.
        EngineFailed: it ended with another code than 0, or ran too long; carries its output.
    """
    program = shutil.which(str(argv[0]), path=SEARCH_PATH)
    if program is None:
        raise MissingTool(f"Cannot build the sample: '{argv[0]}' is not installed.")
    variables = os.environ | {
        "PATH": SEARCH_PATH,
        "LC_ALL": "C",
        # Tools that know it stamp this time instead of now.
        "SOURCE_DATE_EPOCH": str(FILE_TIME_SECONDS),
        **(env or {}),
    }
    try:
        result = subprocess.run(
            [program, *map(str, argv[1:])],
            env=variables,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineFailed(f"Cannot run '{argv[0]}': no end in {timeout_seconds:.0f} s.") from error
    if result.returncode != 0:
        log = (result.stdout + result.stderr)[-2000:]
        raise EngineFailed(f"Cannot run '{argv[0]}': exit code {result.returncode}: {log}", log=log)
    return result.stdout
