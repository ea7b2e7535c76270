"""``imageport doctor``: what is installed, reachable and permitted, and how to mend it."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from imageport.cli.cloud_arguments import add_cloud_arguments, cloud_from, state_from
from imageport.errors import ImageportError
from imageport.storage.locate import credentials_from_environment, open_folder


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    passed: bool
    found: str
    mend: str = ""


TOOLS = {
    "qemu-img": ("qemu-utils", "second opinion on disks"),
    "qemu-system-x86_64": ("qemu-system-x86", "the compositing engine's small machine"),
    "guestfish": ("libguestfs-tools", "the compositing engine"),
    "smbd": ("samba", "the embedded site only"),
    "hivexget": ("libhivex-bin", "the embedded site and the tests only"),
    "ntfssecaudit": ("ntfs-3g", "the embedded site and the tests only"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--store", action="append", default=[], metavar="LOCATION",
        help="a vDisk store or other folder to reach: a path or smb://host/share/folder; "
        "user and password come from IMAGEPORT_SMB_USER and IMAGEPORT_SMB_PASSWORD",
    )  # fmt: skip
    add_cloud_arguments(parser, required=False)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print one line per check; 1 when any failed."""
    checks = [*_local_checks(), *(_store_check(location) for location in args.store)]
    if args.cloud:
        checks += _cloud_checks(args)
    if args.json:
        sys.stdout.write(json.dumps([asdict(check) for check in checks]) + "\n")
    for check in () if args.json else checks:
        mark = "ok  " if check.passed else "FAIL"
        sys.stdout.write(f"{mark}  {check.name}: {check.found}\n")
        if not check.passed:
            sys.stdout.write(f"      mend: {check.mend}\n")
    return 0 if all(check.passed for check in checks) else 1


def _local_checks() -> list[Check]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    checks = [Check("Python", sys.version_info >= (3, 11), version, "Install Python 3.11+.")]
    for tool, (package, purpose) in TOOLS.items():
        path = shutil.which(tool)
        mend = f"apt-get install {package} ({purpose})"
        checks.append(Check(tool, path is not None, path or "not on PATH", mend))
    checks.append(_guestfs_check())
    checks.append(_kernel_check())
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


def _store_check(location: str) -> Check:
    try:
        with open_folder(location, credentials_from_environment()) as folder:
            entries = folder.list()
            free = folder.free_bytes() // 2**30
    except ImageportError as error:
        return Check(location, passed=False, found=str(error.message), mend=error.hint)
    return Check(location, passed=True, found=f"{len(entries)} entries, {free} GiB free")


def _cloud_checks(args: argparse.Namespace) -> list[Check]:
    cloud = cloud_from(args, state_from(args), run="doctor")
    try:
        gaps = cloud.check_permissions()
    except ImageportError as error:
        return [Check(args.cloud, passed=False, found=error.message, mend=error.hint)]
    finally:
        cloud.close()
    if not gaps:
        return [Check(args.cloud, passed=True, found="every action of a run is permitted")]
    return [
        Check(
            gap.action, passed=False, found=gap.found,
            mend=f"Grant {gap.action} (for {gap.needed_for}) to the worker's role or user.",
        )
        for gap in gaps
    ]  # fmt: skip
