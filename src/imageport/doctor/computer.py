"""What is installed on the computer that asks."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from imageport.doctor.check import Check

ENGINE_TOOLS = {
    "qemu-img": ("qemu-utils", "second opinion on disks"),
    "qemu-system-x86_64": ("qemu-system-x86", "the compositing engine's small machine"),
    "guestfish": ("libguestfs-tools", "the compositing engine"),
}
LABORATORY_TOOLS = {
    "smbd": ("samba", "the embedded site only"),
    "hivexget": ("libhivex-bin", "the embedded site and the tests only"),
    "ntfssecaudit": ("ntfs-3g", "the embedded site and the tests only"),
}


def computer_checks() -> list[Check]:
    """Look for Python, the engine's tools, a kernel and Prefect."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    checks = [Check("Python", sys.version_info >= (3, 11), version, "Install Python 3.11+.")]
    for tools, optional in ((ENGINE_TOOLS, False), (LABORATORY_TOOLS, True)):
        for tool, (package, purpose) in tools.items():
            path = shutil.which(tool)
            mend = f"apt-get install {package} ({purpose})"
            found = path or "not on PATH"
            checks.append(Check(tool, path is not None, found, mend, optional=optional))
    checks += [_guestfs_check(), _kernel_check()]
    has_prefect = importlib.util.find_spec("prefect") is not None
    found = "importable" if has_prefect else "not importable"
    checks.append(Check("Prefect", has_prefect, found, "Install requirements.lock again."))
    return checks


def _guestfs_check() -> Check:
    """The engine runs under the distribution's Python, whose guestfs module no index carries."""
    done = subprocess.run(
        ["/usr/bin/python3", "-c", "import guestfs, sys; print(sys.version.split()[0])"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = f"Python {done.stdout.strip()}" if done.returncode == 0 else "not importable"
    return Check(
        "guestfs in /usr/bin/python3", done.returncode == 0, found,
        "apt-get install python3-guestfs",
    )  # fmt: skip


def _kernel_check() -> Check:
    kernels = [
        path for path in sorted(Path("/boot").glob("vmlinuz-*"))
        if os.access(path, os.R_OK) and Path("/lib/modules", path.name[8:]).is_dir()
    ]  # fmt: skip
    found = kernels[-1].name if kernels else "none readable with its modules"
    mend = "apt-get install linux-image-amd64 (Ubuntu: linux-image-virtual, readable by this user)"
    return Check("kernel for libguestfs", bool(kernels), found, mend)
