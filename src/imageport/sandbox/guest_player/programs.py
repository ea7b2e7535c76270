"""How the player runs the distribution's programs, and the one error that it raises."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


class PlayerError(Exception):
    """The boot could not be played at all: a fault of this machine, not of the image."""


def run(*argv: str | Path, good: tuple[int, ...] = (0,)) -> bytes:
    """Run a program and return its output; `PlayerError` when it ends with another code."""
    program = shutil.which(str(argv[0]), path=_PATH)
    if program is None:
        raise PlayerError(f"Cannot play the boot: '{argv[0]}' is not installed.")
    done = subprocess.run(
        [program, *map(str, argv[1:])],
        env={**os.environ, "LC_ALL": "C", "PATH": _PATH},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=300,
        check=False,
    )
    if done.returncode not in good:
        output = (done.stdout + done.stderr).decode("utf-8", "replace").strip()[-500:]
        raise PlayerError(f"Cannot run '{argv[0]}': exit code {done.returncode}: {output}")
    return done.stdout
