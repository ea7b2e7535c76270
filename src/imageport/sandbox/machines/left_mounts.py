"""Removes folders in which a machine that was cut off may have left a mounted file system."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")


def clear_folder(folder: Path) -> None:
    """Make ``folder`` exist and be empty."""
    remove_folder(folder)
    folder.mkdir(parents=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder and all in it; one that is not there is no error."""
    for mount in reversed(mounts_below(folder)):
        # Lazily: its file system's process may have been killed already.
        subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)


def mounts_below(folder: Path) -> list[Path]:
    """Return what is mounted below a folder, outermost first."""
    found = []
    for line in MOUNTS.read_text().splitlines():
        place = Path(line.split()[1].encode().decode("unicode_escape"))
        if place.is_relative_to(folder):
            found.append(place)
    return found
